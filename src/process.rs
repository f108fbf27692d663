// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which process is this? The question that every fork asks anew.
//!
//! A pid does not answer it: the child of a container's init in a new PID
//! namespace has its parent's pid, and a pid costs a system call. A page that
//! the kernel wipes at fork does, whoever forks and however.

use crate::{raw_syscall, rawsys};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// The page with `MADV_WIPEONFORK`, mapped at the first call; null before.
static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

/// The next identity. Ordinary memory, so a child counts on from its parent
/// and never takes a value that an ancestor had.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Size of the mapping behind [`wiped_page`], in bytes. One page of any
/// supported architecture fits.
pub const WIPED_PAGE_SIZE: usize = 65536;

/// A number that differs between a process and every process it was forked
/// from, never 0. It is the same in a vfork child, which shares all memory.
///
/// Lock-free, and without a system call after the first call.
pub fn identity() -> u32 {
    let page = match PAGE.load(Ordering::Acquire) {
        p if p.is_null() => match map_page() {
            Some(p) => p,
            // Out of memory, or a kernel before 4.14: the pid must do.
            None => return rawsys::getpid() as u32,
        },
        p => p,
    };
    // SAFETY: the page is mapped for ever, aligned, and only used as an atomic.
    let word = unsafe { &*page };
    match word.load(Ordering::Relaxed) {
        0 => {
            let fresh = NEXT.fetch_add(1, Ordering::Relaxed);
            match word.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => fresh,
                Err(theirs) => theirs,
            }
        }
        known => known,
    }
}

/// Address of the page that fork wipes, 0 before the first [`identity`]. It
/// must stay private and anonymous: the user back end keeps its hands off it.
pub fn wiped_page() -> usize {
    PAGE.load(Ordering::Acquire) as usize
}

fn map_page() -> Option<*mut AtomicU32> {
    // SAFETY: a new private mapping, nothing replaced.
    let addr = rawsys::check(unsafe {
        raw_syscall!(
            libc::SYS_mmap,
            0,
            WIPED_PAGE_SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1isize,
            0
        )
    })
    .ok()?;
    // SAFETY: advice about the mapping made above.
    let advised = unsafe {
        raw_syscall!(
            libc::SYS_madvise,
            addr,
            WIPED_PAGE_SIZE,
            libc::MADV_WIPEONFORK
        )
    };
    let page = ptr::with_exposed_provenance_mut::<AtomicU32>(addr);
    if advised == 0 {
        match PAGE.compare_exchange(ptr::null_mut(), page, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some(page),
            Err(winner) => {
                unmap_page(addr);
                return Some(winner);
            }
        }
    }
    unmap_page(addr);
    None
}

fn unmap_page(addr: usize) {
    // SAFETY: the mapping of `map_page`, which nobody else has seen.
    unsafe {
        raw_syscall!(libc::SYS_munmap, addr, WIPED_PAGE_SIZE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_somebody_else() {
        let mine = identity();
        assert_eq!(mine, identity());
        // SAFETY: the child makes only async-signal-safe calls and exits.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let child = identity();
            let ok = child != mine && child == identity();
            // SAFETY: ends the child without running the parent's handlers.
            unsafe { libc::_exit(if ok { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert_eq!(status, 0);
        assert_eq!(mine, identity());
    }
}
