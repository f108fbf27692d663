// SPDX-License-Identifier: MIT OR Apache-2.0
//! The forking thread's side of a fork: it tells the service before, and after.

#![forbid(unsafe_code)]

use crate::debug_log;
use crate::user::arena::command::ANOTHER_FORKS;
use crate::user::arena::{self, Command, Shared};
use crate::user::sys::forking::forks;
use crate::user::sys::{clone, task};
use core::sync::atomic::Ordering;

/// How long a fork waits for another one, in nanoseconds.
const PATIENCE: u64 = 60_000_000_000;

/// Two forks at once wait for each other here: handlers run in the same order in
/// every thread, so who waits holds no lock that the other still needs.
extern "C" fn prepare() {
    if let Some(shared) = arena::existing().filter(|s| s.is_running()) {
        announce(shared, task::gettid(), false);
    }
}

/// Tells the service that a thread is about to fork.
fn announce(shared: &Shared, tid: i32, alone: bool) {
    let command = Command::ForkBegin { tid, alone };
    let patience = task::now() + PATIENCE;
    while shared.call(command) == Ok(ANOTHER_FORKS) {
        if task::now() > patience {
            debug_log!("a fork that was begun does not end: this one is not watched");
            break;
        }
        crate::rawsys::sleep(core::time::Duration::from_micros(200));
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
}

/// Nothing to do: the kernel has wiped the arena.
extern "C" fn child() {}

/// Has fork() call us, from now on.
pub fn install() {
    clone::at_fork(prepare, parent, child);
}
