// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls of the service that fail for a test (feature `fault-injection`).
//!
//! `XPMEM_TEST_FAULTS` names a file of [`Words`] that the test has mapped, too.
//! While it is armed each call of the service task is counted, and the one whose
//! number the test has written there is not made and answers the errno that
//! stands beside it; 0 is none, and kills the service there. So a test fails each
//! call of an operation in turn, and the count tells it where to end.

use super::{Span, Sys};
use crate::errno::Errno;
use crate::fd;
use core::ffi::{c_int, c_long, CStr};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// What the test and the service share.
#[repr(C)]
struct Words {
    /// 1: calls count.
    armed: AtomicU32,
    /// The call that fails, counted from 1; 0: none.
    fail: AtomicU32,
    errno: AtomicU32,
    /// Calls so far.
    count: AtomicU32,
    /// The call that has failed: its number and its second argument, which says
    /// of an ioctl and of ptrace what it is.
    number: AtomicU32,
    detail: AtomicU32,
}

/// No errno: the service is killed.
const KILL: Errno = Errno::new(0);

/// Where the words are mapped; 0: nobody asks for failures.
static WORDS: AtomicUsize = AtomicUsize::new(0);

/// Where the stacks of the service's tasks are.
static TASKS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Maps the words, where `path` names some. At the start of the service, whose
/// tasks have their stacks in `tasks`.
pub fn prepare(path: Option<&CStr>, tasks: Span) {
    WORDS.store(0, Ordering::Relaxed);
    let Some(path) = path else {
        return;
    };
    TASKS[0].store(tasks.start(), Ordering::Relaxed);
    TASKS[1].store(tasks.end(), Ordering::Relaxed);
    let _ = fd::MEET.set(meet);
    let Ok(file) = fd::open(path, libc::O_RDWR | libc::O_CLOEXEC, 0) else {
        return;
    };
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    if let Ok(addr) = super::held::map(0, super::PAGE, prot, libc::MAP_SHARED, file.fd(), 0) {
        WORDS.store(addr, Ordering::Release);
    }
}

/// Whether this call is to fail.
pub fn meet(number: c_long, args: &[usize; 6]) -> Sys<()> {
    let addr = WORDS.load(Ordering::Acquire);
    if addr == 0 || never_fails(number) || !in_service() {
        return Ok(());
    }
    // SAFETY: the mapping is for ever, of a file of at least a page, and atomics of
    // any value are valid.
    let words = unsafe { &*core::ptr::with_exposed_provenance::<Words>(addr) };
    if words.armed.load(Ordering::Acquire) == 0 {
        return Ok(());
    }
    if words.count.fetch_add(1, Ordering::Relaxed) + 1 != words.fail.load(Ordering::Relaxed) {
        return Ok(());
    }
    let errno = Errno::new(words.errno.load(Ordering::Relaxed) as c_int);
    if !can_answer(number, errno) {
        return Ok(());
    }
    words.number.store(number as u32, Ordering::Relaxed);
    let detail = if number == libc::SYS_ptrace {
        args[0]
    } else {
        args[1]
    };
    words.detail.store(detail as u32, Ordering::Relaxed);
    if errno == KILL {
        loop {
            let own = super::task::own_pid();
            let _ = super::task::signal_task(own, own, libc::SIGKILL);
        }
    }
    Err(errno)
}

/// Bells, and what the kernel refuses to nobody who may call it at all.
fn never_fails(number: c_long) -> bool {
    matches!(
        number,
        libc::SYS_futex
            | libc::SYS_nanosleep
            | libc::SYS_clock_gettime
            | libc::SYS_getpid
            | libc::SYS_gettid
            | libc::SYS_getppid
            | libc::SYS_close
            | libc::SYS_exit
            | libc::SYS_exit_group
            | libc::SYS_write
    )
}

/// A message that could be sent and read before is refused for want of memory alone.
fn can_answer(number: c_long, errno: Errno) -> bool {
    let is_message = number == libc::SYS_sendmsg || number == libc::SYS_recvmsg;
    !is_message || matches!(errno, KILL | Errno::ENOMEM | Errno::EAGAIN)
}

/// Whether this is a task of the service: it has a stack in the arena.
fn in_service() -> bool {
    let here = 0u8;
    let at = (&raw const here).addr();
    at >= TASKS[0].load(Ordering::Relaxed) && at < TASKS[1].load(Ordering::Relaxed)
}
