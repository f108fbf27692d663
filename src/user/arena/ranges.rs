// SPDX-License-Identifier: MIT OR Apache-2.0
//! The set of promoted ranges of this process.
//!
//! Written by the service task alone. Read by the program's own threads (in
//! the hooks on libc's memory calls) without a lock, since a thread may be
//! stopped at any instruction: a sequence count tells a reader that the writer
//! was busy, and it reads again.

#![cfg_attr(not(test), forbid(unsafe_code))]

use crate::user::span::Span;
use core::sync::atomic::{fence, AtomicU32, AtomicU64, Ordering};

/// How many separate ranges can be promoted at a time. Neighbours of the same
/// kind merge, so that this is not the number of promotions; see [`crate::user::owner::thrift`]
/// for how many come about. Each is at least one mapping, and the kernel allows
/// no more of those where it is not told to.
pub const CAPACITY: usize = 65_536;

/// What a promoted range was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Private memory: a fork child gets a copy.
    Private,
    /// `MAP_SHARED | MAP_ANONYMOUS`: a fork child shares it.
    Shared,
    /// A shared file, still mapped by the program: attachers map it too.
    Lent,
}

/// One range, page-aligned, `start < end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub start: usize,
    pub end: usize,
    pub origin: Origin,
}

impl Range {
    pub fn new(span: Span, origin: Origin) -> Self {
        Self {
            start: span.start(),
            end: span.end(),
            origin,
        }
    }

    /// Its addresses.
    pub fn span(&self) -> Span {
        Span::new(self.start, self.end)
    }
}

struct Entry {
    start: AtomicU64,
    /// The end, with the two lowest bits telling the origin.
    end: AtomicU64,
}

/// Sorted, disjoint ranges.
pub struct Ranges {
    sequence: AtomicU32,
    len: AtomicU32,
    entries: [Entry; CAPACITY],
}

impl Ranges {
    fn load(&self, i: usize) -> Range {
        let end = self.entries[i].end.load(Ordering::Relaxed);
        Range {
            start: self.entries[i].start.load(Ordering::Relaxed) as usize,
            end: (end & !3) as usize,
            origin: match end & 3 {
                0 => Origin::Private,
                1 => Origin::Shared,
                _ => Origin::Lent,
            },
        }
    }

    fn store(&self, i: usize, r: Range) {
        self.entries[i]
            .start
            .store(r.start as u64, Ordering::Relaxed);
        let flag = match r.origin {
            Origin::Private => 0,
            Origin::Shared => 1,
            Origin::Lent => 2,
        };
        self.entries[i]
            .end
            .store(r.end as u64 | flag, Ordering::Relaxed);
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        (self.len.load(Ordering::Relaxed) as usize).min(CAPACITY)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Range number `i`, in the order of addresses. For the service task.
    pub fn get(&self, i: usize) -> Option<Range> {
        (i < self.len()).then(|| self.load(i))
    }

    /// Index of the first range that ends above `addr`.
    fn lower(&self, addr: usize) -> usize {
        let (mut lo, mut hi) = (0, self.len());
        while lo < hi {
            let mid = (lo + hi) / 2;
            if self.load(mid).end <= addr {
                lo = mid + 1;
            } else {
                hi = mid;
            }
        }
        lo
    }

    /// Index of the first range that may reach beyond `start`, also if it has
    /// grown: the last that ends before it counts. For the service task.
    pub fn first_that_may_reach(&self, start: usize) -> usize {
        self.lower(start).saturating_sub(1)
    }

    /// The first range that reaches into `span`, cut to it and never empty: loops go
    /// on at its end. For the service task.
    pub fn first_in(&self, span: Span) -> Option<Range> {
        let r = self.get(self.lower(span.start()))?;
        // An empty piece would keep a caller that goes on at its end for ever.
        (r.start < span.end() && !span.is_empty()).then(|| Range {
            start: r.start.max(span.start()),
            end: r.end.min(span.end()),
            origin: r.origin,
        })
    }

    /// Whether anything of that origin is in `span`. For the service task.
    pub fn has(&self, span: Span, origin: Origin) -> bool {
        let mut rest = span;
        while let Some(r) = self.first_in(rest) {
            if r.origin == origin {
                return true;
            }
            rest = span.from(r.end);
        }
        false
    }

    /// Whether anything in `span` is promoted. For any thread.
    pub fn overlaps(&self, span: Span) -> bool {
        if self.len.load(Ordering::Acquire) == 0 {
            return false;
        }
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            if before & 1 == 0 {
                let found = self.first_in(span).is_some();
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return found;
                }
            }
            core::hint::spin_loop();
        }
    }

    /// Whether one more range can be added for sure. For the service task.
    pub fn has_room(&self) -> bool {
        self.len() + 2 < crate::testing::places(CAPACITY)
    }

    fn write(&self, body: impl FnOnce()) {
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(before.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        body();
        self.sequence
            .store(before.wrapping_add(2), Ordering::Release);
    }

    fn set_len(&self, len: usize) {
        self.len.store(len as u32, Ordering::Relaxed);
    }

    /// Adds a range that overlaps none. The caller has asked [`Self::has_room`].
    /// For the service task.
    pub fn insert(&self, new: Range) {
        self.remove(new.span());
        let mut i = self.lower(new.start);
        let mut merged = new;
        let mut drop_next = false;
        let mut replace = false;
        if i > 0 {
            let left = self.load(i - 1);
            if left.end == new.start && left.origin == new.origin {
                merged.start = left.start;
                i -= 1;
                replace = true;
            }
        }
        let next = if replace { i + 1 } else { i };
        if let Some(right) = self.get(next) {
            if right.start == new.end && right.origin == new.origin {
                merged.end = right.end;
                if replace {
                    drop_next = true;
                } else {
                    replace = true;
                }
            }
        }
        let len = self.len();
        self.write(|| {
            if !replace {
                for k in (i..len).rev() {
                    self.store(k + 1, self.load(k));
                }
                self.set_len(len + 1);
            } else if drop_next {
                for k in i + 2..len {
                    self.store(k - 1, self.load(k));
                }
                self.set_len(len - 1);
            }
            self.store(i, merged);
        });
    }

    /// Takes `span` out. Splits what reaches over its edges. For the service task.
    pub fn remove(&self, span: Span) {
        let (start, end) = (span.start(), span.end());
        let first = self.lower(start);
        let mut last = first;
        while self.get(last).is_some_and(|r| r.start < end) {
            last += 1;
        }
        if first == last {
            return;
        }
        let (head, tail) = (self.load(first), self.load(last - 1));
        let left = (head.start < start).then_some(Range { end: start, ..head });
        let mut right = (tail.end > end).then_some(Range { start: end, ..tail });
        if left.is_some() && first + 1 == last && self.len() == CAPACITY {
            // Not to be reached, see [`CAPACITY`].
            right = None;
        }
        let keep = usize::from(left.is_some()) + usize::from(right.is_some());
        let len = self.len();
        let gone = last - first;
        self.write(|| {
            if keep > gone {
                for k in (last..len).rev() {
                    self.store(k + 1, self.load(k));
                }
            } else {
                for k in last..len {
                    self.store(k - (gone - keep), self.load(k));
                }
            }
            for (at, r) in (first..).zip([left, right].into_iter().flatten()) {
                self.store(at, r);
            }
            self.set_len(len + keep - gone);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::next_random;

    fn empty() -> Box<Ranges> {
        // SAFETY: atomics of zero are valid, and zero ranges is an empty set.
        unsafe {
            let mut ranges = Box::<Ranges>::new_uninit();
            ranges.as_mut_ptr().write_bytes(0, 1);
            ranges.assume_init()
        }
    }

    fn list(set: &Ranges) -> Vec<(usize, usize)> {
        (0..set.len())
            .filter_map(|i| set.get(i))
            .map(|r| (r.start, r.end))
            .collect()
    }

    fn private(start: usize, end: usize) -> Range {
        Range::new(Span::new(start, end), Origin::Private)
    }

    #[test]
    fn neighbours_merge_and_kinds_do_not() {
        let set = empty();
        set.insert(private(12, 20));
        set.insert(private(32, 40));
        set.insert(private(20, 32));
        assert_eq!(list(&set), [(12, 40)]);
        set.insert(Range::new(Span::new(40, 52), Origin::Shared));
        assert_eq!(list(&set), [(12, 40), (40, 52)]);
        let overlaps = |start, end| set.overlaps(Span::new(start, end));
        assert!(overlaps(51, 60) && !overlaps(52, 60) && !overlaps(0, 12));
    }

    #[test]
    fn nothing_reaches_into_an_empty_range() {
        let set = empty();
        set.insert(private(12, 32));
        assert_eq!(set.first_in(Span::new(20, 20)), None);
        assert_eq!(set.first_in(Span::new(0, 20)), Some(private(12, 20)));
    }

    #[test]
    fn removal_splits() {
        let set = empty();
        set.insert(private(12, 52));
        set.remove(Span::new(20, 32));
        assert_eq!(list(&set), [(12, 20), (32, 52)]);
        set.remove(Span::new(0, 100));
        assert!(set.is_empty());
    }

    #[test]
    fn a_walk_ends_inside_a_range() {
        let set = empty();
        set.insert(private(12, 52));
        assert_eq!(set.first_in(Span::new(20, 32)), Some(private(20, 32)));
        assert_eq!(set.first_in(Span::new(30, 30)), None);
        assert_eq!(set.first_in(Span::new(40, 30)), None);
    }

    #[test]
    fn behaves_like_a_bitmap() {
        let set = empty();
        let mut model = [None::<Origin>; 512];
        let mut seed = 42u64;
        for _ in 0..20_000 {
            next_random(&mut seed);
            let start = (seed >> 33) as usize % 500;
            let end = (start + 1 + (seed >> 50) as usize % 12).min(512);
            // The lowest bits of an end carry the origin.
            let (start, end) = (start & !3, (end + 3) & !3);
            let origin = if seed >> 20 & 1 == 0 {
                Origin::Private
            } else {
                Origin::Shared
            };
            if seed >> 21 & 1 == 0 {
                set.insert(Range { start, end, origin });
                model[start..end].fill(Some(origin));
            } else {
                set.remove(Span::new(start, end));
                model[start..end].fill(None);
            }
            let mut seen = [None; 512];
            let mut last = None::<Range>;
            for r in (0..set.len()).filter_map(|i| set.get(i)) {
                if let Some(last) = last {
                    assert!(last.end < r.start || (last.end == r.start && last.origin != r.origin));
                }
                seen[r.start..r.end].fill(Some(r.origin));
                last = Some(r);
            }
            assert_eq!(seen, model);
        }
    }
}
