// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address ranges of this process: the system calls, and nothing else.
//!
//! Not by `nix`, whose functions want descriptors that are known to be open: here
//! they are whatever number a C program passed, and EBADF is an answer. Nor by
//! `memmap2`, which has no mapping at a given address and none without access.

use crate::error::{Error, Result};
use crate::hwloc::range::reserved;
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
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

    /// The bytes of a mapping made with [`Place::Anonymous`].
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
pub fn read_memory(addr: usize, bytes: &mut [u8]) -> bool {
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
    n == bytes.len() as isize
}

/// Fills `bytes` from a file, without touching the file's position. Answers
/// how many bytes there were.
pub fn read_at(fd: RawFd, bytes: &mut [u8], offset: i64) -> Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &mut bytes[done..];
        // SAFETY: the buffer is as long as said.
        let n = unsafe {
            let at = offset + done as i64;
            libc::pread(fd, rest.as_mut_ptr().cast(), rest.len(), at)
        };
        match usize::try_from(n) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(_) if last_error() == Error::Os(libc::EINTR) => {}
            Err(_) => return Err(last_error()),
        }
    }
    Ok(done)
}

/// Writes all of `bytes` into a file, without touching its position.
pub fn write_at(fd: RawFd, bytes: &[u8], offset: i64) -> Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        // SAFETY: the buffer is as long as said.
        let n = unsafe {
            let at = offset + done as i64;
            libc::pwrite(fd, rest.as_ptr().cast(), rest.len(), at)
        };
        match usize::try_from(n) {
            Ok(0) => return Err(Error::Os(libc::ENOSPC)),
            Ok(n) => done += n,
            Err(_) if last_error() == Error::Os(libc::EINTR) => {}
            Err(_) => return Err(last_error()),
        }
    }
    Ok(())
}

fn status(fd: RawFd) -> Result<libc::stat> {
    // SAFETY: integers, all zero is valid.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: a place for the result.
    if unsafe { libc::fstat(fd, &mut stat) } != 0 {
        return Err(last_error());
    }
    Ok(stat)
}

/// Size of a file in bytes.
pub fn file_size(fd: RawFd) -> Result<u64> {
    Ok(u64::try_from(status(fd)?.st_size).unwrap_or(0))
}

/// Size of a file in bytes, and how many of them it has blocks for.
pub fn file_extent(fd: RawFd) -> Result<(u64, u64)> {
    let stat = status(fd)?;
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    Ok((number(stat.st_size), number(stat.st_blocks) * 512))
}

/// Whether a file is one, and no device.
pub fn is_regular(fd: RawFd) -> Result<bool> {
    Ok(status(fd)?.st_mode & libc::S_IFMT == libc::S_IFREG)
}

/// Sets a file's size.
pub fn resize(fd: RawFd, size: u64) -> Result<()> {
    let size = i64::try_from(size).map_err(|_| Error::Invalid)?;
    // SAFETY: two numbers.
    if unsafe { libc::ftruncate(fd, size) } != 0 {
        return Err(last_error());
    }
    Ok(())
}

/// Status flags of a descriptor (`O_RDWR`, `O_APPEND`...).
pub fn status_flags(fd: RawFd) -> Result<c_int> {
    // SAFETY: two numbers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        return Err(last_error());
    }
    Ok(flags)
}

/// Fails as `lseek` does on what has no position.
pub fn seekable(fd: RawFd) -> Result<()> {
    // SAFETY: numbers; the position stays where it is.
    if unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) } < 0 {
        return Err(last_error());
    }
    Ok(())
}

/// The next part of a file, from `from` to no more than `end`, that is not a
/// hole; all of it where that cannot be told.
#[inline(never)]
pub fn data(fd: RawFd, from: u64, end: u64) -> Option<(u64, u64)> {
    let seek = |at: u64, whence| {
        let at = i64::try_from(at).ok()?;
        // SAFETY: numbers; the position is used by nobody.
        u64::try_from(unsafe { libc::lseek(fd, at, whence) }).ok()
    };
    if from >= end {
        return None;
    }
    match seek(from, libc::SEEK_DATA) {
        Some(start) if start >= end => None,
        Some(start) => {
            let stop = seek(start, libc::SEEK_HOLE).unwrap_or(end);
            Some((start, stop.min(end)))
        }
        None if last_error() == Error::Os(libc::ENXIO) => None,
        None => Some((from, end)),
    }
}

/// Gives the blocks of a range of a file back; the range reads as zeros.
/// Where that is not supported the old bytes stay.
pub fn punch(fd: RawFd, from: u64, to: u64) {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    if let (Ok(at), Ok(len)) = (i64::try_from(from), i64::try_from(to - from)) {
        // SAFETY: numbers only.
        unsafe { libc::fallocate(fd, mode, at, len) };
    }
}

/// Writes through a mapping: `O_APPEND` moves a `pwrite` to the end of the
/// file, whatever its offset. `offset` is a multiple of the page size.
pub fn write_mapped(fd: RawFd, bytes: &[u8], offset: i64) -> Result<()> {
    // Blocks first: a page that cannot be had later is a SIGBUS.
    // SAFETY: numbers only.
    if unsafe { libc::fallocate(fd, 0, offset, bytes.len() as i64) } != 0 {
        return Err(last_error());
    }
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping wherever there is room.
    let at = unsafe { libc::mmap(null_mut(), bytes.len(), prot, libc::MAP_SHARED, fd, offset) };
    if at == libc::MAP_FAILED {
        return Err(last_error());
    }
    // SAFETY: as long as the bytes, and nobody else's.
    unsafe {
        at.cast::<u8>()
            .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        libc::munmap(at, bytes.len());
    }
    Ok(())
}
