// SPDX-License-Identifier: MIT OR Apache-2.0
//! How services name System V segments to each other.

#![forbid(unsafe_code)]

use super::mem;

/// `id` of an answer with a file: stores are allowed.
pub const WRITABLE: i64 = 1;
/// `id` of an answer without a file: a System V segment, with its own id above.
pub const SYSV: i64 = 2;
pub const SYSV_SHIFT: u32 = 8;
/// Above that: in which IPC namespace.
pub const IPC_SHIFT: u32 = 40;

/// Tells this process's IPC namespace from others.
pub fn ipc_namespace() -> u64 {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let Ok(fd) = crate::rawsys::open(c"/proc/self/ns/ipc", flags, 0) else {
        return 0;
    };
    let inode = mem::identity(fd).map_or(0, |(_, inode, _)| inode);
    crate::rawsys::close(fd);
    inode & (u64::MAX >> IPC_SHIFT)
}
