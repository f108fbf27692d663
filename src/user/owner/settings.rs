// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program has said about memory that is promoted.
//!
//! A mapping of the memfd cannot carry everything that private memory can: it
//! must be kept from every child but the ones that get copies, and it cannot be
//! wiped in them. So what the program has asked for is noted here, for fork, for
//! memory that is made private again, and for what a mapping grows by.

#![forbid(unsafe_code)]

use super::Owner;
use crate::debug_log;
use crate::errno::Errno;
use crate::user::arena::ranges::{Origin, Range};
use crate::user::arena::Shared;
use crate::user::sys::advice::{advice_for, bits_of, of_advice, Bits, ABSENT, MERGEABLE, WIPED};
use crate::user::sys::{held, insist, page_up, smaps, Span, Sys, BOTTOM, PAGE, TOP};

/// What is a matter of private memory alone. The rest is set for the mapping that
/// takes its place, too.
const PRIVATE_ONLY: Bits = ABSENT | WIPED | MERGEABLE;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    start: usize,
    end: usize,
    bits: Bits,
}

/// Most stretches of memory with settings.
const CAPACITY: usize = 4096;

/// Sorted and disjoint; what stands in none has no setting. An entry may outlive
/// its memory: it is looked at for what is promoted, and a promotion sets its own.
pub struct Settings {
    len: usize,
    entries: [Entry; CAPACITY],
}

impl Settings {
    /// Index of the first entry that ends above `addr`.
    fn lower(&self, addr: usize) -> usize {
        self.entries[..self.len].partition_point(|e| e.end <= addr)
    }

    /// The settings at the start of `span`, and how far they hold, at most up to its end.
    pub fn at(&self, span: Span) -> (Bits, usize) {
        let (addr, end) = (span.start(), span.end());
        match self.entries[..self.len].get(self.lower(addr)) {
            Some(e) if e.start <= addr => (e.bits, e.end.min(end)),
            Some(e) => (0, e.start.min(end)),
            None => (0, end),
        }
    }

    /// Gives all of `span` the settings `bits`. False where there is no room: then
    /// nothing has changed.
    #[must_use]
    pub fn set(&mut self, span: Span, bits: Bits) -> bool {
        let (start, end) = (span.start(), span.end());
        // One entry may be cut in two, and one comes.
        if start >= end || (bits != 0 && self.len + 2 > CAPACITY) {
            return start >= end;
        }
        let first = self.lower(start);
        let mut last = first;
        while last < self.len && self.entries[last].start < end {
            last += 1;
        }
        let cut = &self.entries[first..last];
        let left = cut.first().filter(|e| e.start < start);
        let left = left.map(|e| Entry { end: start, ..*e });
        let right = cut.last().filter(|e| e.end > end);
        let right = right.map(|e| Entry { start: end, ..*e });
        let new = (bits != 0).then_some(Entry { start, end, bits });
        let kept = [left, new, right].into_iter().flatten();
        let count = kept.clone().count();
        if self.len - (last - first) + count > CAPACITY {
            return false;
        }
        self.entries.copy_within(last..self.len, first + count);
        self.len = self.len - (last - first) + count;
        for (i, e) in kept.enumerate() {
            self.entries[first + i] = e;
        }
        self.join(first.saturating_sub(1), first + count + 1);
        true
    }

    /// Joins neighbours with the same settings among entries `[from, to)`.
    fn join(&mut self, from: usize, to: usize) {
        let mut i = from;
        let mut to = to.min(self.len);
        while i + 1 < to {
            let (a, b) = (self.entries[i], self.entries[i + 1]);
            if a.end == b.start && a.bits == b.bits {
                self.entries[i].end = b.end;
                self.entries.copy_within(i + 2..self.len, i + 1);
                self.len -= 1;
                to -= 1;
            } else {
                i += 1;
            }
        }
    }

    /// Sets and takes away bits in all of `span`.
    #[must_use]
    fn change(&mut self, span: Span, set: Bits, clear: Bits) -> bool {
        let mut rest = span;
        while !rest.is_empty() {
            let (bits, until) = self.at(rest);
            if !self.set(Span::new(rest.start(), until), bits & !clear | set) {
                return false;
            }
            rest = span.from(until);
        }
        true
    }

    /// Forgets the entries of memory that is not promoted any more.
    fn tidy(&mut self, shared: &Shared) {
        let mut kept = 0;
        for i in 0..self.len {
            let e = self.entries[i];
            if shared
                .promoted
                .first_in(Span::new(e.start, e.end))
                .is_some()
            {
                self.entries[kept] = e;
                kept += 1;
            }
        }
        self.len = kept;
    }
}

impl Owner {
    /// The settings of the private memory at `empty`, a page that holds nothing,
    /// or nothing that is needed any more. All threads stand, and it is not locked.
    ///
    /// A mapping that has its flags is made where no other is lower, for as long
    /// as it takes to read them.
    pub fn look(&self, empty: usize) -> Sys<Bits> {
        let lowest = self.program.space.find(0)?.map_or(TOP, |m| m.start);
        let flags = if lowest >= BOTTOM + 2 * PAGE && held::imitate(empty, PAGE, BOTTOM).is_ok() {
            let flags = smaps::flags_at(BOTTOM);
            insist(|| held::unmap(BOTTOM, PAGE))?;
            flags?
        } else {
            smaps::flags_at(empty)?
        };
        flags.map(|flags| bits_of(&flags)).ok_or(Errno::EFAULT)
    }

    /// Whether the settings of one more range can be noted for sure.
    pub fn can_note_settings(&mut self, shared: &Shared) -> bool {
        if self.settings.len + 2 > CAPACITY {
            self.settings.tidy(shared);
        }
        self.settings.len + 2 <= CAPACITY
    }

    /// What has just been promoted gets the settings that it had before.
    pub fn keep_settings(&mut self, span: Span, bits: Bits) {
        let (lo, hi) = (span.start(), span.end());
        if !self.settings.set(span, bits) {
            debug_log!("no room for the settings of {lo:#x}..{hi:#x}");
        }
        for advice in advice_for(bits & !PRIVATE_ONLY) {
            if let Err(errno) = held::advise(lo, span.len(), advice) {
                debug_log!("{lo:#x}..{hi:#x} loses what advice {advice} gave: errno {errno}");
            }
        }
    }

    /// What a promoted range has `grown` by has the settings that its end had.
    pub fn inherit_settings(&mut self, shared: &Shared, grown: Span) {
        let old_end = grown.start();
        let (bits, _) = self.settings.at(Span::new(old_end - 1, old_end));
        if self.can_note_settings(shared) {
            let _ = self.settings.set(grown, bits);
        }
    }

    /// madvise(2) with an advice that is noted, for the program, where some of the
    /// memory is promoted: answers 1 when all is done.
    pub fn advise_all(&mut self, span: Span, advice: i32) -> Sys<u64> {
        let Some(shared) = crate::user::arena::existing() else {
            return Ok(0);
        };
        let Some((set, clear)) = of_advice(advice) else {
            return Ok(0);
        };
        let span = Span::new(span.start(), page_up(span.end().min(TOP)));
        self.note_growth_into(span);
        let mut done = Ok(1);
        let mut rest = span;
        while !rest.is_empty() {
            let next = shared.promoted.first_in(rest);
            let gap = Span::new(rest.start(), next.map_or(rest.end(), |r| r.start));
            let others = next.filter(|r| r.origin != Origin::Private);
            for part in [Some(gap), others.map(|r| r.span())].into_iter().flatten() {
                match if part.is_empty() {
                    Ok(())
                } else {
                    held::advise(part.start(), part.len(), advice)
                } {
                    // As the kernel does: on behind the hole, and told at the end.
                    Err(Errno::ENOMEM) => done = Err(Errno::ENOMEM),
                    answer => answer?,
                }
            }
            let Some(r) = next else { break };
            if r.origin == Origin::Private {
                if !self.settings.change(r.span(), set, clear) {
                    return Err(Errno::ENOMEM);
                }
                if (set | clear) & PRIVATE_ONLY == 0 {
                    held::advise(r.start, r.end - r.start, advice)?;
                }
            }
            rest = span.from(r.end);
        }
        done
    }

    /// Calls `body` with each stretch of a promoted range that has the same
    /// settings.
    pub fn for_each_setting(
        &mut self,
        range: Range,
        body: &mut dyn FnMut(&mut Self, Span, Bits) -> Sys<()>,
    ) -> Sys<()> {
        let mut rest = range.span();
        while !rest.is_empty() {
            let (bits, until) = self.settings.at(rest);
            body(self, Span::new(rest.start(), until), bits)?;
            rest = rest.from(until);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::next_random;

    fn empty() -> Box<Settings> {
        Box::new(Settings {
            len: 0,
            entries: [Entry {
                start: 0,
                end: 0,
                bits: 0,
            }; CAPACITY],
        })
    }

    #[test]
    fn behaves_like_an_array() {
        let mut kept = empty();
        let mut model = [0; 256];
        let mut seed = 7u64;
        for _ in 0..20_000 {
            next_random(&mut seed);
            let start = (seed >> 33) as usize % 250;
            let end = (start + 1 + (seed >> 50) as usize % 20).min(256);
            let bits = (seed >> 20) as Bits & 3;
            if seed >> 25 & 1 == 0 {
                assert!(kept.set(Span::new(start, end), bits));
                model[start..end].fill(bits);
            } else {
                let clear = (seed >> 22) as Bits & 3;
                assert!(kept.change(Span::new(start, end), bits, clear));
                model[start..end]
                    .iter_mut()
                    .for_each(|m| *m = *m & !clear | bits);
            }
            let mut at = 0;
            while at < 256 {
                let (bits, until) = kept.at(Span::new(at, 256));
                assert!(until > at && model[at..until].iter().all(|&m| m == bits));
                at = until;
            }
            let entries = &kept.entries[..kept.len];
            assert!(entries.iter().all(|e| e.bits != 0 && e.start < e.end));
            assert!(entries.windows(2).all(|w| {
                w[0].end < w[1].start || (w[0].end == w[1].start && w[0].bits != w[1].bits)
            }));
        }
    }

    #[test]
    fn a_full_table_refuses_and_keeps_what_it_has() {
        let mut kept = empty();
        let page = |i: usize| Span::of(2 * i * PAGE, PAGE);
        let from = |i: usize| Span::new(page(i).start(), TOP);
        let mut n = 0;
        while kept.set(page(n), WIPED) {
            n += 1;
        }
        assert!(n >= CAPACITY - 2);
        assert_eq!(kept.at(from(n - 1)), (WIPED, page(n - 1).end()));
        assert_eq!(kept.at(from(n)).0, 0);
        let all = Span::new(0, TOP);
        assert!(kept.set(all, 0));
        assert_eq!(kept.at(all), (0, TOP));
    }
}
