// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file that a C program passed by its descriptor.
//!
//! Bytes are read and written at an offset, and the file's position is not
//! used. A sandbox may refuse the calls for that which stock does not make:
//! then the file is mapped, as stock maps it, and asked with `lseek`.
//!
//! Not by `nix`, whose functions want descriptors that are known to be open: here
//! they are whatever number a C program passed, and EBADF is an answer.

use crate::error::{Error, Result};
use crate::hwloc::range::map::last_error;
use core::ffi::c_int;
use core::sync::atomic::{fence, Ordering};
use memmap2::{MmapOptions, MmapRaw};
use std::os::fd::RawFd;

/// Whether it is a sandbox that does not allow a call: of a file that is open
/// nearly nothing else answers so.
pub fn is_refused(error: Error) -> bool {
    matches!(
        error,
        Error::Unsupported | Error::Denied | Error::Os(libc::EPERM)
    )
}

/// Repeats a call that reads or writes the rest of `length` bytes until it has
/// done all, or no more; answers how many.
fn in_parts(length: usize, mut call: impl FnMut(usize) -> isize) -> Result<usize> {
    let mut done = 0;
    while done < length {
        match usize::try_from(call(done)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(_) if last_error() == Error::Os(libc::EINTR) => {}
            Err(_) => return Err(last_error()),
        }
    }
    Ok(done)
}

/// Fills `bytes` from a file, without touching the file's position. Answers
/// how many bytes there were.
///
/// # Errors
/// What the file answers.
pub fn read_at(fd: RawFd, bytes: &mut [u8], offset: i64) -> Result<usize> {
    let read = in_parts(bytes.len(), |done| {
        let (rest, at) = (&mut bytes[done..], offset + done as i64);
        // SAFETY: the buffer is as long as said.
        unsafe { libc::pread(fd, rest.as_mut_ptr().cast(), rest.len(), at) }
    });
    match read {
        Err(error) if is_refused(error) => read_mapped(fd, bytes, offset),
        other => other,
    }
}

/// As [`read_at`], through a mapping. What has no blocks is not touched: where
/// the file system is full, that would be a SIGBUS.
#[cold]
#[inline(never)]
fn read_mapped(fd: RawFd, bytes: &mut [u8], offset: i64) -> Result<usize> {
    let start = offset as u64;
    let have = size(fd)?.saturating_sub(start).min(bytes.len() as u64);
    let bytes = &mut bytes[..have as usize];
    bytes.fill(0);
    let mut at = start;
    while let Some((from, to)) = data(fd, at, start + have) {
        let part = &mut bytes[(from - start) as usize..(to - start) as usize];
        let mapped = window(from, part.len()).map_raw_read_only(fd);
        let mapped = mapped.map_err(of_mapping)?;
        // SAFETY: the mapping is as long as the part; others may write to it,
        // and these are bytes.
        unsafe { core::ptr::copy(mapped.as_ptr(), part.as_mut_ptr(), part.len()) };
        at = to;
    }
    Ok(have as usize)
}

fn window(offset: u64, length: usize) -> MmapOptions {
    let mut options = MmapOptions::new();
    options.offset(offset).len(length);
    options
}

fn of_mapping(error: std::io::Error) -> Error {
    Error::from_errno(error.raw_os_error().unwrap_or(libc::EINVAL))
}

/// Writes all of `bytes` into a file, without touching its position.
///
/// # Errors
/// What the file answers; ENOSPC where it takes no more.
pub fn write_at(fd: RawFd, bytes: &[u8], offset: i64) -> Result<()> {
    let written = in_parts(bytes.len(), |done| {
        let (rest, at) = (&bytes[done..], offset + done as i64);
        // SAFETY: the buffer is as long as said.
        unsafe { libc::pwrite(fd, rest.as_ptr().cast(), rest.len(), at) }
    })?;
    match written == bytes.len() {
        true => Ok(()),
        false => Err(Error::Os(libc::ENOSPC)),
    }
}

/// Writes through a mapping, `first` bytes last: `O_APPEND` moves a `pwrite` to
/// the end of the file, whatever its offset.
///
/// # Errors
/// What the file answers: nothing is written then.
pub fn write_mapped(fd: RawFd, bytes: &[u8], offset: i64, first: usize) -> Result<()> {
    allocate(fd, offset, bytes.len())?;
    let mapped = window(offset as u64, bytes.len()).map_raw(fd);
    let mapped: MmapRaw = mapped.map_err(of_mapping)?;
    let put = |part: &[u8], at: usize| {
        // SAFETY: the mapping is as long as the bytes, and nobody else's.
        unsafe {
            let to = mapped.as_mut_ptr().add(at);
            to.copy_from_nonoverlapping(part.as_ptr(), part.len());
        }
    };
    let (head, rest) = bytes.split_at(first);
    put(rest, first);
    fence(Ordering::SeqCst);
    put(head, 0);
    Ok(())
}

/// Has the file take its blocks before it is written to in a mapping: there, one
/// that cannot be had is a SIGBUS. Not every file system can do it, nor may every
/// program ask: stock does not.
fn allocate(fd: RawFd, offset: i64, length: usize) -> Result<()> {
    // SAFETY: numbers only.
    if unsafe { libc::fallocate(fd, 0, offset, length as i64) } == 0 {
        return Ok(());
    }
    match last_error() {
        Error::Os(libc::EOPNOTSUPP) => Ok(()),
        error if is_refused(error) => Ok(()),
        error => Err(error),
    }
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
///
/// # Errors
/// What the file answers.
pub fn size(fd: RawFd) -> Result<u64> {
    Ok(extent(fd)?.0)
}

/// Size of a file in bytes, and how many of them it has blocks for: none where
/// that cannot be told.
///
/// # Errors
/// What the file answers.
pub fn extent(fd: RawFd) -> Result<(u64, u64)> {
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    match status(fd) {
        Ok(stat) => Ok((number(stat.st_size), number(stat.st_blocks) * 512)),
        Err(error) if is_refused(error) => Ok((Position::of(fd)?.seek(0, libc::SEEK_END)?, 0)),
        Err(error) => Err(error),
    }
}

/// Whether a file is one, as far as can be told, and no device.
pub fn is_regular(fd: RawFd) -> bool {
    status(fd).map_or(true, |stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG)
}

/// Sets a file's size.
///
/// # Errors
/// What the file answers.
pub fn resize(fd: RawFd, size: u64) -> Result<()> {
    let size = i64::try_from(size).map_err(|_| Error::Invalid)?;
    // SAFETY: two numbers.
    if unsafe { libc::ftruncate(fd, size) } != 0 {
        return Err(last_error());
    }
    Ok(())
}

/// Whether what is written goes to the file's end, or may: where a program may
/// not ask, nobody knows.
///
/// # Errors
/// EBADF if it is not open for writing, EACCES if only for that.
pub fn appends(fd: RawFd) -> Result<bool> {
    // SAFETY: two numbers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        let error = last_error();
        return if is_refused(error) {
            writable(fd).map(|()| true)
        } else {
            Err(error)
        };
    }
    match flags & libc::O_ACCMODE {
        libc::O_RDWR => Ok(flags & libc::O_APPEND != 0),
        libc::O_WRONLY => Err(Error::Denied),
        _ => Err(Error::Os(libc::EBADF)),
    }
}

/// Fails as writing does, and writes nothing.
fn writable(fd: RawFd) -> Result<()> {
    let nothing = [0u8; 0];
    // SAFETY: no byte is read.
    if unsafe { libc::write(fd, nothing.as_ptr().cast(), 0) } < 0 {
        return Err(last_error());
    }
    Ok(())
}

/// A file's position, which is put back with the value.
struct Position {
    fd: RawFd,
    at: u64,
}

impl Position {
    fn of(fd: RawFd) -> Result<Self> {
        let mut position = Position { fd, at: 0 };
        position.at = position.seek(0, libc::SEEK_CUR)?;
        Ok(position)
    }

    fn seek(&self, to: u64, whence: c_int) -> Result<u64> {
        let to = i64::try_from(to).map_err(|_| Error::Invalid)?;
        // SAFETY: numbers.
        let at = unsafe { libc::lseek(self.fd, to, whence) };
        u64::try_from(at).map_err(|_| last_error())
    }
}

impl Drop for Position {
    fn drop(&mut self) {
        let _ = self.seek(self.at, libc::SEEK_SET);
    }
}

/// Fails as `lseek` does on what has no position.
///
/// # Errors
/// ESPIPE, EBADF.
pub fn seekable(fd: RawFd) -> Result<()> {
    Position::of(fd).map(core::mem::forget)
}

/// The next part of a file, from `from` to no more than `end`, that is not a
/// hole; all of it where that cannot be told.
#[inline(never)]
pub fn data(fd: RawFd, from: u64, end: u64) -> Option<(u64, u64)> {
    if from >= end {
        return None;
    }
    let Ok(position) = Position::of(fd) else {
        return Some((from, end));
    };
    match position.seek(from, libc::SEEK_DATA) {
        Ok(start) if start >= end => None,
        Ok(start) => {
            let stop = position.seek(start, libc::SEEK_HOLE).unwrap_or(end);
            Some((start, stop.min(end)))
        }
        Err(Error::Os(libc::ENXIO)) => None,
        Err(_) => Some((from, end)),
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
