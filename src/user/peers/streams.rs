// SPDX-License-Identifier: MIT OR Apache-2.0
//! The owner's side: how an attacher goes through the memory of a segment.
//!
//! Who goes on where an answer ended, upwards or downwards, is given four times as
//! much with each. Two places are remembered, since a copy of libc's touches both
//! ends first, and then goes on from one of them: downwards where source and target
//! begin at the same part of a page.

#![forbid(unsafe_code)]

use crate::user::protocol::limits::CHUNK_MAX;
use crate::user::sys::{Span, PAGE};

/// Smallest and largest chunk that a first touch shares.
const FIRST_MIN: usize = 64 * 1024;
const FIRST_MAX: usize = 256 * 1024;

/// Who attaches more than this may touch a word here and there.
const WIDE: usize = 64 << 20;

/// What was answered last at one place: all of it up to now, and how much the last
/// time. All zero is none.
#[derive(Clone, Copy)]
struct Stream {
    lo: usize,
    hi: usize,
    chunk: usize,
}

/// The last places, the latest first. All zero is none.
#[derive(Clone, Copy)]
pub struct Streams([Stream; 2]);

impl Streams {
    pub const NONE: Self = Self(
        [Stream {
            lo: 0,
            hi: 0,
            chunk: 0,
        }; 2],
    );

    fn continued_by(&self, addr: usize) -> Option<usize> {
        let goes_on = |s: &Stream| s.chunk > 0 && (addr == s.hi || addr + PAGE == s.lo);
        self.0.iter().position(goes_on)
    }

    /// How much to share around the page at `addr`, which is touched in a window of
    /// `window` bytes.
    pub fn block_at(&self, addr: usize, window: usize) -> usize {
        match self.continued_by(addr) {
            Some(i) => (self.0[i].chunk * 4).min(CHUNK_MAX),
            None if window > WIDE => FIRST_MIN,
            None => (window / 4).next_power_of_two().clamp(FIRST_MIN, FIRST_MAX),
        }
    }

    /// `done` has been shared for a touch at `addr`, as part of a block.
    pub fn answered(&mut self, addr: usize, done: Span, block: usize) {
        let (lo, hi) = (done.start(), done.end());
        let (known, i) = match self.continued_by(addr) {
            Some(i) => (self.0[i], i),
            None => (Stream { lo, hi, chunk: 0 }, 1),
        };
        if i == 1 {
            self.0[1] = self.0[0];
        }
        self.0[0] = Stream {
            lo: known.lo.min(lo),
            hi: known.hi.max(hi),
            chunk: block,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// How many answers it takes until all pages have been touched in this order.
    fn answers(pages: impl Iterator<Item = usize>, window: usize) -> usize {
        let mut streams = Streams::NONE;
        let mut shared = vec![false; window / PAGE];
        let mut count = 0;
        for page in pages {
            if shared[page] {
                continue;
            }
            let addr = page * PAGE;
            let block = streams.block_at(addr, window);
            let (mut lo, mut hi) = (page, page + 1);
            let (from, to) = (addr / block * block, addr / block * block + block);
            while lo * PAGE > from && !shared[lo - 1] {
                lo -= 1;
            }
            while hi * PAGE < to.min(window) && !shared[hi] {
                hi += 1;
            }
            shared[lo..hi].fill(true);
            streams.answered(addr, Span::new(lo * PAGE, hi * PAGE), block);
            count += 1;
        }
        count
    }

    #[test]
    fn both_directions_are_alike() {
        let window = 64 * MIB;
        let n = window / PAGE;
        let up = answers(0..n, window);
        assert!(up <= 20);
        assert!(answers((0..n).rev(), window) <= up);
        // Both ends first.
        assert!(answers([0, n - 1].into_iter().chain(0..n), window) <= up + 2);
        let down = [0, n - 1].into_iter().chain((0..n).rev());
        assert!(answers(down, window) <= up + 2);
    }

    #[test]
    fn a_small_window_takes_few_answers_and_a_single_touch_little() {
        assert!(answers((0..256).rev(), MIB) <= 3);
        let far = |i: usize| (i * 2000) % (64 * MIB / PAGE);
        let streams = Streams::NONE;
        assert_eq!(streams.block_at(far(1) * PAGE, 16 * PAGE), FIRST_MIN);
        assert_eq!(streams.block_at(far(1) * PAGE, 64 * MIB), FIRST_MAX);
        assert_eq!(streams.block_at(far(1) * PAGE, 65 * MIB), FIRST_MIN);
    }
}
