// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that is shared from the start.
//!
//! A thread of the program has just made a private anonymous mapping, of a size of
//! which peers have asked for most ([`crate::user::arena::born`]), and waits, so that
//! nobody knows the memory yet: pages of the file take its place, as a promotion
//! would have them, and nobody has to stand. In any doubt it stays as it is: then
//! it is promoted if a peer asks for it.
//!
//! From here on it is promoted memory like any other: for forks, for what the
//! program says of it, for its end.

#![forbid(unsafe_code)]

use super::revoke::{FILE_MAP, RW};
use super::Owner;
use crate::debug::{count, COUNTERS};
use crate::debug_log;
use crate::errno::Errno;
use crate::fd::Fd;
use crate::user::arena::ranges::{Origin, Range};
use crate::user::arena::Shared;
use crate::user::sys::maps::{Mapping, Name};
use crate::user::sys::policy::Policy;
use crate::user::sys::{held, insist, mem, task, Span, Sys, HUGE};

const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// How much memory that was born shared is known as such.
const KNOWN: usize = 256;

#[derive(Clone, Copy)]
struct Newborn {
    span: Span,
    asked_for: bool,
}

/// What was born shared and lives. All zero: nothing. It decides what is born
/// shared later, and nothing else.
pub struct Nursery {
    len: usize,
    all: [Newborn; KNOWN],
}

impl Nursery {
    fn add(&mut self, span: Span) {
        self.all[self.len] = Newborn {
            span,
            asked_for: false,
        };
        self.len += 1;
    }

    fn keep(&mut self, is_kept: impl Fn(&Newborn) -> bool) {
        let mut kept = 0;
        for i in 0..self.len {
            if is_kept(&self.all[i]) {
                self.all[kept] = self.all[i];
                kept += 1;
            }
        }
        self.len = kept;
    }

    fn drop_in(&mut self, span: Span) {
        self.keep(|c| !c.span.overlaps(span));
    }

    /// Whether there is room for one more in `span`.
    fn has_room_for(&mut self, shared: &Shared, span: Span) -> bool {
        self.drop_in(span);
        if self.len == KNOWN {
            // What was moved is not known by its end.
            self.keep(|c| shared.promoted.first_in(c.span).is_some());
        }
        self.len < KNOWN
    }

    /// A peer has asked for the page at `addr`.
    pub fn note_asked(&mut self, addr: usize) {
        for c in &mut self.all[..self.len] {
            c.asked_for |= c.span.contains(addr);
        }
    }

    /// Whether a peer has asked for `span`, if that was born shared.
    fn was_asked_for(&self, span: Span) -> Option<bool> {
        let all = &self.all[..self.len];
        let found = all.iter().find(|c| c.span == span);
        found.map(|c| c.asked_for)
    }
}

/// Whether the kernel promises no more memory than it has: private memory has that
/// promise, and pages of a file are SIGBUS where it has none left.
pub fn memory_is_promised() -> bool {
    let mut text = [0u8; 8];
    let path = c"/proc/sys/vm/overcommit_memory";
    let read = crate::fd::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0)
        .map(|fd| task::read_text(fd.fd(), &mut text));
    read.is_ok_and(|n| text[..n].first() == Some(&b'2'))
}

impl Owner {
    /// Puts pages of the file in the place of `span`, which a thread has just mapped and
    /// not touched. EAGAIN: it stays as it is.
    pub fn bear(&mut self, shared: &Shared, span: Span) -> Sys<u64> {
        if !self.may_bear(shared, span)?
            || !self.newborn.has_room_for(shared, span)
            || !self.can_note_settings(shared)
        {
            return Err(Errno::EAGAIN);
        }
        let (start, len) = (span.start(), span.len());
        // The program may give its memory one, as the file's.
        self.has_policies = true;
        // Nothing older may show through.
        mem::punch(self.memfd, start, len)?;
        self.program.unwatch(span)?;
        if !self.program.scratch.has_room_to_give() {
            return Err(Errno::ENOMEM);
        }
        // Known to be promoted first: whoever ends this service would find it so.
        shared.promoted.insert(Range::new(span, Origin::Private));
        if let Err(errno) = self.map_newborn(span) {
            debug_log!("{start:#x}+{len:#x} is not born shared: errno {errno}");
            shared.promoted.remove(span);
            return Err(errno);
        }
        let _ = self.settings.set(span, 0);
        self.newborn.add(span);
        count(&COUNTERS.born_shared);
        Ok(0)
    }

    /// Where this fails there is private memory again.
    fn map_newborn(&self, span: Span) -> Sys<()> {
        let (start, len) = (span.start(), span.len());
        let flags = FILE_MAP | libc::MAP_FIXED;
        held::map(start, len, RW, flags, self.memfd, start)?;
        // A child of a fork past libc, in this moment, has memory that nobody knows.
        let placed = held::advise(start, len, libc::MADV_DONTFORK)
            .and_then(|()| self.take_policies_away(span))
            .and_then(|()| self.program.changes().watch(span));
        placed.inspect_err(|_| {
            self.program.scratch.give_room();
            let flags = PRIVATE | libc::MAP_FIXED;
            if insist(|| held::map(start, len, RW, flags, Fd::NONE, 0)).is_err() {
                // It would go on with memory that is not its own.
                let tgid = self.program.tgid();
                let _ = task::signal_task(tgid, tgid, libc::SIGKILL);
            }
        })
    }

    /// The file may have policies of memory that has stood there before.
    fn take_policies_away(&self, span: Span) -> Sys<()> {
        if !self.may_have_policies() {
            return Ok(());
        }
        match Policy::take_away(span.start(), span.len()) {
            // Where that is forbidden nobody has given it any.
            Err(Errno::EPERM | Errno::ENOSYS) => Ok(()),
            done => done,
        }
    }

    fn may_bear(&self, shared: &Shared, span: Span) -> Sys<bool> {
        let is_plain =
            |m: &Mapping| m.prot() == RW && !m.shared && m.inode == 0 && m.name == Name::Plain;
        let Some(m) = self.program.space.at(span.start())?.filter(is_plain) else {
            return Ok(false);
        };
        Ok(!span.is_empty()
            && span.end() <= m.end
            && self.segments.first_in(span) == Some(span)
            && shared.promoted.has_room()
            && shared.promoted.len() < self.thrifty_from
            && shared.promoted.first_in(span).is_none()
            && !self.program.forks.are_under_way()
            // All new memory is, and has pages already.
            && !mem::is_locked(span.start())
            && self.without_own_memory(span.start(), span) == Ok(span))
    }

    /// `span` is about to be unmapped: what mappings of its size are worth is learned
    /// from that.
    pub fn learn_from(&mut self, shared: &Shared, span: Span) {
        let asked_for = self.newborn.was_asked_for(span).unwrap_or_else(|| {
            let mut promoted = 0;
            let mut rest = span;
            while let Some(r) = shared.promoted.first_in(rest) {
                if r.origin == Origin::Private {
                    promoted += r.end - r.start;
                }
                rest = span.from(r.end);
            }
            // What the kernel gives huge pages is better born private.
            promoted > span.len() / 2 && !(span.len() >= HUGE && self.all_huge(span))
        });
        self.newborn.drop_in(span);
        if asked_for {
            shared.born.asked_for(span.len());
        }
    }
}
