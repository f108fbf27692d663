// SPDX-License-Identifier: MIT OR Apache-2.0
//! Revocation: what the program does to promoted memory reaches attachers.
//!
//! Removing a range of the memfd takes its pages from every attacher at once
//! and before the call returns. Two things lead here. libc's memory functions
//! come first and by themselves ([`crate::user::hooks`]): they ask before they change
//! anything. Raw system calls come as events of the kernel, afterwards, but the
//! caller sleeps until its event is read, and that is after the pages are gone.
//!
//! Order for events: first all threads are asked to stop, then events are read
//! (a caller stops on its way back to user mode), then, with all threads standing,
//! what is no longer mapped is taken from the attachers and what was moved is put
//! right, then everybody goes on. So the work is as much as the events tell of.
//! Where the threads cannot be stopped, all that is promoted is looked through
//! before an event is read.

use super::settings::{self, Bits};
use crate::debug::{count, COUNTERS};
use crate::debug_log;
use crate::user::arena::ranges::{Origin, Range};
use crate::user::arena::{self, Shared};
use crate::user::program::stop::{Unstoppable, LAST_PATIENCE};
use crate::user::service::Service;
use crate::user::sys::maps::Mapping;
use crate::user::sys::policy::Policy;
use crate::user::sys::{mem, net, page_down, page_up, task, uffd, Sys, PAGE, TOP};

/// How long, in nanoseconds, events wait for a tracer of the program to go. It
/// is waited for once: a debugger that stays must not slow each call.
const TRACER_PATIENCE: u64 = 50_000_000;

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// An event of promoted memory, to be acted upon while all threads stand.
#[derive(Clone, Copy)]
pub struct Change {
    /// `uffd::EVENT_REMAP` or `uffd::EVENT_UNMAP`.
    kind: u8,
    from: usize,
    len: usize,
    /// Where it has been moved.
    to: usize,
}

/// Most of them: a thread has at most three, one after the other.
pub const CHANGES: usize = 3 * crate::user::program::stop::THREADS;

impl Service {
    /// Takes `[lo, hi)` from every attacher and forgets its content.
    fn cut_off(&self, lo: usize, hi: usize) {
        if crate::testing::revocation_is_off() {
            return;
        }
        if let Err(errno) = mem::punch(self.memfd, lo, hi - lo) {
            debug_log!("revocation of {lo:#x}..{hi:#x}: errno {errno}");
        }
        count(&COUNTERS.revocations);
    }

    /// Something has happened to promoted memory, and who did it sleeps.
    pub fn on_events(&mut self) {
        // What a stop has read that was given up then is still to be acted on.
        if !net::has_input(self.events) && self.change_count == 0 {
            return;
        }
        match self.stop() {
            Ok(()) => {
                self.resume();
                self.events_wait_since = 0;
            }
            Err(Unstoppable::Busy) if self.events_may_wait(LAST_PATIENCE) => {
                self.cut_off_unmapped(0, TOP);
            }
            Err(Unstoppable::Forbidden) if self.events_may_wait(TRACER_PATIENCE) => {
                self.cut_off_unmapped(0, TOP);
                crate::rawsys::sleep(core::time::Duration::from_millis(1));
            }
            Err(why) => {
                // Nobody may sleep for ever. What can go wrong without the
                // stop is a change that races with the program's own threads.
                debug_log!("events are handled without a stop: {why:?}");
                self.act_on_events();
                while net::has_input(self.events) {
                    self.cut_off_unmapped(0, TOP);
                    self.take_event();
                    self.act_on_events();
                }
            }
        }
    }

    /// Whether the unread events stay unread for now, after a stop that did not
    /// come about: their callers sleep, other work is done, and the loop comes
    /// here again.
    fn events_may_wait(&mut self, patience: u64) -> bool {
        let now = task::now();
        if self.events_wait_since == 0 {
            self.events_wait_since = now;
        }
        now - self.events_wait_since < patience
    }

    /// Reads one event. Its caller goes on, and must stand before it comes back
    /// to user mode.
    pub fn take_event(&mut self) {
        let Ok(event) = uffd::read(self.events) else {
            return;
        };
        let (from, to) = (event.a as usize, event.b as usize);
        let (len, to) = match event.kind {
            uffd::EVENT_REMAP => (event.c as usize, to),
            uffd::EVENT_UNMAP => (to - from, 0),
            uffd::EVENT_REMOVE => {
                // One for each mapping, and no matter when until the caller is back.
                let _ = self.discard(from, to);
                return;
            }
            _ => return,
        };
        if self.change_count == CHANGES {
            debug_log!("more changes at a time than there are threads");
            self.act_on_events();
        }
        self.changes[self.change_count] = Change {
            kind: event.kind,
            from,
            len,
            to,
        };
        self.change_count += 1;
    }

    /// Acts on all events that have been read.
    pub fn act_on_events(&mut self) {
        let Some(shared) = arena::existing() else {
            return;
        };
        self.revoke_unmapped();
        for i in 0..core::mem::take(&mut self.change_count) {
            let c = self.changes[i];
            if let Err(errno) = self.settle_moved(shared, c.from, c.to, c.len) {
                debug_log!("memory moved to {:#x} cannot be copied back: {errno}", c.to);
                shared.promoted.remove(c.from, c.from + c.len);
                self.moved_astray = true;
            }
        }
    }

    /// Cuts off what events say has been unmapped; those that remain are of
    /// moved memory.
    pub fn revoke_unmapped(&mut self) {
        for i in 0..self.change_count {
            let c = self.changes[i];
            if c.kind == uffd::EVENT_UNMAP {
                self.recall_unmapped(c.from, c.from + c.len);
                self.cut_off_unmapped(c.from, c.from + c.len);
                self.cut_off_leftovers(c.from, c.from + c.len);
            }
        }
        let mut kept = 0;
        for i in 0..self.change_count {
            if self.changes[i].kind != uffd::EVENT_UNMAP {
                self.changes[kept] = self.changes[i];
                kept += 1;
            }
        }
        self.change_count = kept;
    }

    /// Recalls what was lent in `[start, end)`, which has been unmapped. The same
    /// file may be mapped there again: that mapping is under no watch.
    fn recall_unmapped(&mut self, start: usize, end: usize) {
        let Some(shared) = arena::existing() else {
            return;
        };
        let mut at = start;
        while let Some(range) = shared.promoted.first_in(at, end) {
            at = range.end;
            if range.origin == Origin::Lent {
                shared.promoted.remove(range.start, range.end);
                self.recall_unmapped_file(shared, range.start, range.end);
            }
        }
    }

    /// Who has unmapped it must not go on before it is given back.
    fn recall_unmapped_file(&mut self, shared: &Shared, lo: usize, hi: usize) {
        let before = core::mem::replace(&mut self.owes_revocation, true);
        self.recall_range(shared, lo, hi);
        self.owes_revocation = before;
    }

    /// Cuts off what is promoted in `[start, end)` and not mapped any more, unless
    /// the program has moved it: then its content is still needed.
    fn cut_off_unmapped(&mut self, start: usize, end: usize) {
        let Some(shared) = arena::existing() else {
            return;
        };
        let mut at = start;
        while let Some(range) = shared.promoted.first_in(at, end) {
            at = range.end;
            let Some((lo, hi, reused)) = self.first_unmapped(range) else {
                continue;
            };
            at = hi;
            shared.promoted.remove(lo, hi);
            if range.origin == Origin::Lent {
                self.recall_unmapped_file(shared, lo, hi);
            } else if self.cut_off_unless_moved(lo, hi) && reused {
                count(&COUNTERS.late_revocations);
            }
        }
    }

    /// `[start, end)` has been unmapped. It may have held more than is known to
    /// be promoted: a mapping that grows in place tells nobody.
    fn cut_off_leftovers(&mut self, start: usize, end: usize) {
        let end = end.min(TOP);
        let mut at = start;
        while let Some((lo, hi)) = mem::next_data(self.memfd, at, end) {
            let part = Range {
                start: lo,
                end: hi,
                origin: Origin::Private,
            };
            at = match self.first_unmapped(part) {
                Some((lo, hi, _)) => {
                    self.cut_off_unless_moved(lo, hi);
                    hi
                }
                None => hi,
            };
        }
    }

    /// Takes into the set what promoted ranges have grown by.
    pub fn note_growth(&mut self) {
        self.note_growth_into(0, TOP);
    }

    /// As [`Self::note_growth`], of ranges that may have grown into `[start, end)`.
    pub fn note_growth_into(&mut self, start: usize, end: usize) {
        let Some(shared) = arena::existing() else {
            return;
        };
        let mut i = shared.promoted.first_that_may_reach(start);
        while let Some(r) = shared.promoted.get(i).filter(|r| r.start < end) {
            i += 1;
            let next = shared.promoted.get(i).map_or(TOP, |next| next.start);
            let last = self.space.at(r.end - 1).ok().flatten();
            if let Some(m) = last.filter(|m| self.is_own(m) && m.offset == m.start) {
                let end = m.end.min(next);
                if end > r.end && shared.promoted.has_room() {
                    shared.promoted.insert(Range {
                        start: r.end,
                        end,
                        origin: r.origin,
                    });
                    self.inherit_settings(shared, r.end, end);
                    i = i.saturating_sub(1);
                }
            }
        }
    }

    fn is_as_it_was(&self, m: &Mapping, at: usize, origin: Origin) -> bool {
        match origin {
            Origin::Lent => self.is_lent(m, at),
            _ => self.is_own(m) && m.offset + (at - m.start) == at,
        }
    }

    /// The first part of a promoted range where the memfd is not mapped, and
    /// whether something else is mapped there already.
    fn first_unmapped(&self, range: Range) -> Option<(usize, usize, bool)> {
        let mut at = range.start;
        while at < range.end {
            match self.space.find(at) {
                Ok(Some(m)) if m.start <= at && self.is_as_it_was(&m, at, range.origin) => {
                    at = m.end
                }
                Ok(Some(m)) if m.start <= at => return Some((at, m.end.min(range.end), true)),
                Ok(Some(m)) => return Some((at, m.start.min(range.end), false)),
                Ok(None) => return Some((at, range.end, false)),
                // Cannot be seen: then it stays.
                Err(_) => return None,
            }
        }
        None
    }

    /// Cuts off of `[lo, hi)` what is mapped nowhere else; whether there was
    /// any. What the program has moved is still needed, and so is what a
    /// promotion under way has copied for the memory that now stands there.
    fn cut_off_unless_moved(&self, lo: usize, hi: usize) -> bool {
        let mut any = false;
        let mut at = lo;
        while at < hi {
            let (first, last) = self.first_mapped_elsewhere(at, hi).unwrap_or((hi, hi));
            if at < first {
                self.cut_off(at, first);
                any = true;
            }
            at = last;
        }
        any
    }

    /// The lowest part of `[lo, hi)` of the file that is mapped at addresses
    /// other than its own, not counting attachments of this process's own
    /// segments: they are to be cut off like anybody's. All mappings are looked
    /// through only where some may be moved that no event has told of: while
    /// threads run, and once one could not be settled.
    fn first_mapped_elsewhere(&self, lo: usize, hi: usize) -> Option<(usize, usize)> {
        let mut lowest: Option<(usize, usize)> = None;
        if !self.moved_astray && self.standing > 0 {
            for c in &self.changes[..self.change_count] {
                let (first, last) = (c.from.max(lo), (c.from + c.len).min(hi));
                let is_moved = c.kind == uffd::EVENT_REMAP && first < last;
                if is_moved && lowest.is_none_or(|(known, _)| first < known) {
                    lowest = Some((first, last));
                }
            }
            return lowest;
        }
        let mut at = 0;
        while let Ok(Some(m)) = self.space.find(at) {
            at = m.end;
            let moved = self.is_own(&m) && m.offset != m.start;
            if !moved || self.attachments.at(m.start).is_some() {
                continue;
            }
            let first = m.offset.max(lo);
            let last = (m.offset + (m.end - m.start)).min(hi);
            if first < last && lowest.is_none_or(|(known, _)| first < known) {
                lowest = Some((first, last));
            }
        }
        lowest
    }

    /// The program has moved promoted memory to `to`: there it becomes private
    /// again, and the old place is cut off.
    fn settle_moved(&mut self, shared: &Shared, from: usize, to: usize, len: usize) -> Sys<()> {
        let mut at = to;
        // The new mapping may be longer than the old: the tail shows pages of
        // the file that belong to other addresses, and must be new memory.
        loop {
            let m = match self.space.at(at)? {
                Some(m) if self.is_own(&m) && m.offset + (at - m.start) == from + (at - to) => m,
                _ => break,
            };
            let offset = from + (at - to);
            // What is behind the old memory is like its end.
            let (bits, until) = self.settings.at(offset.min(from + len - 1), from + len);
            let hi = match until {
                until if until < from + len => m.end.min(to + (until - from)),
                _ => m.end,
            };
            // The peers of the old place would go on to see it.
            let kind = (m.prot(), bits);
            crate::user::sys::insist(|| self.make_private(at, hi, offset, from + len, kind))?;
            at = hi;
        }
        shared.promoted.remove(from, from + len);
        let _ = self.settings.set(from, from + len, 0);
        self.cut_off(from, from + len);
        Ok(())
    }

    /// Puts private memory in place of the mapping `[lo, hi)` of the file at
    /// `offset`, with the file's content up to offset `end`, zeros beyond.
    fn make_private(
        &mut self,
        lo: usize,
        hi: usize,
        offset: usize,
        end: usize,
        (prot, bits): (i32, Bits),
    ) -> Sys<()> {
        let len = hi - lo;
        let copy = mem::map(0, len, RW, PRIVATE, -1, 0)?;
        if self.has_policies {
            let _ = Policy::of(lo).give(copy, len);
        }
        let fill = || -> Sys<()> {
            let stop = end.min(offset + len);
            let mut at = offset;
            while let Some((a, b)) = mem::next_data(self.memfd, at, stop) {
                mem::read_into(self.memfd, copy + (a - offset), b - a, a)?;
                at = b;
            }
            if prot != RW {
                mem::protect(copy, len, prot)?;
            }
            settings::apply(bits, copy, len)?;
            // Else the event of the replacement would come to this very task.
            uffd::unregister(self.events, lo, len)?;
            mem::move_over(copy, len, lo)
        };
        let locked = mem::is_locked(lo);
        fill().inspect_err(|_| {
            let _ = mem::unmap(copy, len);
        })?;
        lock_if(locked, lo, len);
        Ok(())
    }

    /// The calling thread of the program is about to unmap `[start, end)`, or
    /// to put something else in its place. The addresses stay taken until it
    /// does, but nothing is behind them.
    pub fn retire(&mut self, start: usize, end: usize) {
        let Some(shared) = arena::existing() else {
            return;
        };
        let (start, end) = outward(start, end);
        self.recall(shared, start, end);
        while let Some(r) = shared.promoted.first_in(start, end) {
            self.retire_range(shared, r.start, r.end);
        }
    }

    fn retire_range(&mut self, shared: &Shared, lo: usize, hi: usize) {
        shared.promoted.remove(lo, hi);
        let unwatched = uffd::unregister(self.events, lo, hi - lo);
        let flags = PRIVATE | libc::MAP_FIXED;
        if unwatched.is_ok() && self.still_own(lo, hi) {
            let _ = mem::map(lo, hi - lo, libc::PROT_NONE, flags, -1, 0);
        }
        self.cut_off(lo, hi);
    }

    /// Whether all of a promoted range is still mapped as it was.
    fn still_own(&self, lo: usize, hi: usize) -> bool {
        self.first_unmapped(Range {
            start: lo,
            end: hi,
            origin: Origin::Private,
        })
        .is_none()
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
        while let Some(r) = shared.promoted.first_in(at, end) {
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
        while let Some(r) = shared.promoted.first_in(at, end) {
            if r.start > at {
                self.advise_private(at, r.start, advice)?;
            }
            if mem::is_locked(r.start) {
                // As for any locked memory.
                return Err(libc::EINVAL);
            }
            if r.origin == Origin::Private {
                self.cut_off(r.start, r.end);
            }
            at = r.end;
        }
        if at < end {
            self.advise_private(at, end, advice)?;
        }
        Ok(1)
    }

    /// For memory between what is promoted.
    fn advise_private(&self, lo: usize, hi: usize, advice: i32) -> Sys<()> {
        let mut at = lo;
        while let Some(m) = self.space.find(at)?.filter(|m| m.start < hi) {
            if self.is_own(&m) {
                // The event of that would come to this very task.
                return Err(libc::EAGAIN);
            }
            at = m.end;
        }
        mem::advise(lo, hi - lo, advice)
    }

    /// Makes everything promoted in `[start, end)` private again, with all
    /// threads standing. EAGAIN where they cannot be stopped.
    pub fn demote_stopped(&mut self, start: usize, end: usize) -> Sys<()> {
        let Some(shared) = arena::existing() else {
            return Ok(());
        };
        let (start, end) = outward(start, end);
        self.recall(shared, start, end);
        if shared.promoted.first_in(start, end).is_none() {
            return Ok(());
        }
        match self.stop() {
            Ok(()) => {}
            Err(Unstoppable::Busy) => return Err(libc::EAGAIN),
            Err(Unstoppable::Forbidden) => return Err(libc::EPERM),
            Err(Unstoppable::Ended) => return Err(libc::ESRCH),
        }
        let done = self.demote(shared, start, end);
        self.resume();
        done
    }

    /// As [`Self::demote_stopped`], with all threads standing already.
    pub fn demote(&mut self, shared: &Shared, start: usize, end: usize) -> Sys<()> {
        let mut at = start;
        while let Some(r) = shared.promoted.first_in(at, end) {
            let mut lo = r.start;
            while lo < r.end {
                let Some(m) = self.space.find(lo)?.filter(|m| m.start < r.end) else {
                    break;
                };
                if m.start > lo || !self.is_own(&m) {
                    // Something else stands there by now: a killed service may have
                    // been in the midst of this.
                    lo = if m.start > lo { m.start } else { m.end };
                    continue;
                }
                let (bits, hi) = self.settings.at(lo, m.end.min(r.end));
                if r.origin == Origin::Private {
                    self.make_private(lo, hi, lo, hi, (m.prot(), bits))?;
                } else {
                    self.make_shared_anonymous(lo, hi, m.prot())?;
                }
                shared.promoted.remove(lo, hi);
                let _ = self.settings.set(lo, hi, 0);
                self.cut_off(lo, hi);
                lo = hi;
            }
            at = r.end;
        }
        Ok(())
    }

    /// As [`Self::make_private`], for memory that a fork child must share.
    fn make_shared_anonymous(&mut self, lo: usize, hi: usize, prot: i32) -> Sys<()> {
        let len = hi - lo;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let copy = mem::map(0, len, RW, flags, -1, 0)?;
        let mut at = lo;
        while let Some((a, b)) = mem::next_data(self.memfd, at, hi) {
            mem::read_into(self.memfd, copy + (a - lo), b - a, a)?;
            at = b;
        }
        let place = || {
            if prot != RW {
                mem::protect(copy, len, prot)?;
            }
            uffd::unregister(self.events, lo, len)?;
            mem::move_over(copy, len, lo)
        };
        let locked = mem::is_locked(lo);
        place().inspect_err(|_| {
            let _ = mem::unmap(copy, len);
        })?;
        lock_if(locked, lo, len);
        Ok(())
    }
}

/// What was locked stays locked: the pages are there.
fn lock_if(locked: bool, start: usize, len: usize) {
    if locked {
        if let Err(errno) = mem::lock(start, len) {
            debug_log!("{start:#x} is not locked any more: errno {errno}");
        }
    }
}

/// Whole pages around `[start, end)`.
fn outward(start: usize, end: usize) -> (usize, usize) {
    let end = end.min(TOP);
    (
        page_down(start.min(TOP)),
        if end % PAGE == 0 { end } else { page_up(end) },
    )
}
