// SPDX-License-Identifier: MIT OR Apache-2.0
//! How services name System V segments to each other.

#![forbid(unsafe_code)]

use super::space::Space;
use super::{mem, sys, Sys, PAGE};
use crate::errno::Errno;

/// `id` of an answer with a file: stores are allowed.
pub const WRITABLE: i64 = 1;
/// The size of its pages, as a power of two, in this many bits; 0: the ordinary one.
pub const PAGE_SHIFT: u32 = 2;
const PAGE_BITS: i64 = 0x3f;
/// `id` of an answer without a file: a System V segment, with its own id above.
pub const SYSV: i64 = 2;
pub const SYSV_SHIFT: u32 = 8;
/// Above that: in which IPC namespace.
pub const IPC_SHIFT: u32 = 40;

/// Tells this process's IPC namespace from others.
pub fn ipc_namespace() -> u64 {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let Ok(fd) = crate::fd::open(c"/proc/self/ns/ipc", flags, 0) else {
        return 0;
    };
    let inode = mem::identity(fd.fd()).map_or(0, |(_, inode, _)| inode);
    inode & (u64::MAX >> IPC_SHIFT)
}

/// How `id` of an answer tells the size of pages.
pub fn page_bits(page: usize) -> i64 {
    if page > PAGE {
        i64::from(page.trailing_zeros()) << PAGE_SHIFT
    } else {
        0
    }
}

/// What it tells.
pub fn page_told(kind: i64) -> Option<usize> {
    match kind >> PAGE_SHIFT & PAGE_BITS {
        0 => Some(PAGE),
        bits => super::hugetlb::sane(1 << bits),
    }
}

/// Maps `len` bytes at `offset` of a System V segment to `to`, over whatever is
/// there. EACCES, EINVAL and others of shmat(2); EINVAL for parts of pages.
pub fn map(
    space: &Space,
    id: i32,
    (offset, len): (usize, usize),
    to: usize,
    write: bool,
) -> Sys<()> {
    let flags = if write { 0 } else { libc::SHM_RDONLY };
    let at = sys!(libc::SYS_shmat, id, 0, flags)?;
    let whole = space.at(at).ok().flatten().filter(|m| m.start == at);
    let Some(whole) = whole else {
        let _ = sys!(libc::SYS_shmdt, at);
        return Err(Errno::EAGAIN);
    };
    let size = whole.end - at;
    let inside = offset.checked_add(len).is_some_and(|end| end <= size);
    if !inside || (offset | len | to) % space.page_size(&whole) != 0 {
        let _ = mem::unmap(at, size);
        return Err(Errno::EINVAL);
    }
    let moved = mem::move_over(at + offset, len, to);
    // What is left of the whole attachment, before and behind.
    if offset > 0 {
        let _ = mem::unmap(at, offset);
    }
    let rest = if moved.is_ok() { offset + len } else { offset };
    if rest < size {
        let _ = mem::unmap(at + rest, size - rest);
    }
    moved
}
