// SPDX-License-Identifier: MIT OR Apache-2.0
//! userfaultfd: structures, features and the ioctls that are used.

#![forbid(unsafe_code)]

use super::{owned, sys, Sys, HUGE};
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use core::ffi::c_int;

const API: u64 = 0xAA;
const USER_MODE_ONLY: c_int = 1;

/// How one is opened.
pub const OPEN_FLAGS: c_int = libc::O_CLOEXEC | libc::O_NONBLOCK | USER_MODE_ONLY;

pub use crate::facilities::{
    EVENT_REMAP as FEATURE_EVENT_REMAP, EVENT_REMOVE as FEATURE_EVENT_REMOVE,
    EVENT_UNMAP as FEATURE_EVENT_UNMAP, MINOR_SHMEM as FEATURE_MINOR_SHMEM,
    MISSING_SHMEM as FEATURE_MISSING_SHMEM, MOVE as FEATURE_MOVE, POISON as FEATURE_POISON,
    THREAD_ID as FEATURE_THREAD_ID, WP_ASYNC as FEATURE_WP_ASYNC,
    WP_HUGETLBFS_SHMEM as FEATURE_WP_HUGETLBFS_SHMEM,
};

pub const MODE_MISSING: u64 = 1;
pub const MODE_WP: u64 = 2;
pub const MODE_MINOR: u64 = 4;

/// Flag of a page fault: a write to a page that is write-protected.
pub const FAULT_WP: u64 = 2;

pub const EVENT_PAGEFAULT: u8 = 0x12;
pub const EVENT_REMAP: u8 = 0x14;
pub const EVENT_REMOVE: u8 = 0x15;
pub const EVENT_UNMAP: u8 = 0x16;

const fn iowr(nr: u64, size: u64) -> u64 {
    (3 << 30) | (size << 16) | (0xAA << 8) | nr
}
const fn ior(nr: u64, size: u64) -> u64 {
    (2 << 30) | (size << 16) | (0xAA << 8) | nr
}

/// One message of a userfaultfd (32 bytes, packed by the kernel's ABI).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Event {
    pub kind: u8,
    _reserved: [u8; 7],
    /// PAGEFAULT: flags; REMAP: from; REMOVE and UNMAP: start.
    pub a: u64,
    /// PAGEFAULT: address; REMAP: to; REMOVE and UNMAP: end.
    pub b: u64,
    /// REMAP: length of the old range; PAGEFAULT: the thread.
    pub c: u64,
}
const _: () = assert!(core::mem::size_of::<Event>() == 32);

/// Opens a userfaultfd with `features`, for faults taken in user mode: that
/// needs no privilege.
pub fn open(features: u64) -> Sys<OwnedFd> {
    let fd = sys!(libc::SYS_userfaultfd, OPEN_FLAGS).map(owned)?;
    begin(fd.fd(), features)?;
    Ok(fd)
}

/// Agrees with the kernel on what a new userfaultfd is used for.
pub fn begin(fd: Fd, features: u64) -> Sys<()> {
    ioctl(fd, iowr(0x3F, 24), &mut [API, features, 0])
}

/// Every feature that this kernel's userfaultfd has.
pub fn features() -> Sys<u64> {
    let fd = sys!(libc::SYS_userfaultfd, OPEN_FLAGS).map(owned)?;
    let mut api = [API, 0, 0];
    ioctl(fd.fd(), iowr(0x3F, 24), &mut api)?;
    Ok(api[1])
}

fn ioctl<const N: usize>(fd: Fd, cmd: u64, arg: &mut [u64; N]) -> Sys<()> {
    sys!(libc::SYS_ioctl, fd, cmd, arg.as_mut_ptr()).map(drop)
}

/// Registers a range for faults or events of the kinds in `mode`.
pub fn register(fd: Fd, start: usize, len: usize, mode: u64) -> Sys<()> {
    ioctl(fd, iowr(0x00, 32), &mut [start as u64, len as u64, mode, 0])
}

/// Takes a range out again: its changes are reported to nobody any more. EINVAL where
/// nothing of it can be registered.
pub fn unregister(fd: Fd, start: usize, len: usize) -> Sys<()> {
    ioctl(fd, ior(0x01, 16), &mut [start as u64, len as u64])
}

/// Takes a mapping out, if it is registered. Where this fails the service must not
/// change the mapping: it would wait for its own event.
///
/// One of a kind that cannot be watched, or that another userfaultfd watches, is
/// none of `fd`'s: as good as taken.
pub fn ensure_unregistered(fd: Fd, start: usize, len: usize) -> Sys<()> {
    match unregister(fd, start, len) {
        Err(Errno::EINVAL) => Ok(()),
        answer => answer,
    }
}

/// What a program asks for to watch memory: the request, and what of its argument
/// tells which.
pub const REGISTER: u64 = iowr(0x00, 32);

/// Whether another userfaultfd than those of the service watches memory that is
/// under no watch of `fd`: it must be left alone, for its watch would be lost.
pub fn is_watched_by_others(fd: Fd, start: usize, len: usize) -> bool {
    match register(fd, start, len, MODE_WP) {
        Ok(()) => {
            let _ = unregister(fd, start, len);
            false
        }
        Err(errno) => errno == Errno::EBUSY,
    }
}

/// Wakes the threads that wait for a page of the range; they fault again.
pub fn wake(fd: Fd, start: usize, len: usize) -> Sys<()> {
    ioctl(fd, ior(0x02, 16), &mut [start as u64, len as u64])
}

/// Write-protects a range, so that writes to it can be told afterwards.
pub fn write_protect(fd: Fd, start: usize, len: usize) -> Sys<()> {
    ioctl(fd, iowr(0x06, 24), &mut [start as u64, len as u64, 1])
}

/// Takes the write protection of a range away, also from pages that are not
/// there, and wakes who waits for it.
pub fn write_unprotect(fd: Fd, start: usize, len: usize) -> Sys<()> {
    ioctl(fd, iowr(0x06, 24), &mut [start as u64, len as u64, 0])
}

const CONTINUE: u64 = iowr(0x07, 32);
const CONTINUE_WP: u64 = 2;

/// Whether [`map_present`] can write-protect (Linux 6.4). `page` is mapped and
/// not registered.
pub fn can_map_protected(fd: Fd, page: usize) -> bool {
    let mut arg = [page as u64, super::PAGE as u64, CONTINUE_WP, 0];
    // The flags are looked at before the range.
    ioctl(fd, CONTINUE, &mut arg) == Err(Errno::ENOENT)
}

/// Maps those pages of a range that the file has and that are not mapped yet,
/// write-protected if `protect`. Answers whether some were mapped before: they
/// stay as they are. EAGAIN where a change of the address space waits for its
/// event to be read: nothing can be mapped before.
pub fn map_present(fd: Fd, start: usize, len: usize, protect: bool) -> Sys<bool> {
    let (mut at, end) = (start, start + len);
    let mut known = false;
    while at < end {
        let mode = if protect { CONTINUE_WP } else { 0 };
        let mut arg = [at as u64, (end - at) as u64, mode, 0];
        let done = ioctl(fd, CONTINUE, &mut arg);
        let mapped = (arg[3] as i64).max(0) as usize;
        at += match done {
            Ok(()) => break,
            Err(Errno::EAGAIN) if mapped > 0 => mapped,
            // There already, or not in the file: on with the next.
            Err(errno @ (Errno::EEXIST | Errno::EFAULT)) => {
                known |= errno == Errno::EEXIST;
                super::PAGE
            }
            Err(errno) => return Err(errno),
        };
    }
    Ok(known)
}

/// As [`map_present`], not protected; as huge pages where that is asked for.
pub fn map_present_huge(fd: Fd, start: usize, len: usize, huge: bool) -> Sys<bool> {
    let (mut at, end) = (start, start + len);
    let mut known = false;
    while at < end {
        let block = at.next_multiple_of(HUGE);
        let whole = huge && block + HUGE <= end;
        let stop = if whole { block } else { end };
        if at < stop {
            known |= map_present(fd, at, stop - at, false)?;
        }
        at = stop;
        if whole {
            if super::mem::collapse(block, HUGE).is_err() {
                known |= map_present(fd, block, HUGE, false)?;
            }
            at += HUGE;
        }
    }
    Ok(known)
}

/// Gives a range of a mapping without pages there, of a file or of none, which is
/// registered here for missing pages, pages with the content of `from`, and maps
/// them: much cheaper than writing to the file and faulting them in.
pub fn copy_pages(fd: Fd, to: usize, from: usize, len: usize) -> Sys<()> {
    let mut done = 0;
    while done < len {
        let (to, from) = (to + done, from + done);
        let mut arg = [to as u64, from as u64, (len - done) as u64, 0, 0];
        let answer = ioctl(fd, iowr(0x03, 40), &mut arg);
        let copied = (arg[4] as i64).max(0) as usize;
        match answer {
            Ok(()) => break,
            Err(_) if copied > 0 => done += copied,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Moves private anonymous pages from one range to another, which has none and
/// is registered here. Answers how many bytes were moved, holes included. EBUSY:
/// the first page is pinned, or not this process's alone. EAGAIN: not just now.
pub fn move_pages(fd: Fd, to: usize, from: usize, len: usize) -> Sys<usize> {
    const ALLOW_HOLES: u64 = 2;
    let mut arg = [to as u64, from as u64, len as u64, ALLOW_HOLES, 0];
    let done = ioctl(fd, iowr(0x05, 40), &mut arg);
    match (done, arg[4] as i64) {
        (Ok(()), _) => Ok(len),
        (Err(_), moved) if moved > 0 => Ok(moved as usize),
        (Err(errno), _) => Err(errno),
    }
}

/// Makes the next touch of a range a SIGBUS, and wakes who waits for it.
pub fn poison(fd: Fd, start: usize, len: usize) -> Sys<()> {
    ioctl(fd, iowr(0x08, 32), &mut [start as u64, len as u64, 0, 0])
}

/// The next message, or EAGAIN. Reading one that is not a page fault lets the
/// thread that caused it go on.
pub fn read(fd: Fd) -> Sys<Event> {
    let mut event = Event::default();
    match sys!(libc::SYS_read, fd, &raw mut event, 32)? {
        32 => Ok(event),
        _ => Err(Errno::EIO),
    }
}
