// SPDX-License-Identifier: MIT OR Apache-2.0
//! The forking thread's side of a fork: it tells the service before, and after.
//!
//! Between the two the service shares nothing, since the thread may hold any lock. A
//! handler of a signal that touches attached memory there would wait for the end of the
//! fork that it has interrupted. So signals wait instead, as they do in libc's own part.

#![forbid(unsafe_code)]

use crate::debug_log;
use crate::user::arena::command::ANOTHER_FORKS;
use crate::user::arena::{self, Command, Shared};
use crate::user::sys::forking::forks;
use crate::user::sys::{clone, task};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Microseconds between two looks whether another fork is over, and how many there are: a
/// minute of them.
const NAP: u64 = 200;
const NAPS: u64 = 60_000_000 / NAP;

/// Two forks at once wait for each other here: handlers run in the same order in
/// every thread, so who waits holds no lock that the other still needs.
extern "C" fn prepare() {
    if let Some(shared) = arena::existing().filter(|s| s.is_running()) {
        announce(shared, task::gettid(), false);
    }
}

/// Signals that a fork puts off: all but those that a thread's own instructions raise.
const PUT_OFF: u64 = {
    let own = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGSYS,
    ];
    let (mut mask, mut i) = (u64::MAX, 0);
    while i < own.len() {
        mask &= !(1 << (own[i] - 1));
        i += 1;
    }
    mask
};

/// The signal masks of threads in fork(). They are ordinary memory, since a child finds
/// its own here.
static MASKS: [Saved; 64] = [const {
    Saved {
        thread: AtomicUsize::new(0),
        mask: AtomicU64::new(0),
    }
}; 64];

struct Saved {
    /// What tells a thread from others, in its child, too; 0: none.
    thread: AtomicUsize,
    mask: AtomicU64,
}

/// The calling thread takes no signal from here on, if there is a place for its mask.
fn put_off_signals() {
    let me = clone::this_thread();
    let free = MASKS.iter().find(|saved| {
        let (taken, not) = (Ordering::AcqRel, Ordering::Relaxed);
        let thread = &saved.thread;
        thread.compare_exchange(0, me, taken, not).is_ok()
    });
    if let Some(saved) = free {
        let mask = task::block_signals(PUT_OFF);
        saved.mask.store(mask, Ordering::Relaxed);
    }
}

/// The calling thread takes signals again as it did before.
fn take_signals() {
    let me = clone::this_thread();
    let mine = |saved: &&Saved| saved.thread.load(Ordering::Relaxed) == me;
    if let Some(saved) = MASKS.iter().find(mine) {
        let mask = saved.mask.load(Ordering::Relaxed);
        saved.thread.store(0, Ordering::Release);
        task::set_signal_mask(mask);
    }
}

/// Tells the service that a thread is about to fork.
fn announce(shared: &Shared, tid: i32, alone: bool) {
    let command = Command::ForkBegin { tid, alone };
    // Counted, and no clock is read: the program may be allowed no such call.
    for left in (0..NAPS).rev() {
        if !alone {
            put_off_signals();
        }
        if shared.call(command) != Ok(ANOTHER_FORKS) {
            break;
        }
        // Another fork may last: signals do not wait for that.
        take_signals();
        if left == 0 {
            debug_log!("a fork that was begun does not end: this one is not watched");
        }
        crate::rawsys::sleep(core::time::Duration::from_micros(NAP));
    }
}

/// A thread is about to make such a call, in libc's `_Fork`, `clone` or `syscall`.
/// libc's fork has told of it already.
pub fn before_call(number: u64, args: [u64; 6]) {
    let Some(shared) = arena::existing().filter(|s| s.is_running()) else {
        return;
    };
    if shared.promoted.is_empty() || !forks(crate::rawsys::getpid(), number, &args) {
        return;
    }
    let tid = task::gettid();
    if shared.forking.load(Ordering::Acquire) as i32 != tid {
        announce(shared, tid, true);
    }
}

extern "C" fn parent() {
    if let Some(shared) = arena::existing().filter(|s| s.is_running()) {
        let _ = shared.call(Command::ForkEnd {});
    }
    take_signals();
}

/// The kernel has wiped the arena. The masks of other threads are of no use.
extern "C" fn child() {
    let me = clone::this_thread();
    for saved in &MASKS {
        if saved.thread.load(Ordering::Relaxed) != me {
            saved.thread.store(0, Ordering::Relaxed);
        }
    }
    take_signals();
}

/// Has fork() call us, from now on.
pub fn install() {
    clone::at_fork(prepare, parent, child);
}
