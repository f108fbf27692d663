// SPDX-License-Identifier: MIT OR Apache-2.0
//! A second adoption of the same file in one process.
//!
//! The address is taken by the first adoption, whose destroy will unmap it,
//! and stock's destroy cannot be told to leave it. The kernel can: a sealed
//! mapping (`mseal`, Linux 6.10) is never unmapped, so both topologies can
//! use it, in any order of destruction, and it stays until the process ends.
//! Sealing also closes the race with a destroy in another thread: either the
//! mapping is still there and now stays, or there is nothing to share.
//!
//! Where the kernel cannot, the second adoption gets a copy of its own
//! ([`super::relocate`]).

use super::adopt::{inspect_at, Source};
use super::hole;
use super::map;
use super::validate::Report;
use core::sync::atomic::{AtomicUsize, Ordering};

/// How many adoptions are remembered; later ones take the place of earlier.
const REMEMBERED: usize = 16;

/// Address and length of mappings that adoptions of ours made. No lock: a
/// torn pair is caught by comparing with the kernel's own list.
static ADOPTED: [[AtomicUsize; 2]; REMEMBERED] =
    [const { [AtomicUsize::new(0), AtomicUsize::new(0)] }; REMEMBERED];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Notes that an adoption mapped this range.
pub fn remember(addr: usize, len: usize) {
    if is_remembered(addr, len) {
        return;
    }
    let slot = &ADOPTED[NEXT.fetch_add(1, Ordering::Relaxed) % REMEMBERED];
    slot[1].store(len, Ordering::Release);
    slot[0].store(addr, Ordering::Release);
}

/// Whether an adoption mapped this range at some time.
pub fn is_remembered(addr: usize, len: usize) -> bool {
    ADOPTED
        .iter()
        .any(|s| s[0].load(Ordering::Acquire) == addr && s[1].load(Ordering::Acquire) == len)
}

/// What is at the address of a file that is to be adopted.
pub enum There {
    /// The same topology, mapped for good.
    Shared(Box<Report>),
    /// The same topology, but it may go at any time.
    Same,
    /// Something else.
    Other,
}

/// Makes the mapping of an earlier adoption one that stays, if it still is
/// there and holds what the file holds now.
pub fn share(source: &Source) -> There {
    let (addr, len) = (source.addr, source.length);
    if !is_whole(addr, len) {
        return There::Other;
    }
    if !holds(source) {
        // An adopted copy may have been changed to the release's liking: then
        // it cannot be told from another file's, and a copy is always right.
        return if source.strict_infos && is_changed_on_adoption(source) {
            There::Same
        } else {
            There::Other
        };
    }
    if !map::make_permanent(addr, len) {
        return There::Same;
    }
    // What was sealed is what was compared, unless it changed in between.
    match inspect_at(addr, len, addr) {
        Ok(report) if is_whole(addr, len) && holds(source) => There::Shared(Box::new(report)),
        _ => There::Other,
    }
}

/// Whether the file is of those that are changed when adopted.
fn is_changed_on_adoption(source: &Source) -> bool {
    super::adopt::copy(source, 0)
        .and_then(|copy| super::adopt::inspect(&copy, source.addr))
        .is_ok_and(|report| report.empty_infos)
}

/// Whether the bytes at the address are those of the file. Another thread may
/// unmap them meanwhile: so the kernel reads them.
fn holds(source: &Source) -> bool {
    let mut mapped = vec![0; 64 << 10];
    let mut wanted = vec![0; 64 << 10];
    let mut at = 0;
    while at < source.used {
        let n = wanted.len().min(source.used - at);
        let (mapped, wanted) = (&mut mapped[..n], &mut wanted[..n]);
        let have = map::read_at(source.fd, wanted, source.offset + at as i64);
        if have != Ok(n) || !map::read_memory(source.addr + at, mapped) || mapped != wanted {
            return false;
        }
        at += n;
    }
    true
}

/// Whether the range is one mapping, readable and not writable.
fn is_whole(addr: usize, len: usize) -> bool {
    let Ok(maps) = hole::read_maps("self") else {
        return false;
    };
    maps.iter()
        .any(|m| m.start == addr && m.end == addr + len && m.readable && !m.writable)
}
