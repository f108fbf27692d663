// SPDX-License-Identifier: MIT OR Apache-2.0
//! Revocation: what the program does to promoted memory reaches attachers.
//!
//! Removing a range of the memfd takes its pages from every attacher at once
//! and before the call returns. Two things lead here. libc's memory functions
//! come first and by themselves ([`crate::user::hooks`]): they ask before they change
//! anything. Raw system calls come as events of the kernel, afterwards, but the
//! caller sleeps until its event is read.
//!
//! Order for events: first all threads are asked to stop, then events are read
//! (a caller stops on its way back to user mode), then, with all threads standing,
//! what is no longer mapped is taken from the attachers and what was moved is put
//! right, then everybody goes on. So the work is as much as the events tell of.
//! Where the threads cannot be stopped, all that is promoted is looked through
//! before an event is read: the caller goes on after the pages are gone.

#![forbid(unsafe_code)]

use super::Owner;
use crate::debug::{count, COUNTERS};
use crate::debug_log;
use crate::errno::Errno;
use crate::fd::Fd;
use crate::user::arena::ranges::Origin;
use crate::user::arena::{self, Shared};
use crate::user::sys::{held, insist, mem, page_down, page_up, Span, Sys, TOP};

pub const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
pub const FILE_MAP: i32 = libc::MAP_SHARED | libc::MAP_NORESERVE;
pub const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

impl Owner {
    /// Punches `span` out of the memfd: its pages are taken from every attacher, and its
    /// content is forgotten.
    pub fn punch(&self, span: Span) {
        if crate::testing::revocation_is_off() {
            return;
        }
        let (start, end) = (span.start(), span.end());
        if let Err(errno) = mem::punch(self.memfd, start, span.len()) {
            debug_log!("revocation of {start:#x}..{end:#x}: errno {errno}");
        }
        count(&COUNTERS.revocations);
    }

    /// `span` is about to be unmapped, or something else put in its place. The addresses
    /// stay taken until then, but nothing is behind them. What was lent there has been
    /// recalled. An error where that will be refused: nothing has changed.
    pub fn retire_standing(&mut self, shared: &Shared, span: Span) -> Sys<()> {
        let span = outward(span);
        if shared.promoted.first_in(span).is_none() {
            return Ok(());
        }
        self.can_be_unmapped(span)?;
        while let Some(r) = shared.promoted.first_in(span) {
            self.retire_range(shared, r.span())?;
        }
        Ok(())
    }

    fn retire_range(&mut self, shared: &Shared, span: Span) -> Sys<()> {
        let (none, flags) = (libc::PROT_NONE, PRIVATE | libc::MAP_FIXED);
        if self.still_own(span) {
            self.program.changes().unwatch(span)?;
            if let Err(errno) = held::map(span.start(), span.len(), none, flags, Fd::NONE, 0) {
                insist(|| self.program.changes().watch(span))?;
                return Err(errno);
            }
        }
        shared.promoted.remove(span);
        self.punch(span);
        Ok(())
    }

    /// Whether the kernel will refuse to unmap `span`: something there is sealed
    /// (EPERM), or the program has as many mappings as it may have (ENOMEM).
    fn can_be_unmapped(&self, span: Span) -> Sys<()> {
        let space = self.program.space;
        let is_cut = |at: usize| -> Sys<bool> { Ok(space.at(at)?.is_some_and(|m| m.start < at)) };
        if is_cut(span.start())? || is_cut(span.end())? {
            self.program.scratch.try_to_split()?;
        }
        let sealed = space.first_sealed(span)?;
        sealed.map_or(Ok(()), |_| Err(Errno::EPERM))
    }

    /// The content of private memory in `span` is dropped: it reads as zeros from now
    /// on, here and at every attacher.
    pub fn discard(&mut self, span: Span) -> Sys<()> {
        let Some(shared) = arena::existing() else {
            return Ok(());
        };
        let span = outward(span);
        self.note_growth_into(span);
        let mut rest = span;
        while let Some(r) = shared.promoted.first_in(rest) {
            if r.origin == Origin::Private {
                self.punch(r.span());
            }
            rest = span.from(r.end);
        }
        Ok(())
    }

    /// madvise(2) with an advice that drops content, for the program: answers 1
    /// when all is done.
    pub fn discard_all(&mut self, span: Span, advice: i32) -> Sys<u64> {
        let Some(shared) = arena::existing() else {
            return Ok(0);
        };
        let span = Span::new(span.start(), page_up(span.end().min(TOP)));
        self.note_growth_into(span);
        let mut rest = span;
        while let Some(r) = shared.promoted.first_in(rest) {
            if r.start > rest.start() {
                self.advise_private(Span::new(rest.start(), r.start), advice)?;
            }
            if mem::is_locked(r.start) {
                // As for any locked memory.
                return Err(Errno::EINVAL);
            }
            if r.origin == Origin::Private {
                self.may_be_dropped(r.span())?;
                self.punch(r.span());
            }
            rest = span.from(r.end);
        }
        if !rest.is_empty() {
            self.advise_private(rest, advice)?;
        }
        Ok(1)
    }

    /// EPERM where the kernel would keep private memory: it is sealed and only readable.
    fn may_be_dropped(&self, span: Span) -> Sys<()> {
        let mut rest = span;
        while let Some(sealed) = self.program.space.first_sealed(rest)? {
            let there = self.program.space.at(sealed.start())?;
            if there.is_some_and(|m| !m.write) {
                return Err(Errno::EPERM);
            }
            rest = span.from(sealed.end());
        }
        Ok(())
    }

    /// For memory between what is promoted.
    fn advise_private(&self, span: Span, advice: i32) -> Sys<()> {
        let mut at = span.start();
        while let Some(m) = self
            .program
            .space
            .find(at)?
            .filter(|m| m.start < span.end())
        {
            if self.is_own(&m) {
                // The event of that would come to this very task.
                return Err(Errno::EAGAIN);
            }
            at = m.end;
        }
        held::advise(span.start(), span.len(), advice)
    }
}

/// Whole pages around a range.
pub fn outward(span: Span) -> Span {
    let end = page_up(span.end().min(TOP));
    Span::new(page_down(span.start().min(TOP)), end)
}
