// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tasks on the memory of the one that starts them, and what fork calls.

use super::task::{set_signal_mask, ALL_SIGNALS};
use super::Sys;
use core::ffi::c_int;
use core::sync::atomic::AtomicU32;

/// Starts a task on the caller's memory and descriptors, but in a process of
/// its own: it may trace the caller's threads. No signal tells of its end, but
/// the kernel sets `life` to 0 then, as a waker of that futex.
/// Answers its pid.
///
/// The new task calls `entry(argument)` on the given stack and must not return.
pub fn spawn_on_same_memory(
    stack_top: usize,
    entry: extern "C" fn(usize) -> !,
    argument: usize,
    life: &AtomicU32,
) -> Sys<i32> {
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_CHILD_CLEARTID;
    let life = life.as_ptr().expose_provenance();
    spawn(flags, stack_top, life, entry, argument)
}

/// As [`spawn_on_same_memory`], but a thread of the caller's process, with every
/// signal blocked: it ends with it. It has no thread-local storage of its own,
/// and libc does not know of it: a program whose last thread ends is at its end.
pub fn spawn_sibling(
    stack_top: usize,
    entry: extern "C" fn(usize) -> !,
    argument: usize,
) -> Sys<i32> {
    let process = libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_SYSVSEM;
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_FS | process;
    let old = set_signal_mask(ALL_SIGNALS);
    let thread = spawn(flags, stack_top, 0, entry, argument);
    set_signal_mask(old);
    thread
}

fn spawn(
    flags: c_int,
    stack_top: usize,
    life: usize,
    entry: extern "C" fn(usize) -> !,
    argument: usize,
) -> Sys<i32> {
    let ret: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the child runs on a stack of its own that nobody else uses, in a
    // function that never returns; the parent's registers are as the kernel's
    // convention leaves them. No TLS is set: the child uses none.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone as isize => ret,
            in("rdi") flags,
            in("rsi") stack_top,
            in("rdx") 0,
            in("r10") life,
            in("r8") 0,
            in("r12") argument,
            in("r13") entry as usize,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone,
            inlateout("x0") flags as isize => ret,
            in("x1") stack_top,
            in("x2") 0,
            in("x3") 0,
            in("x4") life,
            in("x20") argument,
            in("x21") entry as usize,
        );
    }
    crate::rawsys::check(ret).map(|pid| pid as i32)
}

/// Registers what fork() calls around itself, for the life of the process.
pub fn at_fork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) {
    // SAFETY: three functions that live for ever, since the library is never
    // unloaded.
    unsafe {
        let prepare: unsafe extern "C" fn() = prepare;
        let parent: unsafe extern "C" fn() = parent;
        let child: unsafe extern "C" fn() = child;
        libc::pthread_atfork(Some(prepare), Some(parent), Some(child));
    }
}

/// What tells the calling thread of the program from others, in a fork child, too.
pub fn this_thread() -> usize {
    // SAFETY: it has no preconditions.
    unsafe { libc::pthread_self() as usize }
}
