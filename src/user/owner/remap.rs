// SPDX-License-Identifier: MIT OR Apache-2.0
//! mremap(2) of memory that promotion has cut in pieces.
//!
//! The kernel moves one mapping at a time, and promotion makes several of what
//! the program knows as one. So where the program's mremap covers more than one
//! mapping, or anything promoted, the service does it piece by piece, while the
//! caller waits and all threads stand.

#![forbid(unsafe_code)]

use super::Owner;
use crate::debug_log;
use crate::errno::Errno;
use crate::fd::Fd;
use crate::user::arena::ranges::Origin;
use crate::user::arena::Shared;
use crate::user::program::threads::Standing;
use crate::user::sys::maps::Mapping;
use crate::user::sys::{advice, held, insist, Span, Sys, PAGE};

const FRESH: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// The arguments of one mremap.
#[derive(Clone, Copy)]
pub struct Remap {
    pub old: usize,
    pub old_len: usize,
    pub new_len: usize,
    pub flags: i32,
    pub target: usize,
}

impl Remap {
    /// What is to be moved.
    pub fn old(&self) -> Span {
        Span::of(self.old, self.old_len)
    }

    /// What it takes the place of, if the program has said that.
    pub fn target(&self) -> Option<Span> {
        let fixed = self.flags & libc::MREMAP_FIXED != 0;
        fixed.then(|| Span::of(self.target, self.new_len))
    }
}

impl Owner {
    pub fn needs_help(&self, shared: &Shared, r: &Remap) -> bool {
        let old = r.old();
        if self.program.attachments.overlaps(old) {
            // Of those the kernel says what can be done.
            return false;
        }
        let single = self
            .program
            .space
            .at(r.old)
            .ok()
            .flatten()
            .is_some_and(|m| m.end >= old.end());
        let is_promoted = |span| shared.promoted.first_in(span).is_some();
        !single || is_promoted(old) || r.target().is_some_and(is_promoted)
    }

    pub fn remap_standing(
        &mut self,
        standing: &Standing,
        shared: &Shared,
        r: &Remap,
    ) -> Sys<usize> {
        let old = r.old();
        let last = self.whole(old)?;
        if r.flags & libc::MREMAP_FIXED == 0 {
            if let Some(answer) = self.resize(shared, r, &last) {
                return answer;
            }
        }
        // What moves has other offsets in the file: it cannot stay there.
        self.demote(standing, shared, old)?;
        self.program.unwatch(old)?;
        let last = self.whole(old)?;
        if r.flags & libc::MREMAP_FIXED != 0 {
            let target = Span::below_top(r.target, r.new_len).ok_or(Errno::EINVAL)?;
            if target.overlaps(old) {
                return Err(Errno::EINVAL);
            }
            self.retire_standing(shared, target)?;
            self.program.unwatch(target)?;
            let (none, flags) = (libc::PROT_NONE, FRESH | libc::MAP_FIXED);
            held::map(r.target, r.new_len, none, flags, Fd::NONE, 0)?;
            self.program.on_unmapped(target);
            self.move_pieces(r, r.target, &last)?;
            return Ok(r.target);
        }
        let to = held::map(0, r.new_len, libc::PROT_NONE, FRESH, Fd::NONE, 0)?;
        self.move_pieces(r, to, &last).inspect_err(|_| {
            let _ = insist(|| held::unmap(to, r.new_len));
        })?;
        Ok(to)
    }

    /// Does what can be done without a move: pages that a device holds stay where
    /// they are. `last` is the last mapping there. `None`: it has to move.
    fn resize(&mut self, shared: &Shared, r: &Remap, last: &Mapping) -> Option<Sys<usize>> {
        let end = r.old + r.old_len;
        if r.new_len <= r.old_len {
            let rest = Span::new(r.old + r.new_len, end);
            if !rest.is_empty() {
                let gone = self.retire_standing(shared, rest);
                let gone = gone.and_then(|()| self.program.unwatch(rest));
                if let Err(errno) = gone.and_then(|()| held::unmap(rest.start(), rest.len())) {
                    return Some(Err(errno));
                }
            }
            return Some(Ok(r.old));
        }
        let promoted = shared.promoted.first_in(Span::new(end - PAGE, end));
        let private = self.is_own(last) && promoted.is_some_and(|p| p.origin == Origin::Private);
        if !private && (last.shared || last.inode != 0) {
            // What lies behind a file's mapping is the file's to say.
            return Some(Err(Errno::EFAULT));
        }
        let more = r.new_len - r.old_len;
        let flags = FRESH | libc::MAP_FIXED_NOREPLACE;
        match held::map(end, more, last.prot(), flags, Fd::NONE, 0) {
            Ok(at) if at == end => {
                let (bits, _) = self.settings.at(Span::new(end - PAGE, end));
                return Some(advice::apply(bits, at, more).map(|()| r.old));
            }
            Ok(elsewhere) => {
                let _ = held::unmap(elsewhere, more);
            }
            Err(_) => {}
        }
        if r.flags & libc::MREMAP_MAYMOVE == 0 {
            return Some(Err(Errno::ENOMEM));
        }
        None
    }

    /// The last mapping of `span`, if all of it is mapped: EFAULT else.
    fn whole(&self, span: Span) -> Sys<Mapping> {
        let mut at = span.start();
        loop {
            let m = self.program.space.at(at)?.ok_or(Errno::EFAULT)?;
            if m.end >= span.end() {
                return Ok(m);
            }
            at = m.end;
        }
    }

    /// Moves what is at the old place to `to`, where room has been made, and
    /// gives the rest of it new memory. Where that fails all is at the old place.
    fn move_pieces(&mut self, r: &Remap, to: usize, last: &Mapping) -> Sys<()> {
        let end = r.old + r.old_len.min(r.new_len);
        if r.new_len > r.old_len {
            let flags = FRESH | libc::MAP_FIXED;
            let more = r.new_len - r.old_len;
            held::map(to + r.old_len, more, last.prot(), flags, Fd::NONE, 0)?;
        }
        let mut at = r.old;
        while at < end {
            let piece = self
                .program
                .space
                .at(at)
                .and_then(|m| m.ok_or(Errno::EFAULT));
            let moved = piece.and_then(|m| {
                let hi = m.end.min(end);
                held::move_over(at, hi - at, to + (at - r.old)).map(|()| hi)
            });
            match moved {
                Ok(hi) => at = hi,
                Err(errno) => {
                    self.move_pieces_back(r.old, to, at - r.old);
                    return Err(errno);
                }
            }
        }
        if r.new_len < r.old_len {
            let _ = insist(|| held::unmap(end, r.old + r.old_len - end));
        }
        Ok(())
    }

    /// Undoes a move of `len` bytes, all threads standing.
    fn move_pieces_back(&self, old: usize, to: usize, len: usize) {
        let mut at = to;
        self.program.scratch.give_room();
        while at < to + len {
            let Ok(Some(m)) = self.program.space.at(at) else {
                break;
            };
            let hi = m.end.min(to + len);
            if let Err(errno) = insist(|| held::move_over(at, hi - at, old + (at - to))) {
                debug_log!("memory stays at {at:#x}: errno {errno}");
            }
            at = hi;
        }
    }
}
