// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of attachments of this process.
//!
//! An attachment is one piece until the program cuts or moves it. Pieces stand in
//! places of their own, a list of places is sorted by address, and the pieces of
//! one attachment are a ring: what is done with one of 60,000 attachments costs a
//! search and the moving of some four-byte numbers, and no look at all others.

#![cfg_attr(not(test), forbid(unsafe_code))]

use crate::debug_log;
use crate::testing::places;
use crate::user::sys::maps::Mapping;
use crate::user::sys::Span;

/// A piece of an attachment: it may have been cut or moved by the program.
#[derive(Clone, Copy)]
pub struct Piece {
    pub start: usize,
    pub end: usize,
    /// The owner's address of `start`.
    pub source: usize,
    /// Pieces of one attachment have the same number.
    pub attachment: u64,
    pub permit: usize,
    /// A file of the owner's is mapped here, and not its memfd.
    pub overlay: bool,
    /// The file, as mappings show it, and the offset of `start` in it.
    pub identity: (u64, u64),
    pub offset: usize,
}

impl Piece {
    /// Its addresses.
    pub fn span(&self) -> Span {
        Span::new(self.start, self.end)
    }

    /// The part of the piece from `addr` on.
    pub fn from(self, addr: usize) -> Self {
        let skip = addr - self.start;
        Self {
            start: addr,
            source: self.source + skip,
            offset: self.offset + skip,
            ..self
        }
    }

    /// Whether a mapping shows, at `addr`, what this piece shows there.
    pub fn is_shown_by(&self, m: &Mapping, addr: usize) -> bool {
        m.shared
            && (m.device, m.inode) == self.identity
            && m.offset + (addr - m.start) == self.offset + (addr - self.start)
    }
}

/// Most pieces at a time.
const PIECES: usize = 65_536;
/// Of these, left for the pieces that the program cuts attachments into.
const SPARE: usize = 1024;

/// All attachments of this process, disjoint.
pub struct Attachments {
    len: usize,
    /// The number of the last attachment.
    last_number: u64,
    /// Places by address.
    order: [u32; PIECES],
    pieces: [Piece; PIECES],
    /// Of each place: another one of the same attachment, in a ring.
    next: [u32; PIECES],
    /// Places below this have been used, and `free_count` of them are free again.
    used: usize,
    free_count: usize,
    free: [u32; PIECES],
}

impl Attachments {
    /// The number of a new attachment.
    pub fn new_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// The number of the last attachment.
    pub fn last_number(&self) -> u64 {
        self.last_number
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether another attachment can be made.
    pub fn has_room(&self) -> bool {
        self.len + SPARE < places(PIECES)
    }

    /// Piece number `i`, by address.
    pub fn get(&self, i: usize) -> Option<Piece> {
        self.order[..self.len]
            .get(i)
            .map(|&place| self.pieces[place as usize])
    }

    /// What piece number `i` shows from now on, from its start.
    pub fn show(&mut self, i: usize, identity: (u64, u64)) {
        if let Some(&place) = self.order[..self.len].get(i) {
            let piece = &mut self.pieces[place as usize];
            (piece.identity, piece.offset, piece.overlay) = (identity, 0, false);
        }
    }

    /// Index of the first piece that ends above `addr`.
    fn lower(&self, addr: usize) -> usize {
        self.order[..self.len].partition_point(|&place| self.pieces[place as usize].end <= addr)
    }

    /// Index of the piece that holds `addr`.
    fn index(&self, addr: usize) -> Option<usize> {
        let i = self.lower(addr);
        self.get(i).filter(|p| p.start <= addr).map(|_| i)
    }

    /// The piece that holds `addr`.
    pub fn at(&self, addr: usize) -> Option<Piece> {
        self.get(self.lower(addr)).filter(|p| p.start <= addr)
    }

    /// Whether there is such a piece. Looks at all.
    pub fn any(&self, which: impl Fn(&Piece) -> bool) -> bool {
        (0..self.len).any(|i| self.get(i).is_some_and(|p| which(&p)))
    }

    /// The first piece that ends above `addr`.
    pub fn next_from(&self, addr: usize) -> Option<Piece> {
        self.get(self.lower(addr))
    }

    /// The first such piece that ends above `addr`.
    pub fn first_from(&self, addr: usize, which: impl Fn(&Piece) -> bool) -> Option<Piece> {
        let rest = self.lower(addr)..self.len;
        rest.filter_map(|i| self.get(i)).find(|p| which(p))
    }

    pub fn overlaps(&self, span: Span) -> bool {
        self.next_from(span.start())
            .is_some_and(|p| p.start < span.end())
    }

    /// A place for a piece, in the ring of the piece at place `kin`.
    fn place(&mut self, piece: Piece, kin: Option<u32>) -> Option<u32> {
        let place = if self.free_count > 0 {
            self.free_count -= 1;
            self.free[self.free_count]
        } else if self.used < places(PIECES) {
            self.used += 1;
            self.used as u32 - 1
        } else {
            debug_log!("more than {PIECES} pieces of attachments");
            return None;
        };
        self.pieces[place as usize] = piece;
        self.next[place as usize] = kin.map_or(place, |kin| self.next[kin as usize]);
        if let Some(kin) = kin {
            self.next[kin as usize] = place;
        }
        Some(place)
    }

    /// Gives a place back, out of its ring; answers another one that was in it.
    fn give_back(&mut self, place: u32) -> Option<u32> {
        let next = self.next[place as usize];
        let mut before = next;
        while self.next[before as usize] != place {
            before = self.next[before as usize];
        }
        self.next[before as usize] = next;
        self.free[self.free_count] = place;
        self.free_count += 1;
        (next != place).then_some(next)
    }

    /// Lets a place stand at index `i`.
    fn enter(&mut self, i: usize, place: u32) {
        self.order.copy_within(i..self.len, i + 1);
        self.order[i] = place;
        self.len += 1;
    }

    fn leave(&mut self, i: usize) -> u32 {
        let place = self.order[i];
        self.order.copy_within(i + 1..self.len, i);
        self.len -= 1;
        place
    }

    /// Enters a piece. It is of the same attachment as what stands in its place,
    /// if that has its number.
    pub fn insert(&mut self, piece: Piece) -> bool {
        let kin = self.index(piece.start).map(|i| self.order[i]);
        let kin = kin.filter(|&place| self.pieces[place as usize].attachment == piece.attachment);
        self.insert_beside(piece, kin)
    }

    fn insert_beside(&mut self, piece: Piece, kin: Option<u32>) -> bool {
        let Some(place) = self.place(piece, kin) else {
            return false;
        };
        // What was there before is gone, though its event may still be on its
        // way.
        self.cut(piece.span());
        self.enter(self.lower(piece.start), place);
        true
    }

    /// Takes the piece that holds `addr` out, and answers where another one of its
    /// attachment begins.
    pub fn take(&mut self, addr: usize) -> Option<(Piece, Option<usize>)> {
        let i = self.index(addr)?;
        let place = self.leave(i);
        let other = self.give_back(place);
        let other = other.map(|other| self.pieces[other as usize].start);
        Some((self.pieces[place as usize], other))
    }

    /// `span` is not mapped any more.
    pub fn cut(&mut self, span: Span) {
        let (start, end) = (span.start(), span.end());
        let mut i = self.lower(start);
        while let Some(p) = self.get(i).filter(|p| p.start < end) {
            let place = self.order[i];
            let rest = (p.end > end).then(|| p.from(end));
            if p.start < start {
                self.pieces[place as usize].end = start;
                i += 1;
                if let Some(rest) = rest.and_then(|rest| self.place(rest, Some(place))) {
                    self.enter(i, rest);
                }
                continue;
            }
            match rest {
                Some(rest) => {
                    self.pieces[place as usize] = rest;
                    i += 1;
                }
                None => {
                    self.leave(i);
                    self.give_back(place);
                }
            }
        }
    }

    /// What was at `from` is at `to` now.
    pub fn moved(&mut self, from: Span, to: usize) {
        let Some(i) = self.index(from.start()) else {
            return;
        };
        let place = self.order[i];
        let moved = Piece {
            start: to,
            end: to + from.len(),
            ..self.pieces[place as usize].from(from.start())
        };
        let Some(new) = self.place(moved, Some(place)) else {
            return;
        };
        self.cut(from);
        self.cut(moved.span());
        self.enter(self.lower(to), new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::next_random;
    use std::collections::BTreeMap;

    fn empty() -> Box<Attachments> {
        // SAFETY: numbers and booleans, valid as zeros, and an empty table.
        unsafe {
            let mut table = Box::<Attachments>::new_uninit();
            table.as_mut_ptr().write_bytes(0, 1);
            table.assume_init()
        }
    }

    fn piece(start: usize, end: usize, attachment: u64) -> Piece {
        Piece {
            start,
            end,
            source: start + 10_000,
            attachment,
            permit: 0,
            overlay: false,
            identity: (0, 0),
            offset: start,
        }
    }

    /// What is where: attachment and source of each unit.
    type Model = BTreeMap<usize, (u64, usize)>;

    fn seen(table: &Attachments) -> Model {
        let mut model = Model::new();
        let mut last = 0;
        for p in (0..table.len()).filter_map(|i| table.get(i)) {
            assert!(p.start >= last && p.start < p.end, "disjoint and in order");
            last = p.end;
            for at in p.start..p.end {
                model.insert(at, (p.attachment, p.source + (at - p.start)));
            }
        }
        model
    }

    #[test]
    fn behaves_like_a_map_and_finds_all_pieces_of_an_attachment() {
        let mut table = empty();
        let mut model = Model::new();
        let mut seed = 7u64;
        let mut random = |below: usize| (next_random(&mut seed) >> 33) as usize % below;
        for round in 1..4_000 {
            let (start, len, to) = (random(500), 1 + random(20), random(500));
            match random(8) {
                0..=2 => {
                    let p = piece(start, start + len, round);
                    assert!(table.insert(p));
                    for at in start..start + len {
                        model.insert(at, (round, at + 10_000));
                    }
                }
                3 | 4 => {
                    table.cut(Span::of(start, len));
                    model.retain(|at, _| !(start..start + len).contains(at));
                }
                5 => {
                    // As the kernel moves what one mapping shows.
                    let Some(p) = table.at(start) else { continue };
                    let len = len.min(p.end - start);
                    if to < start + len && start < to + len {
                        continue;
                    }
                    table.moved(Span::of(start, len), to);
                    let part: Vec<_> = (0..len)
                        .filter_map(|k| model.remove(&(start + k)))
                        .collect();
                    for (k, what) in part.into_iter().enumerate() {
                        model.insert(to + k, what);
                    }
                }
                6 => {
                    // Part of an attachment shows something else.
                    let Some(p) = table.at(start) else { continue };
                    let end = (start + len).min(p.end);
                    table.insert(Piece {
                        end,
                        overlay: true,
                        ..p.from(start)
                    });
                }
                _ => {
                    let Some(p) = table.at(start) else { continue };
                    let mut at = Some(start);
                    while let Some((taken, other)) = at.and_then(|at| table.take(at)) {
                        assert_eq!(taken.attachment, p.attachment);
                        at = other;
                    }
                    model.retain(|_, what| what.0 != p.attachment);
                }
            }
            assert!(seen(&table) == model, "round {round}");
        }
        assert_eq!(table.used - table.free_count, table.len());
    }

    #[test]
    fn a_full_table_keeps_its_order() {
        let mut table = empty();
        let mut made = 0;
        while table.has_room() {
            made += 1;
            assert!(table.insert(piece(made * 8, made * 8 + 6, made as u64)));
        }
        assert_eq!(made, PIECES - SPARE);
        for i in 1..=SPARE + 10 {
            table.cut(Span::of(i * 8 + 2, 2));
        }
        assert_eq!(table.len(), PIECES);
        assert!(!table.insert(piece(4, 5, 1 << 40)));
        let found = table.first_from(0, |p| p.attachment == 5).expect("made");
        assert_eq!((found.start, found.end), (40, 42));
    }
}
