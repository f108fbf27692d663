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
    /// again, and the old place is punched out.
    pub fn settle_moved(&mut self, shared: &Shared, c: &Change) -> Sys<()> {
        let (from, to) = (c.from, c.to);
        let is_left =
            |owner: &Self| shared.promoted.has(from, Origin::Shared) && owner.still_own(from);
        if from.is_empty() || is_left(self) {
            // Shared memory is at two places now: the same pages, which stay what they are.
            self.moved_astray = true;
            return Ok(());
        }
        let mut at = to;
        // The new mapping may be longer than the old: the tail shows pages of
        // the file that belong to other addresses, and must be new memory.
        loop {
            let m = match self.program.space.at(at)? {
                Some(m)
                    if self.is_own(&m) && m.offset + (at - m.start) == from.start() + (at - to) =>
                {
                    m
                }
                _ => break,
            };
            let offset = from.start() + (at - to);
            // What is behind the old memory is like its end.
            let last = offset.min(from.end() - 1);
            let (bits, until) = self.settings.at(Span::new(last, from.end()));
            let hi = match until {
                until if until < from.end() => m.end.min(to + (until - from.start())),
                _ => m.end,
            };
            // The peers of the old place would go on to see it.
            let prot = m.prot();
            let (place, source) = (Span::new(at, hi), Span::new(offset, from.end()));
            insist(|| {
                if c.shared {
                    self.make_shared_anonymous(place, source, prot)
                } else {
                    self.make_private(place, source, (prot, bits))
                }
            })?;
            at = hi;
        }
        self.forget_moved(shared, from);
        self.punch(from);
        Ok(())
    }

    /// Takes `span`, which has been moved, out of the set, but for what stands there as
    /// before: MREMAP_DONTUNMAP takes the pages and nothing else.
    fn forget_moved(&mut self, shared: &Shared, span: Span) {
        let mut rest = span;
        while let Some(r) = shared.promoted.first_in(rest) {
            let mut end = r.end;
            if let Some((gone, _)) = self.first_unmapped(r) {
                shared.promoted.remove(gone);
                let _ = self.settings.set(gone, 0);
                end = gone.end();
            }
            rest = span.from(end);
        }
    }

    /// Puts private memory in `place`, a mapping of the file, with the file's content of
    /// `source`, and zeros beyond.
    fn make_private(&mut self, place: Span, source: Span, (prot, bits): (i32, Bits)) -> Sys<()> {
        let len = place.len();
        let offset = source.start();
        let copy = held::map(0, len, RW, PRIVATE, Fd::NONE, 0)?;
        let mut fill = || -> Sys<()> {
            // Whether its pages may be huge, for one.
            advice::apply(bits, copy, len)?;
            let stop = source.end().min(offset + len);
            let mut at = offset;
            while let Some(data) = mem::next_data(self.memfd, at, stop) {
                let into = data.start() - offset;
                self.read_near(copy + into, data, place.start() + into)?;
                at = data.end();
            }
            if self.may_have_policies() {
                let _ = Policy::of(place.start()).give(copy, len);
            }
            Ok(())
        };
        let filled = fill();
        self.put_in_place(filled, copy, place, prot)
    }

    /// A copy that has been filled takes its `place`. One that has not been, or that may
    /// not, is unmapped.
    fn put_in_place(&self, filled: Sys<()>, copy: usize, place: Span, prot: i32) -> Sys<()> {
        let len = place.len();
        let locked = mem::is_locked(place.start());
        let replace = || {
            if prot != RW {
                held::protect(copy, len, prot)?;
            }
            // Else the event of the replacement would come to this very task.
            self.program.changes().unwatch(place)?;
            held::move_over(copy, len, place.start())
        };
        filled.and_then(|()| replace()).inspect_err(|_| {
            let _ = held::unmap(copy, len);
        })?;
        lock_if(locked, place);
        Ok(())
    }

    /// Makes everything promoted in `span` private again, with all threads standing.
    pub fn demote(&mut self, _: &Standing, shared: &Shared, span: Span) -> Sys<()> {
        let mut rest = span;
        while let Some(r) = shared.promoted.first_in(rest) {
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
                let (bits, hi) = self.settings.at(Span::new(lo, m.end.min(r.end)));
                let (part, prot) = (Span::new(lo, hi), m.prot());
                self.stop_the_module(part)?;
                let done = if r.origin == Origin::Private {
                    self.make_private(part, part, (prot, bits))
                } else {
                    self.make_shared_anonymous(part, part, prot)
                };
                if done.is_err() && self.program.knows_the_module() {
                    let _ = held::protect(lo, part.len(), prot);
                }
                done?;
                shared.promoted.remove(part);
                let _ = self.settings.set(part, 0);
                self.punch(part);
                lo = hi;
            }
            rest = span.from(r.end);
        }
        Ok(())
    }

    /// Peers of the kernel module have entries of their own, by which they would go on
    /// storing to what is being copied. Without them they wait until no thread stands.
    fn stop_the_module(&self, span: Span) -> Sys<()> {
        if self.program.knows_the_module() {
            return held::protect(span.start(), span.len(), libc::PROT_NONE);
        }
        Ok(())
    }

    /// As [`Self::make_private`], for memory that a fork child must share.
    fn make_shared_anonymous(&mut self, place: Span, source: Span, prot: i32) -> Sys<()> {
        let len = place.len();
        let offset = source.start();
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let copy = held::map(0, len, RW, flags, Fd::NONE, 0)?;
        let fill = || -> Sys<()> {
            let mut at = offset;
            while let Some(data) = mem::next_data(self.memfd, at, source.end().min(offset + len)) {
                let start = data.start();
                held::read_into(self.memfd, copy + (start - offset), data.len(), start)?;
                at = data.end();
            }
            Ok(())
        };
        self.put_in_place(fill(), copy, place, prot)
    }
}
