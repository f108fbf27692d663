// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps memory that is on huge pages on huge pages.
//!
//! The kernel gives the file small pages, whatever it copies from. It puts them
//! together when it is asked to, if all are there, and if no userfaultfd watches
//! the mapping: so it is asked when the copy is made. From then on the pages move
//! as one, since all places of an exchange begin at the same part of a huge page.

#![forbid(unsafe_code)]

use super::exchange::{Exchange, PIECE};
use super::Owner;
use crate::user::sys::maps::Mapping;
use crate::user::sys::{Span, HUGE};

impl Owner {
    /// Whether a page of `m` is a part of a huge page that is mapped as one.
    pub fn is_huge(&self, m: &Mapping, addr: usize) -> bool {
        let page = Span::of(addr & !(HUGE - 1), HUGE);
        page.cut_to(m.span()) == page && self.program.space.is_huge(page)
    }

    /// Adds to a part of `m` what else the huge pages at its ends hold.
    pub fn whole_huge_pages(&self, m: &Mapping, part: Span) -> Span {
        let (mut start, mut end) = (part.start(), part.end());
        if start % HUGE != 0 && self.is_huge(m, start) {
            start &= !(HUGE - 1);
        }
        if end % HUGE != 0 && self.is_huge(m, end) {
            end = (end & !(HUGE - 1)) + HUGE;
        }
        Span::new(start, end)
    }

    /// Makes huge pages of what has been copied from huge pages. Where that cannot be
    /// done they stay small.
    pub fn make_huge(&self, x: &mut Exchange) {
        let first = x.lo.next_multiple_of(HUGE);
        let end = (x.lo + x.len) & !(HUGE - 1);
        if first >= end || x.stage_of(first) % HUGE != 0 {
            return;
        }
        let mut at = first;
        while at < end {
            let from = at;
            while at < end && self.program.space.is_huge(Span::of(at, HUGE)) {
                at += HUGE;
            }
            if from < at {
                x.huge |= self.make_pages_huge(x.stage_of(from), at - from).is_ok();
            }
            at += HUGE;
        }
    }

    /// Whether what is shared in `span` can be mapped as huge pages.
    pub fn all_huge(&self, span: Span) -> bool {
        let (first, end) = (
            span.start().next_multiple_of(HUGE),
            span.end() & !(HUGE - 1),
        );
        first < end && self.program.space.is_huge(Span::new(first, end))
    }
}

impl Exchange {
    /// How much changes place at a time from `at` on.
    pub fn piece_at(&self, at: usize) -> usize {
        let left = self.lo + self.len - at;
        match self.by_page {
            // To the end of a huge page.
            true if self.huge => left.min(HUGE - at % HUGE),
            true => left.min(PIECE),
            false => left,
        }
    }
}
