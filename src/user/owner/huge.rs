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
use crate::user::sys::HUGE;

impl Owner {
    /// Whether a page of `m` is a part of a huge page that is mapped as one.
    pub fn is_huge(&self, m: &Mapping, addr: usize) -> bool {
        let start = addr & !(HUGE - 1);
        start >= m.start && start + HUGE <= m.end && self.program.space.is_huge(start, HUGE)
    }

    /// Adds to a part of `m` what else the huge pages at its ends hold.
    pub fn whole_huge_pages(&self, m: &Mapping, (lo, hi): (usize, usize)) -> (usize, usize) {
        let (mut start, mut end) = (lo, hi);
        if lo % HUGE != 0 && self.is_huge(m, lo) {
            start = lo & !(HUGE - 1);
        }
        if hi % HUGE != 0 && self.is_huge(m, hi) {
            end = (hi & !(HUGE - 1)) + HUGE;
        }
        (start, end)
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
            while at < end && self.program.space.is_huge(at, HUGE) {
                at += HUGE;
            }
            if from < at {
                x.huge |= self.make_pages_huge(x.stage_of(from), at - from).is_ok();
            }
            at += HUGE;
        }
    }

    /// Whether what is shared in `[lo, hi)` can be mapped as huge pages.
    pub fn all_huge(&self, lo: usize, hi: usize) -> bool {
        let (first, end) = (lo.next_multiple_of(HUGE), hi & !(HUGE - 1));
        first < end && self.program.space.is_huge(first, end - first)
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
