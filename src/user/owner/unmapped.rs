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
    /// Punches out what events say has been unmapped; those that remain are of moved
    /// memory.
    pub fn revoke_unmapped(&mut self) {
        for i in 0..self.change_count {
            let c = self.changes[i];
            if c.kind == uffd::EVENT_UNMAP {
                self.owe_lent(c.from);
                self.punch_unmapped(c.from);
                self.punch_leftovers(c.from);
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

    /// What was lent in `span`, which has been unmapped, is to be recalled. The same
    /// file may be mapped there again: that mapping is under no watch.
    fn owe_lent(&mut self, span: Span) {
        let Some(shared) = arena::existing() else {
            return;
        };
        let mut rest = span;
        while let Some(range) = shared.promoted.first_in(rest) {
            rest = span.from(range.end);
            if range.origin == Origin::Lent {
                shared.promoted.remove(range.span());
                self.debts.add(range.span());
            }
        }
    }

    /// Punches out what is promoted in `span` and not mapped any more, unless the program
    /// has moved it: then its content is still needed.
    pub fn punch_unmapped(&mut self, span: Span) {
        let Some(shared) = arena::existing() else {
            return;
        };
        let mut rest = span;
        while let Some(range) = shared.promoted.first_in(rest) {
            let Some((gone, reused)) = self.first_unmapped(range) else {
                rest = span.from(range.end);
                continue;
            };
            rest = span.from(gone.end());
            shared.promoted.remove(gone);
            if range.origin == Origin::Lent {
                self.debts.add(gone);
            } else if self.punch_unless_moved(gone) && reused {
                count(&COUNTERS.late_revocations);
            }
        }
    }

    /// `span` has been unmapped. It may have held more than is known to be promoted: a
    /// mapping that grows in place tells nobody.
    fn punch_leftovers(&mut self, span: Span) {
        let end = span.end().min(TOP);
        let mut at = span.start();
        while let Some(data) = mem::next_data(self.memfd, at, end) {
            at = match self.first_unmapped(Range::new(data, Origin::Private)) {
                Some((gone, _)) => {
                    self.punch_unless_moved(gone);
                    gone.end()
                }
                None => data.end(),
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
    pub fn first_unmapped(&self, range: Range) -> Option<(Span, bool)> {
        let until = |at: usize, end: usize| Span::new(at, end.min(range.end));
        let mut at = range.start;
        while at < range.end {
            match self.program.space.find(at) {
                Ok(Some(m)) if m.start <= at && self.is_as_it_was(&m, at, range.origin) => {
                    at = m.end
                }
                Ok(Some(m)) if m.start <= at => return Some((until(at, m.end), true)),
                Ok(Some(m)) => return Some((until(at, m.start), false)),
                Ok(None) => return Some((until(at, range.end), false)),
                // Cannot be seen: then it stays.
                Err(_) => return None,
            }
        }
        None
    }

    /// Punches out of `span` what is mapped nowhere else; whether there was any. What
    /// the program has moved is still needed, and so is what a promotion under way has
    /// copied for the memory that now stands there.
    fn punch_unless_moved(&self, span: Span) -> bool {
        let mut any = false;
        let mut rest = span;
        while !rest.is_empty() {
            let moved = self.first_mapped_elsewhere(rest);
            let moved = moved.unwrap_or(Span::new(rest.end(), rest.end()));
            if rest.start() < moved.start() {
                self.punch(Span::new(rest.start(), moved.start()));
                any = true;
            }
            rest = rest.from(moved.end());
        }
        any
    }

    /// The lowest part of `span` of the file that is mapped at addresses
    /// other than its own, not counting attachments of this process's own
    /// segments: their pages are to be revoked like anybody's. All mappings are looked
    /// through only where some may be moved that no event has told of: while
    /// threads run, and once one could not be settled.
    fn first_mapped_elsewhere(&self, span: Span) -> Option<Span> {
        let mut lowest = None;
        let mut note = |moved: Span| {
            let is_lower = |known: Span| moved.start() < known.start();
            if !moved.is_empty() && lowest.is_none_or(is_lower) {
                lowest = Some(moved);
            }
        };
        if !self.moved_astray && self.program.threads.stand() {
            for c in &self.changes[..self.change_count] {
                if c.kind == uffd::EVENT_REMAP {
                    note(c.from.cut_to(span));
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
            note(Span::of(m.offset, m.end - m.start).cut_to(span));
        }
        lowest
    }

    /// Whether all of a promoted range is still mapped as it was.
    pub fn still_own(&self, span: Span) -> bool {
        let range = Range::new(span, Origin::Private);
        self.first_unmapped(range).is_none()
    }

    /// Takes into the set what promoted ranges have grown by.
    pub fn note_growth(&mut self) {
        self.note_growth_into(Span::new(0, TOP));
    }

    /// As [`Self::note_growth`], of ranges that may have grown into `span`.
    pub fn note_growth_into(&mut self, span: Span) {
        let Some(shared) = arena::existing() else {
            return;
        };
        let mut i = shared.promoted.first_that_may_reach(span.start());
        while let Some(r) = shared.promoted.get(i).filter(|r| r.start < span.end()) {
            i += 1;
            let next = shared.promoted.get(i).map_or(TOP, |next| next.start);
            let last = self.program.space.at(r.end - 1).ok().flatten();
            if let Some(m) = last.filter(|m| self.is_own(m) && m.offset == m.start) {
                let grown = Span::new(r.end, m.end.min(next));
                if !grown.is_empty() && shared.promoted.has_room() {
                    shared.promoted.insert(Range::new(grown, r.origin));
                    self.inherit_settings(shared, grown);
                    i = i.saturating_sub(1);
                }
            }
        }
    }
}
