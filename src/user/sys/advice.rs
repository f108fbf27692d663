// SPDX-License-Identifier: MIT OR Apache-2.0
//! Advice of madvise that stays with memory, a bit each.

#![forbid(unsafe_code)]

use super::smaps::Flags;
use super::{held, Sys};

/// Settings of a page, a bit each. None: as any fresh memory.
pub type Bits = u32;

/// `MADV_DONTFORK`: a child has nothing there.
pub const ABSENT: Bits = 1 << 0;
/// `MADV_WIPEONFORK`: a child finds zeros.
pub const WIPED: Bits = 1 << 1;
/// `MADV_HUGEPAGE`.
pub const HUGE: Bits = 1 << 2;
/// `MADV_NOHUGEPAGE`.
pub const NOT_HUGE: Bits = 1 << 3;
const NOT_DUMPED: Bits = 1 << 4;
const SEQUENTIAL: Bits = 1 << 5;
const RANDOM: Bits = 1 << 6;
/// `MADV_MERGEABLE`: only private pages are ever merged.
pub const MERGEABLE: Bits = 1 << 7;

/// What an advice changes: the bits that it sets, and those that it takes away.
/// `None` for advice that is not noted.
pub fn of_advice(advice: i32) -> Option<(Bits, Bits)> {
    Some(match advice {
        libc::MADV_DONTFORK => (ABSENT, 0),
        libc::MADV_DOFORK => (0, ABSENT),
        libc::MADV_WIPEONFORK => (WIPED, 0),
        libc::MADV_KEEPONFORK => (0, WIPED),
        libc::MADV_HUGEPAGE => (HUGE, NOT_HUGE),
        libc::MADV_NOHUGEPAGE => (NOT_HUGE, HUGE),
        libc::MADV_DONTDUMP => (NOT_DUMPED, 0),
        libc::MADV_DODUMP => (0, NOT_DUMPED),
        libc::MADV_SEQUENTIAL => (SEQUENTIAL, RANDOM),
        libc::MADV_RANDOM => (RANDOM, SEQUENTIAL),
        libc::MADV_NORMAL => (0, SEQUENTIAL | RANDOM),
        libc::MADV_MERGEABLE => (MERGEABLE, 0),
        libc::MADV_UNMERGEABLE => (0, MERGEABLE),
        _ => return None,
    })
}

/// Each setting, how the kernel abbreviates it, and the advice that gives it.
const ADVICE: [(Bits, &[u8; 2], i32); 8] = [
    (ABSENT, b"dc", libc::MADV_DONTFORK),
    (WIPED, b"wf", libc::MADV_WIPEONFORK),
    (HUGE, b"hg", libc::MADV_HUGEPAGE),
    (NOT_HUGE, b"nh", libc::MADV_NOHUGEPAGE),
    (NOT_DUMPED, b"dd", libc::MADV_DONTDUMP),
    (SEQUENTIAL, b"sr", libc::MADV_SEQUENTIAL),
    (RANDOM, b"rr", libc::MADV_RANDOM),
    (MERGEABLE, b"mg", libc::MADV_MERGEABLE),
];

/// The advice that gives settings.
pub fn advice_for(bits: Bits) -> impl Iterator<Item = i32> {
    let given = ADVICE.into_iter().filter(move |a| bits & a.0 != 0);
    given.map(|a| a.2)
}

/// Gives private memory settings.
pub fn apply(bits: Bits, addr: usize, len: usize) -> Sys<()> {
    advice_for(bits).try_for_each(|advice| held::advise(addr, len, advice))
}

/// What the flags of a mapping say of it.
pub fn bits_of(flags: &Flags) -> Bits {
    let set = ADVICE.iter().filter(|a| flags.has(a.1));
    set.fold(0, |bits, a| bits | a.0)
}
