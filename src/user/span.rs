// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ranges of addresses, and where addresses begin and end.

#![forbid(unsafe_code)]

/// The page size that the user back end supports, which is asked once, at start.
pub const PAGE: usize = 4096;

/// The size of a huge page that takes the place of ordinary ones.
pub const HUGE: usize = 2 << 20;

/// One above the highest user address that a file offset names. The kernel puts
/// mappings above it only where a program asks for that.
pub const TOP: usize = if cfg!(target_arch = "aarch64") {
    1 << 48
} else {
    1 << 47
};

/// Addresses below this are never exported: the kernel keeps them free.
pub const BOTTOM: usize = 0x10000;

/// Rounds down to a page.
pub const fn page_down(x: usize) -> usize {
    x & !(PAGE - 1)
}

/// Rounds up to a page; the caller has checked that it does not overflow.
pub const fn page_up(x: usize) -> usize {
    (x + PAGE - 1) & !(PAGE - 1)
}

/// The addresses from a start up to an end, which is not one of them. All zero is
/// empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Span {
    start: usize,
    end: usize,
}

impl Span {
    /// None at all.
    pub const EMPTY: Self = Self { start: 0, end: 0 };

    /// `[start, end)`; empty where the end is below the start.
    pub const fn new(start: usize, end: usize) -> Self {
        let end = if end < start { start } else { end };
        Self { start, end }
    }

    /// `len` addresses from `start` on; fewer where there are no more.
    pub const fn of(start: usize, len: usize) -> Self {
        Self {
            start,
            end: start.saturating_add(len),
        }
    }

    /// `len` addresses from `start` on, `None` where one of them would not be below
    /// [`TOP`].
    pub fn below_top(start: usize, len: usize) -> Option<Self> {
        let end = start.checked_add(len).filter(|&end| end <= TOP)?;
        Some(Self { start, end })
    }

    pub const fn start(self) -> usize {
        self.start
    }

    /// One above the last.
    pub const fn end(self) -> usize {
        self.end
    }

    pub const fn len(self) -> usize {
        self.end - self.start
    }

    pub const fn is_empty(self) -> bool {
        self.end == self.start
    }

    /// Whether both ends are those of pages.
    pub const fn is_whole_pages(self) -> bool {
        (self.start | self.end) % PAGE == 0
    }

    pub const fn contains(self, addr: usize) -> bool {
        self.start <= addr && addr < self.end
    }

    /// Those of the addresses that are not below `addr`.
    pub fn from(self, addr: usize) -> Self {
        Self::new(self.start.max(addr), self.end)
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        !self.cut_to(other).is_empty()
    }

    /// What the two have in common.
    pub fn cut_to(self, other: Self) -> Self {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// The smallest range that holds both.
    pub fn around(self, other: Self) -> Self {
        Self::new(self.start.min(other.start), self.end.max(other.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_behave_like_sets_of_addresses() {
        let all = 0..12usize;
        for (a, b, c, d) in [(2, 5, 4, 9), (2, 5, 5, 9), (3, 3, 0, 12), (0, 12, 4, 5)] {
            let (one, two) = (Span::new(a, b), Span::new(c, d));
            let common = |&x: &usize| one.contains(x) && two.contains(x);
            let both = one.cut_to(two);
            assert!(all.clone().all(|x| both.contains(x) == common(&x)));
            assert_eq!(one.overlaps(two), all.clone().any(|x| common(&x)));
            assert_eq!(both.len(), all.clone().filter(common).count());
            assert_eq!(one.around(two), Span::new(a.min(c), b.max(d)));
            let rest = all.clone().filter(|&x| one.contains(x) && x >= c);
            assert!(rest.eq(one.from(c).start()..one.from(c).end()));
        }
        assert!(Span::new(7, 3).is_empty() && Span::EMPTY.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_none_or_shorter() {
        assert_eq!(Span::of(usize::MAX - 1, 8).len(), 1);
        assert_eq!(Span::below_top(usize::MAX - 1, 8), None);
        assert_eq!(Span::below_top(TOP - PAGE, PAGE + 1), None);
        let last = Span::below_top(TOP - PAGE, PAGE).expect("the last page");
        assert!(last.is_whole_pages() && last.end() == TOP);
        assert!(!Span::new(PAGE, PAGE + 1).is_whole_pages());
    }
}
