// SPDX-License-Identifier: MIT OR Apache-2.0
//! Revokes promoted memory that is no longer mapped.

#![forbid(unsafe_code)]

use super::Owner;
use crate::debug::{count, COUNTERS};
use crate::user::arena;
use crate::user::arena::ranges::{Origin, Range};
use crate::user::sys::maps::Mapping;
use crate::user::sys::{mem, uffd, Span, TOP};

impl Owner {
    /// Cuts off what events say has been unmapped; those that remain are of
    /// moved memory.
    pub fn revoke_unmapped(&mut self) {
        for i in 0..self.change_count {
            let c = self.changes[i];
            if c.kind == uffd::EVENT_UNMAP {
                self.owe_lent(c.from, c.from + c.len);
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

    /// What was lent in `[start, end)`, which has been unmapped, is to be recalled.
    /// The same file may be mapped there again: that mapping is under no watch.
    fn owe_lent(&mut self, start: usize, end: usize) {
        let Some(shared) = arena::existing() else {
            return;
        };
        let mut at = start;
        while let Some(range) = shared.promoted.first_in(Span::new(at, end)) {
            at = range.end;
            if range.origin == Origin::Lent {
                shared.promoted.remove(range.span());
                self.debts.add(Span::new(range.start, range.end));
            }
        }
    }

    /// Cuts off what is promoted in `[start, end)` and not mapped any more, unless
    /// the program has moved it: then its content is still needed.
    pub fn cut_off_unmapped(&mut self, start: usize, end: usize) {
        let Some(shared) = arena::existing() else {
            return;
        };
        let mut at = start;
        while let Some(range) = shared.promoted.first_in(Span::new(at, end)) {
            at = range.end;
            let Some((lo, hi, reused)) = self.first_unmapped(range) else {
                continue;
            };
            at = hi;
            shared.promoted.remove(Span::new(lo, hi));
            if range.origin == Origin::Lent {
                self.debts.add(Span::new(lo, hi));
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
        while let Some(data) = mem::next_data(self.memfd, at, end) {
            let (lo, hi) = (data.start(), data.end());
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

    fn is_as_it_was(&self, m: &Mapping, at: usize, origin: Origin) -> bool {
        match origin {
            Origin::Lent => self.loans.has(m, at),
            _ => self.is_own(m) && m.offset + (at - m.start) == at,
        }
    }

    /// The first part of a promoted range where the memfd is not mapped, and
    /// whether something else is mapped there already.
    pub fn first_unmapped(&self, range: Range) -> Option<(usize, usize, bool)> {
        let mut at = range.start;
        while at < range.end {
            match self.program.space.find(at) {
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
        if !self.moved_astray && self.program.threads.stand() {
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
        while let Ok(Some(m)) = self.program.space.find(at) {
            at = m.end;
            let moved = self.is_own(&m) && m.offset != m.start;
            if !moved || self.program.attachments.at(m.start).is_some() {
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

    /// Whether all of a promoted range is still mapped as it was.
    pub fn still_own(&self, lo: usize, hi: usize) -> bool {
        self.first_unmapped(Range {
            start: lo,
            end: hi,
            origin: Origin::Private,
        })
        .is_none()
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
            let last = self.program.space.at(r.end - 1).ok().flatten();
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
}
