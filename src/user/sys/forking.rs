// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which system calls make a child that does not share its parent's memory.

#![forbid(unsafe_code)]

use crate::user::sys::mem;

const CLONE3: u64 = 435;

/// Whether a system call may make a child.
pub fn may_fork(number: u64) -> bool {
    #[cfg(target_arch = "x86_64")]
    if number == libc::SYS_fork as u64 {
        return true;
    }
    number == libc::SYS_clone as u64 || number == CLONE3
}

/// Flags of the clone that a system call is, if it is one.
pub fn clone_flags(tid: i32, number: u64, args: &[u64; 6]) -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    if number == libc::SYS_fork as u64 {
        return Some(0);
    }
    if number == libc::SYS_clone as u64 {
        return Some(args[0]);
    }
    if number == CLONE3 {
        let mut flags = [0u8; 8];
        mem::peek_process(tid, args[0] as usize, &mut flags).ok()?;
        return Some(u64::from_le_bytes(flags));
    }
    None
}

/// Whether a system call makes a process with memory of its own, which can be met.
pub fn forks(tid: i32, number: u64, args: &[u64; 6]) -> bool {
    // Of one that is made untraced, or whose parent waits for it, nothing is told.
    const UNMET: i32 = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_UNTRACED;
    clone_flags(tid, number, args).is_some_and(|flags| flags & UNMET as u64 == 0)
}

/// Where the kernel will write the child's tid in the child's memory.
pub fn child_tid_address(tid: i32, number: u64, args: &[u64; 6]) -> Option<usize> {
    let flags = clone_flags(tid, number, args)?;
    if flags & libc::CLONE_CHILD_SETTID as u64 == 0 {
        return None;
    }
    if number == CLONE3 {
        let mut at = [0u8; 8];
        mem::peek_process(tid, args[0] as usize + 16, &mut at).ok()?;
        return Some(u64::from_le_bytes(at) as usize);
    }
    // clone(flags, stack, parent_tid, child_tid, tls), the last two swapped
    // on some.
    Some(args[if cfg!(target_arch = "x86_64") { 3 } else { 4 }] as usize)
}
