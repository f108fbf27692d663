// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is born shared: which sizes of new mappings.
//!
//! A program that makes a buffer for each message pays a promotion for each. Where
//! mappings of a size have been asked for by peers again and again, the next one
//! of that size is shared from the start ([`crate::user::owner::born`]): there is
//! nothing to stop and nothing to copy then. Each mapping of the size that is made
//! counts one down, each that is unmapped after a peer has asked for it two up; so
//! what is not asked for any more is soon not born shared any more.
//!
//! The service alone adds sizes; the program's threads count down.

#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Smallest and largest mapping of which this is worth a command to the service.
pub const SMALLEST: usize = 32 * 1024;
pub const LARGEST: usize = 256 << 20;

/// How many sizes are known at a time.
const SIZES: usize = 16;

/// From which score on, and where the score ends.
const ENOUGH: u32 = 4;
const MOST: u32 = 8;

struct Size {
    /// 0: none.
    len: AtomicUsize,
    score: AtomicU32,
}

/// What a user has asked for: 0 for what is learned, as where nothing is said; [`OFF`],
/// as for what cannot be understood; else all of at least so many bytes.
pub fn mode(text: Option<&[u8]>) -> usize {
    match text {
        None | Some(b"learned") => 0,
        Some(text) => core::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok())
            .map_or(OFF, |least: usize| least.max(1)),
    }
}

/// Whether [`mode`] is what the user has asked for.
pub fn is_understood(text: &[u8]) -> bool {
    text == b"off" || mode(Some(text)) != OFF
}

/// The mode in which nothing is born shared.
pub const OFF: usize = usize::MAX;

/// All zero: none.
pub struct Born {
    /// How many sizes there are, as a first look.
    known: AtomicUsize,
    /// All new mappings of at least so much; 0: what has been learned.
    all_from: AtomicUsize,
    sizes: [Size; SIZES],
}

impl Born {
    /// What the user has asked for, a [`mode`].
    pub fn set_mode(&self, all_from: usize) {
        self.all_from.store(all_from, Ordering::Relaxed);
    }

    /// Whether a mapping of `len` bytes, which is about to be made, is to be shared
    /// from the start. For the program's threads; counts it.
    pub fn wants(&self, len: usize) -> bool {
        let all_from = self.all_from.load(Ordering::Relaxed);
        if all_from > 0 {
            return len >= all_from && len <= LARGEST;
        }
        self.known.load(Ordering::Acquire) > 0
            && self.find(len).is_some_and(|size| {
                let less = |score: u32| score.checked_sub(1);
                let (order, failed) = (Ordering::Relaxed, Ordering::Relaxed);
                let before = size.score.fetch_update(order, failed, less);
                before.is_ok_and(|score| score >= ENOUGH)
            })
    }

    /// It was wanted and could not be had: it is to be learned anew.
    pub fn forget(&self, len: usize) {
        if let Some(size) = self.find(len) {
            size.score.store(0, Ordering::Relaxed);
        }
    }

    /// A mapping of `len` bytes has been unmapped that a peer had asked for. For the
    /// service.
    pub fn asked_for(&self, len: usize) {
        if !(SMALLEST..=LARGEST).contains(&len) {
            return;
        }
        let size = self.find(len).unwrap_or_else(|| self.place_for(len));
        let more = |score: u32| Some((score + 2).min(MOST));
        let _ = size
            .score
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn find(&self, len: usize) -> Option<&Size> {
        let is_it = |size: &&Size| size.len.load(Ordering::Acquire) == len;
        self.sizes.iter().find(is_it)
    }

    /// In the place of the size with the lowest score.
    fn place_for(&self, len: usize) -> &Size {
        let mut lowest = &self.sizes[0];
        for size in &self.sizes {
            if size.len.load(Ordering::Relaxed) == 0 {
                self.known.fetch_add(1, Ordering::Release);
                lowest = size;
                break;
            }
            if size.score.load(Ordering::Relaxed) < lowest.score.load(Ordering::Relaxed) {
                lowest = size;
            }
        }
        lowest.len.store(0, Ordering::Release);
        lowest.score.store(0, Ordering::Relaxed);
        lowest.len.store(len, Ordering::Release);
        lowest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 1 << 20;

    fn empty() -> Born {
        Born {
            known: AtomicUsize::new(0),
            all_from: AtomicUsize::new(0),
            sizes: [const {
                Size {
                    len: AtomicUsize::new(0),
                    score: AtomicU32::new(0),
                }
            }; SIZES],
        }
    }

    #[test]
    fn what_is_asked_for_each_time_is_learned_and_forgotten_when_it_is_not() {
        let born = empty();
        let mut first = None;
        for i in 0..20 {
            if born.wants(LEN) {
                first = first.or(Some(i));
            } else {
                assert_eq!(first, None, "once learned it stays");
            }
            born.asked_for(LEN);
        }
        assert!(first.is_some_and(|i| (2..6).contains(&i)), "{first:?}");
        let wanted = (0..100).filter(|_| born.wants(LEN)).count();
        assert!((1..8).contains(&wanted), "{wanted}");
        assert!(!born.wants(LEN + 4096));
    }

    #[test]
    fn what_is_seldom_asked_for_is_not_learned() {
        let born = empty();
        for i in 0..1000 {
            assert!(!born.wants(LEN));
            if i % 3 == 0 {
                born.asked_for(LEN);
            }
        }
    }

    #[test]
    fn a_full_table_has_room_for_what_comes() {
        let born = empty();
        for round in 0..4 {
            for i in 0..SIZES {
                born.asked_for(SMALLEST + (i * 7 + round) * 4096);
            }
        }
        for _ in 0..4 {
            born.asked_for(LEN);
        }
        assert!(born.wants(LEN));
        born.forget(LEN);
        assert!(!born.wants(LEN));
    }

    #[test]
    fn the_user_may_have_all_or_nothing() {
        let born = empty();
        assert_eq!((mode(Some(b"learned")), mode(None)), (0, 0));
        assert_eq!(mode(Some(b"much")), OFF);
        assert!([&b"off"[..], b"learned", b"4096"]
            .into_iter()
            .all(is_understood));
        assert!(![&b""[..], b"on", b"1m"].into_iter().any(is_understood));
        born.set_mode(mode(Some(b"1048576")));
        assert!(born.wants(LEN) && !born.wants(LEN - 1));
        born.set_mode(mode(Some(b"off")));
        for _ in 0..10 {
            born.asked_for(LEN);
        }
        assert!(!born.wants(LEN));
    }
}
