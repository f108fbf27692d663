// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address ranges of this process: the system calls, and nothing else.
//!
//! Not by `memmap2`, which has no mapping at a given address and none without
//! access. Where any address will do, it serves: [`crate::hwloc::range::file`].

use crate::error::{Error, Result};
use crate::hwloc::range::reserved;
use core::ffi::c_void;
use core::mem::size_of;
use std::os::fd::RawFd;

/// The errno of the last failed call.
pub fn last_error() -> Error {
    let errno = std::io::Error::last_os_error().raw_os_error();
    Error::from_errno(errno.unwrap_or(libc::EINVAL))
}

/// Page size of the machine, in bytes.
pub fn page_size() -> usize {
    // SAFETY: takes a constant, answers a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// A mapping that goes with its value unless it is kept.
#[derive(Debug)]
pub struct Mapping {
    addr: usize,
    len: usize,
    /// It stands in a range that was reserved: that stays when it goes.
    reserved: bool,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let at = self.addr as *mut c_void;
        if self.reserved && reserved::note(self.addr, self.len).is_ok() {
            let flags =
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
            // SAFETY: replaces a mapping of this module's own.
            unsafe { libc::mmap(at, self.len, libc::PROT_NONE, flags, -1, 0) };
            return;
        }
        // SAFETY: made by this module and not handed out.
        unsafe { libc::munmap(at, self.len) };
    }
}

impl Mapping {
    /// Takes over a range that a reservation mapped.
    pub fn adopt_range(addr: usize, len: usize) -> Self {
        Mapping {
            addr,
            len,
            reserved: false,
        }
    }

    pub fn addr(&self) -> usize {
        self.addr
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Leaves the range mapped, for somebody else to unmap.
    pub fn keep(self) {
        core::mem::forget(self);
    }

    /// The bytes of a mapping made with [`Place::Anonymous`] or [`Place::Inherited`].
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: private memory of this value, writable until `seal`.
        unsafe { core::slice::from_raw_parts_mut(self.addr as *mut u8, self.len) }
    }

    /// As [`Mapping::bytes_mut`], to read.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: as there.
        unsafe { core::slice::from_raw_parts(self.addr as *const u8, self.len) }
    }

    /// Has the kernel make the first `len` bytes of [`Place::Anonymous`] in one
    /// go, instead of page by page as they are written. A hint.
    pub fn populate(&self, len: usize) {
        let len = len.min(self.len);
        // SAFETY: writable private memory of this value; a kernel that does
        // not know it (before Linux 5.14) does nothing.
        unsafe { libc::madvise(self.addr as *mut c_void, len, libc::MADV_POPULATE_WRITE) };
    }

    /// Makes the range read-only, unless that is refused: it is private memory, and
    /// who may not protect it can use it all the same.
    pub fn seal(&self) {
        // SAFETY: a range of our own; nobody writes to it any more.
        unsafe { libc::mprotect(self.addr as *mut c_void, self.len, libc::PROT_READ) };
    }
}

/// What to map.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Nothing accessible: only the addresses are taken.
    Reserved,
    /// Zeroed private memory, writable.
    Anonymous,
    /// The same, but that a child of the program has it too: a limit on data does
    /// not count it.
    Inherited,
    /// A file from an offset on, read-only and shared.
    File(RawFd, i64),
}

/// Maps `len` bytes exactly at `addr`, or anywhere for 0. As stock does, the
/// address is a wish, and what comes elsewhere is given back: the kernel then
/// also leaves the stack the gap below it.
///
/// # Errors
/// [`Error::Busy`] if any page of the range is taken, or may not be mapped;
/// [`Error::NoMemory`] where there is no such room anywhere; else what the
/// system says about the file.
pub fn map(addr: usize, len: usize, place: Place) -> Result<Mapping> {
    let (prot, kind, fd, offset) = match place {
        Place::Reserved => (
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        ),
        Place::Anonymous => (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        ),
        Place::Inherited => (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        ),
        Place::File(fd, offset) => (libc::PROT_READ, libc::MAP_SHARED, fd, offset),
    };
    let held = addr != 0 && !matches!(place, Place::Reserved) && reserved::take(addr, len);
    // The reservation is replaced in one step: nobody gets between.
    let fixed = if held { libc::MAP_FIXED } else { 0 };
    // SAFETY: replaces no mapping but a reservation of ours.
    let got = unsafe { libc::mmap(addr as *mut c_void, len, prot, kind | fixed, fd, offset) };
    if got == libc::MAP_FAILED {
        let error = last_error();
        if held {
            // The reservation is still mapped: write it down again.
            let _ = reserved::note(addr, len);
        }
        return Err(error);
    }
    let mapping = Mapping {
        addr: got as usize,
        len,
        reserved: held,
    };
    if addr == 0 || mapping.addr == addr {
        Ok(mapping)
    } else {
        Err(Error::Busy)
    }
}

/// A huge page, where there are any.
pub const HUGE_PAGE: usize = 2 << 20;

/// As [`Place::Anonymous`], anywhere, in huge pages if the system gives them:
/// for memory that is filled once and given back.
///
/// # Errors
/// As for [`map`].
pub fn map_huge(len: usize) -> Result<Mapping> {
    let len = len.next_multiple_of(HUGE_PAGE);
    let around = map(0, len + HUGE_PAGE, Place::Anonymous)?;
    let (start, end) = (around.addr, around.addr + around.len);
    around.keep();
    let addr = start.next_multiple_of(HUGE_PAGE);
    // SAFETY: both ends are of the mapping just made, and nobody else's; the
    // rest is returned. The last is a hint.
    unsafe {
        if addr > start {
            libc::munmap(start as *mut c_void, addr - start);
        }
        if addr + len < end {
            libc::munmap((addr + len) as *mut c_void, end - addr - len);
        }
        libc::madvise(addr as *mut c_void, len, libc::MADV_HUGEPAGE);
    }
    Ok(Mapping {
        addr,
        len,
        reserved: false,
    })
}

/// Fills `bytes` from memory of this process that may not be there.
///
/// # Errors
/// EFAULT if it is not; EPERM, ENOSYS where a sandbox refuses the call.
pub fn read_memory(addr: usize, bytes: &mut [u8]) -> Result<()> {
    let to = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let from = libc::iovec {
        iov_base: addr as *mut c_void,
        iov_len: bytes.len(),
    };
    // SAFETY: writes into `bytes` alone; a bad address is an error.
    let n = unsafe { libc::process_vm_readv(libc::getpid(), &to, 1, &from, 1, 0) };
    match usize::try_from(n) {
        Ok(n) if n == bytes.len() => Ok(()),
        Ok(_) => Err(Error::Fault),
        Err(_) => Err(last_error()),
    }
}

/// Whether memory of this process that may not be there holds `words`. The kernel
/// compares each as it would for a futex that others are to wait for instead, of
/// whom there are none: slow, but whoever has threads is allowed to ask.
pub fn holds(addr: usize, words: impl IntoIterator<Item = u32>) -> bool {
    /// FUTEX_CMP_REQUEUE, of this process alone.
    const COMPARE: libc::c_int = 4 | 128;
    let mut at = addr;
    words.into_iter().all(|word| {
        // SAFETY: it reads a word of memory if that is there, wakes none and
        // moves none.
        let same = unsafe { libc::syscall(libc::SYS_futex, at, COMPARE, 0, 0usize, at, word) } == 0;
        at += size_of::<u32>();
        same
    })
}
