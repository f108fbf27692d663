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
pub const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

impl Owner {
    /// Takes `[lo, hi)` from every attacher and forgets its content.
    pub fn cut_off(&self, lo: usize, hi: usize) {
        if crate::testing::revocation_is_off() {
            return;
        }
        if let Err(errno) = mem::punch(self.memfd, lo, hi - lo) {
            debug_log!("revocation of {lo:#x}..{hi:#x}: errno {errno}");
        }
        count(&COUNTERS.revocations);
    }

    /// `[start, end)` is about to be unmapped, or something else put in its place. The
    /// addresses stay taken until then, but nothing is behind them. What was lent there
    /// has been recalled. An error where that will be refused: nothing has changed.
    pub fn retire_standing(&mut self, shared: &Shared, start: usize, end: usize) -> Sys<()> {
        let span = outward(Span::new(start, end));
        let (start, end) = (span.start(), span.end());
        if shared.promoted.first_in(Span::new(start, end)).is_none() {
            return Ok(());
        }
        self.can_be_unmapped(start, end)?;
        while let Some(r) = shared.promoted.first_in(Span::new(start, end)) {
            self.retire_range(shared, r.start, r.end)?;
        }
        Ok(())
    }

    fn retire_range(&mut self, shared: &Shared, lo: usize, hi: usize) -> Sys<()> {
        let flags = PRIVATE | libc::MAP_FIXED;
        if self.still_own(lo, hi) {
            self.program.changes().unwatch(Span::new(lo, hi))?;
            if let Err(errno) = held::map(lo, hi - lo, libc::PROT_NONE, flags, Fd::NONE, 0) {
                insist(|| self.program.changes().watch(Span::new(lo, hi)))?;
                return Err(errno);
            }
        }
        shared.promoted.remove(Span::new(lo, hi));
        self.cut_off(lo, hi);
        Ok(())
    }

    /// Whether the kernel will refuse to unmap `[start, end)`: something there is sealed
    /// (EPERM), or the program has as many mappings as it may have (ENOMEM).
    fn can_be_unmapped(&self, start: usize, end: usize) -> Sys<()> {
        let space = self.program.space;
        let is_cut = |at: usize| -> Sys<bool> { Ok(space.at(at)?.is_some_and(|m| m.start < at)) };
        if is_cut(start)? || is_cut(end)? {
            self.program.scratch.try_to_split()?;
        }
        let sealed = space.first_sealed(start, end)?;
        sealed.map_or(Ok(()), |_| Err(Errno::EPERM))
    }

    /// The content of private memory in `[start, end)` is dropped: it reads as
    /// zeros from now on, here and at every attacher.
    pub fn discard(&mut self, start: usize, end: usize) -> Sys<()> {
        let Some(shared) = arena::existing() else {
            return Ok(());
        };
        let (start, end) = (page_down(start), page_up(end.min(TOP)));
        self.note_growth_into(start, end);
        let mut at = start;
        while let Some(r) = shared.promoted.first_in(Span::new(at, end)) {
            if r.origin == Origin::Private {
                self.cut_off(r.start, r.end);
            }
            at = r.end;
        }
        Ok(())
    }

    /// madvise(2) with an advice that drops content, for the program: answers 1
    /// when all is done.
    pub fn discard_all(&mut self, start: usize, end: usize, advice: i32) -> Sys<u64> {
        let Some(shared) = arena::existing() else {
            return Ok(0);
        };
        let end = page_up(end.min(TOP));
        self.note_growth_into(start, end);
        let mut at = start;
        while let Some(r) = shared.promoted.first_in(Span::new(at, end)) {
            if r.start > at {
                self.advise_private(at, r.start, advice)?;
            }
            if mem::is_locked(r.start) {
                // As for any locked memory.
                return Err(Errno::EINVAL);
            }
            if r.origin == Origin::Private {
                self.may_be_dropped(r.start, r.end)?;
                self.cut_off(r.start, r.end);
            }
            at = r.end;
        }
        if at < end {
            self.advise_private(at, end, advice)?;
        }
        Ok(1)
    }

    /// EPERM where the kernel would keep private memory: it is sealed and only readable.
    fn may_be_dropped(&self, lo: usize, hi: usize) -> Sys<()> {
        let mut at = lo;
        while let Some((start, end)) = self.program.space.first_sealed(at, hi)? {
            if self.program.space.at(start)?.is_some_and(|m| !m.write) {
                return Err(Errno::EPERM);
            }
            at = end;
        }
        Ok(())
    }

    /// For memory between what is promoted.
    fn advise_private(&self, lo: usize, hi: usize, advice: i32) -> Sys<()> {
        let mut at = lo;
        while let Some(m) = self.program.space.find(at)?.filter(|m| m.start < hi) {
            if self.is_own(&m) {
                // The event of that would come to this very task.
                return Err(Errno::EAGAIN);
            }
            at = m.end;
        }
        held::advise(lo, hi - lo, advice)
    }
}

/// Whole pages around a range.
pub fn outward(span: Span) -> Span {
    let end = page_up(span.end().min(TOP));
    Span::new(page_down(span.start().min(TOP)), end)
}
