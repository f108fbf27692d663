// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which mappings of the program attachers may have mapped, too.

#![forbid(unsafe_code)]

use crate::user::arena::ranges::Origin;
use crate::user::arena::Shared;
use crate::user::sys::maps::Mapping;
use core::ffi::c_int;

/// Most mappings that are lent at a time.
pub const LENT: usize = 4096;

/// A mapping that is lent. All zero is none.
#[derive(Clone, Copy)]
struct Lent {
    start: usize,
    end: usize,
    identity: (u64, u64),
    offset: usize,
}

/// What is lent. All zero: nothing.
pub struct Loans {
    /// Those that were ever in use are the first ones.
    used: usize,
    lent: [Lent; LENT],
    /// The program's descriptor of the file that was lent last.
    pub number: c_int,
}

impl Loans {
    /// A place for a mapping, which is lent no longer as what it was before; `None`
    /// where there is none left.
    pub fn place_for(&mut self, shared: &Shared, m: &Mapping) -> Option<usize> {
        for old in &mut self.lent[..self.used] {
            if old.start < m.end && old.end > m.start {
                old.end = old.start;
            }
        }
        let is_free = |l: &Lent| {
            let range = shared.promoted.first_in(l.start, l.end);
            range.is_none_or(|r| r.origin != Origin::Lent)
        };
        let used = &self.lent[..self.used];
        let place = used.iter().position(is_free).unwrap_or(used.len());
        (place < LENT).then_some(place)
    }

    /// Puts a mapping in its [place](Self::place_for).
    pub fn put(&mut self, place: usize, m: &Mapping) {
        self.used = self.used.max(place + 1);
        self.lent[place] = Lent {
            start: m.start,
            end: m.end,
            identity: (m.device, m.inode),
            offset: m.offset,
        };
    }

    /// Whether the mapping is (still) the one that is lent there.
    pub fn has(&self, m: &Mapping, at: usize) -> bool {
        self.lent[..self.used].iter().any(|l| {
            l.start <= at
                && at < l.end
                && l.identity == (m.device, m.inode)
                && m.shared
                && m.offset + (at - m.start) == l.offset + (at - l.start)
        })
    }

    /// Of what stands as far from `address` as its offset says, the first from place
    /// `from` on: its place, and its range.
    pub fn next_of(&self, address: usize, from: usize) -> Option<(usize, (usize, usize))> {
        let is_part = |l: &Lent| l.start < l.end && l.start.checked_sub(address) == Some(l.offset);
        let rest = self.lent[..self.used].get(from..)?;
        let found = from + rest.iter().position(is_part)?;
        Some((found, (self.lent[found].start, self.lent[found].end)))
    }
}
