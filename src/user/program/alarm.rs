// SPDX-License-Identifier: MIT OR Apache-2.0
//! An alarm for a wait that would never end.
//!
//! An exec ends all other threads of its program, and waits until they are
//! gone; one that is traced is gone when its tracer has waited for it. All the
//! while it holds the lock that is needed to trace another one. So whoever
//! traces one thread and asks for the next would wait for the exec, and the
//! exec for him. A signal handler gets him out of that: it waits for the dead.

use crate::user::sys::{procfs, sys, task, Sys};
use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, Ordering};

const SIGNAL: c_int = libc::SIGALRM;

/// Microseconds to the alarm, and between alarms.
const PATIENCE: isize = 20_000;

/// The kernel's own view of a disposition.
#[repr(C)]
struct Action {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

/// Lets the alarm reach the calling thread from now on, the tracer of
/// `program`, in whose process all other threads block every signal.
pub fn prepare(program: i32) -> Sys<()> {
    PROGRAM.store(program, Ordering::Relaxed);
    handle(SIGNAL, wait_for_the_dead)?;
    crate::user::sys::task::unblock_signal(SIGNAL);
    Ok(())
}

/// Gives the calling process a handler, which calls that a signal interrupts go
/// on after.
pub fn handle(signal: c_int, handler: extern "C" fn(c_int)) -> Sys<()> {
    let action = Action {
        handler: handler as usize,
        flags: (libc::SA_RESTART as usize) | restorer::FLAG,
        restorer: restorer::address(),
        mask: crate::user::sys::task::ALL_SIGNALS,
    };
    sys!(libc::SYS_rt_sigaction, signal, &raw const action, 0, 8).map(drop)
}

/// The alarm: set when it is first needed, and off at the end of its life.
#[derive(Default)]
pub struct Alarm {
    is_set: bool,
}

impl Alarm {
    pub fn set(&mut self) {
        if !self.is_set {
            self.is_set = true;
            if crate::testing::rings_at_once() {
                ring(5, 50);
            } else {
                ring(PATIENCE, PATIENCE);
            }
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if self.is_set {
            ring(0, 0);
        }
    }
}

/// Rings after `first` microseconds, and then each `interval`.
fn ring(first: isize, interval: isize) {
    let times = [0, interval, 0, first];
    let _ = sys!(libc::SYS_setitimer, libc::ITIMER_REAL, times.as_ptr(), 0);
}

/// The program: its threads are those that may have to be waited for.
static PROGRAM: AtomicI32 = AtomicI32::new(0);

/// Waits for every traced thread that has ended.
extern "C" fn wait_for_the_dead(_: c_int) {
    let mut path = [0u8; 32];
    let path = procfs::proc_path(&mut path, PROGRAM.load(Ordering::Relaxed), b"/task");
    // A directory of its own: it may have interrupted a look through the other.
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let Ok(tasks) = crate::fd::open(path, flags, 0) else {
        return;
    };
    for tid in procfs::Numbers::from_start(tasks.fd()) {
        if has_ended(tid) {
            let _ = crate::user::sys::trace::wait(tid);
        }
    }
}

/// Whether a traced thread has ended. It is left to be waited for: a tracer is
/// told of stops, too, whatever he asks for, and each of them once. One that
/// was lost here would never be seen again.
fn has_ended(tid: i32) -> bool {
    const ENDED: core::ops::RangeInclusive<i32> = libc::CLD_EXITED..=libc::CLD_DUMPED;
    task::news_of(tid, libc::WEXITED).is_some_and(|news| ENDED.contains(&news))
}

/// Where a handler returns to: on x86-64 the kernel wants to be told.
#[cfg(target_arch = "x86_64")]
mod restorer {
    pub const FLAG: usize = 0x0400_0000;

    core::arch::global_asm!(
        ".balign 16",
        ".type {restorer}, @function",
        // Who unwinds looks one byte before the place that is returned to.
        "nop",
        "{restorer}:",
        "mov eax, {rt_sigreturn}",
        "syscall",
        "ud2",
        ".size {restorer}, . - {restorer}",
        restorer = sym xpmem_alarm_over,
        rt_sigreturn = const libc::SYS_rt_sigreturn,
    );

    extern "C" {
        fn xpmem_alarm_over();
    }

    pub fn address() -> usize {
        xpmem_alarm_over as *const () as usize
    }
}

/// Elsewhere it has a place of its own for that.
#[cfg(not(target_arch = "x86_64"))]
mod restorer {
    pub const FLAG: usize = 0;

    pub fn address() -> usize {
        0
    }
}
