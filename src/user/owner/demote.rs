// SPDX-License-Identifier: MIT OR Apache-2.0
//! Demotion: promoted memory becomes the program's own again.

#![forbid(unsafe_code)]

use super::changes::Change;
use super::locked::lock_if;
use super::revoke::{PRIVATE, RW};
use super::Owner;
use crate::fd::Fd;
use crate::user::arena::ranges::Origin;
use crate::user::arena::Shared;
use crate::user::program::threads::Standing;
use crate::user::sys::advice::{self, Bits};
use crate::user::sys::policy::Policy;
use crate::user::sys::{held, insist, mem, Span, Sys};

impl Owner {
    /// The program has moved promoted memory to `to`: there it becomes private
    /// again, and the old place is cut off.
    pub fn settle_moved(&mut self, shared: &Shared, c: &Change) -> Sys<()> {
        let (from, to, len) = (c.from, c.to, c.len);
        let is_left = |owner: &Self| {
            shared
                .promoted
                .has(Span::new(from, from + len), Origin::Shared)
                && owner.still_own(from, from + len)
        };
        if len == 0 || is_left(self) {
            // Shared memory is at two places now: the same pages, which stay what they are.
            self.moved_astray = true;
            return Ok(());
        }
        let mut at = to;
        // The new mapping may be longer than the old: the tail shows pages of
        // the file that belong to other addresses, and must be new memory.
        loop {
            let m = match self.program.space.at(at)? {
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
            let prot = m.prot();
            insist(|| {
                if c.shared {
                    self.make_shared_anonymous((at, hi), (offset, from + len), prot)
                } else {
                    self.make_private((at, hi), (offset, from + len), (prot, bits))
                }
            })?;
            at = hi;
        }
        self.forget_moved(shared, from, from + len);
        self.cut_off(from, from + len);
        Ok(())
    }

    /// Takes `[start, end)`, which has been moved, out of the set, but for what stands
    /// there as before: MREMAP_DONTUNMAP takes the pages and nothing else.
    fn forget_moved(&mut self, shared: &Shared, start: usize, end: usize) {
        let mut at = start;
        while let Some(r) = shared.promoted.first_in(Span::new(at, end)) {
            at = r.end;
            if let Some((lo, hi, _)) = self.first_unmapped(r) {
                shared.promoted.remove(Span::new(lo, hi));
                let _ = self.settings.set(lo, hi, 0);
                at = hi;
            }
        }
    }

    /// Puts private memory in place of the mapping `[lo, hi)` of the file at
    /// `offset`, with the file's content up to offset `end`, zeros beyond.
    fn make_private(
        &mut self,
        (lo, hi): (usize, usize),
        (offset, end): (usize, usize),
        (prot, bits): (i32, Bits),
    ) -> Sys<()> {
        let len = hi - lo;
        let copy = held::map(0, len, RW, PRIVATE, Fd::NONE, 0)?;
        let mut fill = || -> Sys<()> {
            // Whether its pages may be huge, for one.
            advice::apply(bits, copy, len)?;
            let stop = end.min(offset + len);
            let mut at = offset;
            while let Some(data) = mem::next_data(self.memfd, at, stop) {
                let (start, into) = (data.start(), data.start() - offset);
                self.read_near(copy + into, data.len(), (start, lo + into))?;
                at = data.end();
            }
            if self.may_have_policies() {
                let _ = Policy::of(lo).give(copy, len);
            }
            Ok(())
        };
        let filled = fill();
        self.put_in_place(filled, copy, (lo, hi), prot)
    }

    /// A copy that has been filled takes the place of `[lo, hi)`. One that has not been,
    /// or that may not, is unmapped.
    fn put_in_place(
        &self,
        filled: Sys<()>,
        copy: usize,
        (lo, hi): (usize, usize),
        prot: i32,
    ) -> Sys<()> {
        let len = hi - lo;
        let locked = mem::is_locked(lo);
        let place = || {
            if prot != RW {
                held::protect(copy, len, prot)?;
            }
            // Else the event of the replacement would come to this very task.
            self.program.changes().unwatch(Span::of(lo, len))?;
            held::move_over(copy, len, lo)
        };
        filled.and_then(|()| place()).inspect_err(|_| {
            let _ = held::unmap(copy, len);
        })?;
        lock_if(locked, lo, len);
        Ok(())
    }

    /// Makes everything promoted in `[start, end)` private again, with all threads
    /// standing.
    pub fn demote(
        &mut self,
        _: &Standing,
        shared: &Shared,
        (start, end): (usize, usize),
    ) -> Sys<()> {
        let mut at = start;
        while let Some(r) = shared.promoted.first_in(Span::new(at, end)) {
            let mut lo = r.start;
            while lo < r.end {
                let Some(m) = self.program.space.find(lo)?.filter(|m| m.start < r.end) else {
                    break;
                };
                if m.start > lo || !self.is_own(&m) {
                    // Something else stands there by now: a killed service may have
                    // been in the midst of this.
                    lo = if m.start > lo { m.start } else { m.end };
                    continue;
                }
                let (bits, hi) = self.settings.at(lo, m.end.min(r.end));
                let prot = m.prot();
                self.stop_the_module(lo, hi - lo)?;
                let done = if r.origin == Origin::Private {
                    self.make_private((lo, hi), (lo, hi), (prot, bits))
                } else {
                    self.make_shared_anonymous((lo, hi), (lo, hi), prot)
                };
                if done.is_err() && self.program.knows_the_module() {
                    let _ = held::protect(lo, hi - lo, prot);
                }
                done?;
                shared.promoted.remove(Span::new(lo, hi));
                let _ = self.settings.set(lo, hi, 0);
                self.cut_off(lo, hi);
                lo = hi;
            }
            at = r.end;
        }
        Ok(())
    }

    /// Peers of the kernel module have entries of their own, by which they would go on
    /// storing to what is being copied. Without them they wait until no thread stands.
    fn stop_the_module(&self, lo: usize, len: usize) -> Sys<()> {
        if self.program.knows_the_module() {
            return held::protect(lo, len, libc::PROT_NONE);
        }
        Ok(())
    }

    /// As [`Self::make_private`], for memory that a fork child must share.
    fn make_shared_anonymous(
        &mut self,
        (lo, hi): (usize, usize),
        (offset, end): (usize, usize),
        prot: i32,
    ) -> Sys<()> {
        let len = hi - lo;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let copy = held::map(0, len, RW, flags, Fd::NONE, 0)?;
        let fill = || -> Sys<()> {
            let mut at = offset;
            while let Some(data) = mem::next_data(self.memfd, at, end.min(offset + len)) {
                let start = data.start();
                held::read_into(self.memfd, copy + (start - offset), data.len(), start)?;
                at = data.end();
            }
            Ok(())
        };
        self.put_in_place(fill(), copy, (lo, hi), prot)
    }
}
