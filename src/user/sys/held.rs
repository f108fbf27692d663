// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes of memory that the service holds: what it has mapped itself, and what is
//! the program's, while its threads stand or the one that asked waits.
//!
//! Addresses come from far: from the kernel's list of mappings, from the program's
//! calls, from peers. None of them may lead into the arenas, where the service's state
//! and its stacks are, or into the page that forks wipe, for Rust's references lead there,
//! too. So each call looks, and is EINVAL there. All other memory is bytes to the service, and no reference of its
//! leads into it.

use super::{mem, Span, Sys, PAGE};
use crate::errno::Errno;
use crate::fd::Fd;
use crate::process;
use core::ffi::c_int;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Most ranges that are kept from changes: the arena, and those that it has replaced.
const KEPT: usize = 17;

/// Where they begin; 0: none. They are all of one size.
static STARTS: [AtomicUsize; KEPT] = [const { AtomicUsize::new(0) }; KEPT];
static SIZE: AtomicUsize = AtomicUsize::new(0);

/// From now on nothing here changes `span`, which is as long as those before it. One
/// that has been kept before is kept once.
pub fn keep(span: Span) {
    SIZE.store(span.len(), Ordering::Release);
    for start in &STARTS {
        let (empty, taken) = (Ordering::AcqRel, Ordering::Acquire);
        match start.compare_exchange(0, span.start(), empty, taken) {
            Err(kept) if kept != span.start() => {}
            _ => return,
        }
    }
}

/// EINVAL for memory of the library's own.
fn look(addr: usize, len: usize) -> Sys<()> {
    let size = SIZE.load(Ordering::Acquire);
    let span = Span::of(addr, len);
    let own = |start: &AtomicUsize| {
        let start = start.load(Ordering::Acquire);
        start != 0 && span.overlaps(Span::of(start, size))
    };
    let page = Span::of(process::wiped_page(), process::WIPED_PAGE_SIZE);
    if STARTS.iter().any(own) || span.overlaps(page) {
        Err(Errno::EINVAL)
    } else {
        Ok(())
    }
}

/// mmap(2); with `MAP_FIXED` in `flags` over whatever is there.
pub fn map(addr: usize, len: usize, prot: c_int, flags: c_int, fd: Fd, off: usize) -> Sys<usize> {
    if flags & libc::MAP_FIXED != 0 {
        look(addr, len)?;
    }
    // SAFETY: nothing is there that a reference leads to, or the kernel finds a place
    // where nothing is.
    unsafe { mem::map(addr, len, prot, flags, fd, off) }
}

/// munmap(2).
pub fn unmap(addr: usize, len: usize) -> Sys<()> {
    look(addr, len)?;
    // SAFETY: nothing is there that a reference leads to.
    unsafe { mem::unmap(addr, len) }
}

/// Moves the mapping `[from, from + len)` to `to`, over whatever is there.
pub fn move_over(from: usize, len: usize, to: usize) -> Sys<()> {
    look(from, len)?;
    look(to, len)?;
    // SAFETY: nothing is at either place that a reference leads to.
    unsafe { mem::move_over(from, len, to) }
}

/// As [`mem::imitate`].
pub fn imitate(from: usize, len: usize, to: usize) -> Sys<()> {
    look(from, len)?;
    look(to, len)?;
    // SAFETY: nothing is at either place that a reference leads to.
    unsafe { mem::imitate(from, len, to) }
}

/// mprotect(2).
pub fn protect(addr: usize, len: usize, prot: c_int) -> Sys<()> {
    look(addr, len)?;
    // SAFETY: nothing is there that a reference leads to.
    unsafe { mem::protect(addr, len, prot) }
}

/// madvise(2).
pub fn advise(addr: usize, len: usize, advice: c_int) -> Sys<()> {
    look(addr, len)?;
    // SAFETY: nothing is there that a reference leads to.
    unsafe { mem::advise(addr, len, advice) }
}

/// As [`mem::drop_pages`].
pub fn drop_pages(addr: usize, len: usize) -> Sys<()> {
    look(addr, len)?;
    // SAFETY: nothing is there that a reference leads to.
    unsafe { mem::drop_pages(addr, len) }
}

/// Reads `len` bytes at `off` of the file to address `to`. EFAULT where that cannot be
/// written to.
pub fn read_into(fd: Fd, to: usize, len: usize, off: usize) -> Sys<()> {
    look(to, len)?;
    // SAFETY: nothing is there that a reference leads to.
    unsafe { mem::read_into(fd, to, len, off) }
}

/// Copies one page between two that the caller has mapped or found mapped, the second
/// writable, while no thread of the program runs.
pub fn copy_page(from: usize, to: usize) -> Sys<()> {
    look(to, PAGE)?;
    // SAFETY: who calls it holds both pages of an exchange under a stop, so they are
    // mapped and nobody writes; no reference leads to the second.
    unsafe { mem::copy_page(from, to) };
    Ok(())
}

/// Whether two pages as those of [`copy_page`] hold the same.
pub fn same_page(a: usize, b: usize) -> bool {
    // SAFETY: who calls it holds both pages of an exchange under a stop, so they are
    // mapped and nobody writes.
    unsafe { mem::same_page(a, b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_not_changed() {
        let (rw, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        let at = map(0, 3 * PAGE, rw, kind, Fd::NONE, 0).expect("mmap");
        let other = map(0, PAGE, rw, kind, Fd::NONE, 0).expect("mmap");
        let own = at + PAGE;
        assert_eq!(protect(own, PAGE, libc::PROT_READ), Ok(()));
        // The test's own, of a size of its own: it is the first that is kept here.
        keep(Span::of(own, PAGE));
        keep(Span::of(own, PAGE));
        let no = Errno::EINVAL;
        assert_eq!(unmap(at, 2 * PAGE).err(), Some(no));
        assert_eq!(unmap(own + PAGE - 1, 1).err(), Some(no));
        assert_eq!(protect(own, PAGE, rw).err(), Some(no));
        assert_eq!(advise(at, 3 * PAGE, libc::MADV_DONTNEED).err(), Some(no));
        assert_eq!(drop_pages(own, PAGE).err(), Some(no));
        assert_eq!(move_over(other, PAGE, own).err(), Some(no));
        assert_eq!(move_over(own, PAGE, other).err(), Some(no));
        assert_eq!(imitate(other, PAGE, own).err(), Some(no));
        let fixed = kind | libc::MAP_FIXED;
        assert_eq!(map(own, PAGE, rw, fixed, Fd::NONE, 0).err(), Some(no));
        // A hint is none of it.
        let elsewhere = map(own, PAGE, rw, kind, Fd::NONE, 0).expect("mmap");
        assert_ne!(elsewhere, own);
        for (addr, len) in [
            (at, PAGE),
            (own + PAGE, PAGE),
            (other, PAGE),
            (elsewhere, PAGE),
        ] {
            assert_eq!(unmap(addr, len), Ok(()));
        }
    }
}
