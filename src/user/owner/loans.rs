// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which mappings of the program attachers may have mapped, too.
//!
//! A mapping is lent once, whoever asks, and counts for the one who asked last.
//! Nobody gets more than there are places left, so that one attacher that asks for
//! everything leaves half of the places to the others.

#![forbid(unsafe_code)]

use crate::user::arena::ranges::Origin;
use crate::user::arena::Shared;
use crate::user::sys::maps::Mapping;
use crate::user::sys::Span;
use crate::user::sys::PAGE;
use core::ffi::c_int;

/// Most mappings that are lent at a time.
pub const LENT: usize = 4096;

/// A mapping that is lent. All zero is none.
#[derive(Clone, Copy)]
struct Lent {
    span: Span,
    identity: (u64, u64),
    offset: usize,
    /// The connection that asked for it, or [`NOBODY`].
    asker: usize,
}

/// The asker has gone.
const NOBODY: usize = usize::MAX;

/// What is lent. All zero: nothing.
pub struct Loans {
    /// How many places were ever in use; they are the first ones.
    used: usize,
    lent: [Lent; LENT],
    /// The program's descriptor of the file that was lent last.
    number: c_int,
}

impl Loans {
    /// The program's descriptor behind that of the file that was lent last: who lends
    /// many has mostly opened them one after the other.
    pub fn next_number(&self) -> c_int {
        self.number + 1
    }

    /// The file that is lent now is behind this descriptor of the program.
    pub fn note_number(&mut self, number: c_int) {
        self.number = number;
    }

    /// A place for a mapping, which is lent no longer as what it was before; `None`
    /// where there is none left for this asker.
    pub fn place_for(&mut self, shared: &Shared, m: &Mapping, asker: usize) -> Option<usize> {
        let is_lent = |span| {
            let range = shared.promoted.first_in(span);
            range.is_some_and(|r| r.origin == Origin::Lent)
        };
        let again = is_lent(Span::of(m.start, PAGE)) && self.has(m, m.start);
        let (mut free, mut lent, mut own) = (None, 0, 0);
        for (place, l) in self.lent[..self.used].iter_mut().enumerate() {
            if l.span.overlaps(m.span()) {
                l.span = Span::EMPTY;
            }
            if is_lent(l.span) {
                lent += 1;
                own += usize::from(l.asker == asker);
            } else {
                free = free.or(Some(place));
            }
        }
        (again || own < LENT - lent).then(|| free.unwrap_or(self.used))
    }

    /// A connection has ended: what it asked for counts for nobody.
    pub fn forget(&mut self, asker: usize) {
        for l in &mut self.lent[..self.used] {
            if l.asker == asker {
                l.asker = NOBODY;
            }
        }
    }

    /// Puts a mapping in its [place](Self::place_for).
    pub fn put(&mut self, place: usize, m: &Mapping, asker: usize) {
        self.used = self.used.max(place + 1);
        self.lent[place] = Lent {
            span: m.span(),
            identity: (m.device, m.inode),
            offset: m.offset,
            asker,
        };
    }

    /// Whether the mapping is (still) the one that is lent there.
    pub fn has(&self, m: &Mapping, at: usize) -> bool {
        self.lent[..self.used].iter().any(|l| {
            l.span.contains(at)
                && l.identity == (m.device, m.inode)
                && m.shared
                && m.offset + (at - m.start) == l.offset + (at - l.span.start())
        })
    }

    /// Of what stands as far from `address` as its offset says, the first from place
    /// `from` on: its place, and its range.
    pub fn next_of(&self, address: usize, from: usize) -> Option<(usize, Span)> {
        let is_part =
            |l: &Lent| !l.span.is_empty() && l.span.start().checked_sub(address) == Some(l.offset);
        let rest = self.lent[..self.used].get(from..)?;
        let found = from + rest.iter().position(is_part)?;
        Some((found, self.lent[found].span))
    }
}
