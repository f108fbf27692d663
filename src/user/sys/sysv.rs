// SPDX-License-Identifier: MIT OR Apache-2.0
//! System V segments, and how a process names one to another.

#![forbid(unsafe_code)]

use super::space::Space;
use super::{held, mem, sys, Sys};
use crate::errno::Errno;

/// So many bits tell one IPC namespace from another: as many as a peer can be told.
const IPC_BITS: u32 = 24;

/// Tells this process's IPC namespace from others.
pub fn ipc_namespace() -> u64 {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let Ok(fd) = crate::fd::open(c"/proc/self/ns/ipc", flags, 0) else {
        return 0;
    };
    let inode = mem::identity(fd.fd()).map_or(0, |(_, inode, _)| inode);
    inode & ((1 << IPC_BITS) - 1)
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
        let _ = held::unmap(at, size);
        return Err(Errno::EINVAL);
    }
    let moved = held::move_over(at + offset, len, to);
    // What is left of the whole attachment, before and behind.
    if offset > 0 {
        let _ = held::unmap(at, offset);
    }
    let rest = if moved.is_ok() { offset + len } else { offset };
    if rest < size {
        let _ = held::unmap(at + rest, size - rest);
    }
    moved
}
