// SPDX-License-Identifier: MIT OR Apache-2.0
//! The anchor: a thread of the program that holds the service.
//!
//! - The kernel tells the service when this thread is gone, which is when the
//!   program ends or becomes another by exec.
//! - It passes the bell on. The program's threads ring it as a futex, since that
//!   needs no permission; the service sleeps on descriptors. Only who has just found
//!   that it may signal the service does that, which saves a thread's turn.
//! - It watches over the service: whoever waits for an answer waits only as long
//!   as the service moves.
//!
//! It is a thread that libc does not know of: a program whose last thread ends
//! is at its end, and no change of credentials waits for it. Its descriptors are
//! its own and the service's: the program has none of them, and can close none.

#![forbid(unsafe_code)]

use super::{others, rites};
use crate::debug_log;
use crate::fd::{Fd, OwnedFd};
use crate::rawsys;
use crate::user::arena::{self, mapping, status, Shared};
use crate::user::sys::{clone, task};
use core::sync::atomic::Ordering;

/// Milliseconds between two looks at the service.
const PERIOD: u64 = 500;

/// After so many looks without a sign of life a service that is stopped is
/// taken for gone.
const STOPPED: u32 = 4;

/// After so many, one that is not: it gets no processor, or hangs.
const STUCK: u32 = 60;

/// After so many nanoseconds a service that has been killed is not waited for
/// any more.
const LONGEST: u64 = 10_000_000_000;

/// How often what a service has left is ended: who has killed that may kill the
/// task that follows it, too.
const RITES: u32 = 8;

/// Entry of the anchor thread.
pub extern "C" fn main(_argument: usize) -> ! {
    if let Some(shared) = arena::existing() {
        let (tid, before) = others::begin();
        shared.anchor_tid.store(tid, Ordering::Release);
        crate::debug::note_helpers(0, tid);
        if let Some(counter) = prepare() {
            shared
                .bell_counter
                .store(counter.number(), Ordering::Release);
            await_end_of(before as i32);
            attend(shared, super::boot::main);
            for _ in 0..RITES {
                if !needs_rites(shared) {
                    break;
                }
                debug_log!("the service is gone: what it has shared is taken back");
                attend(shared, rites::main);
            }
        }
        others::end();
        shared.end();
        if crate::testing::ends_slowly() {
            rawsys::sleep(core::time::Duration::from_millis(100));
        }
    }
    task::exit_thread()
}

/// The thread that held the service before this one has said that it has ended, and is
/// gone a moment later. It may have rights that the new service may not trace.
fn await_end_of(before: i32) {
    const NAPS: u32 = 10_000;
    for _ in 0..NAPS {
        // In a child of a fork it is none of this process's.
        if before == 0 || !others::is_thread(before) {
            return;
        }
        rawsys::sleep(core::time::Duration::from_millis(1));
    }
}

/// Descriptors of its own, and the first that is needed.
fn prepare() -> Option<Fd> {
    task::own_descriptors().ok()?;
    keep_only_standard_error();
    task::counter().ok().map(OwnedFd::keep)
}

/// Whether a service that served has ended without giving back what it had.
fn needs_rites(shared: &Shared) -> bool {
    let served = matches!(
        shared.status.load(Ordering::Acquire),
        status::RUNNING | status::ENDING
    );
    served && shared.settled.load(Ordering::Acquire) == 0
}

/// Starts a task beside the program and stays as long as it does.
fn attend(shared: &Shared, entry: extern "C" fn(usize) -> !) {
    shared.traceable.store(0, Ordering::Release);
    shared.bell.store(1, Ordering::Release);
    let stack = mapping::stack_top();
    match clone::spawn_on_same_memory(stack, entry, 0, &shared.bell) {
        Ok(pid) => {
            shared.service_pid.store(pid as u32, Ordering::Release);
            let tid = shared.anchor_tid.load(Ordering::Relaxed);
            crate::debug::note_helpers(pid as u32, tid);
            let inspects = u32::from(shared.may_inspect());
            shared.inspects.store(inspects, Ordering::Release);
            task::allow_tracer(pid);
            shared.traceable.store(1, Ordering::Release);
            task::futex_wake(&shared.traceable);
            if !pass_on(shared, pid) {
                debug_log!("the service does not move: it is ended");
                let _ = task::signal_task(pid, pid, libc::SIGKILL);
            }
            bury(shared, pid);
            shared.service_pid.store(0, Ordering::Release);
        }
        Err(errno) => debug_log!("the service cannot be started: errno {errno}"),
    }
}

/// Passes the bell on until the service has ended, or is taken for gone: then
/// the answer is false.
fn pass_on(shared: &Shared, service: i32) -> bool {
    let counter = Fd::new(shared.bell_counter.load(Ordering::Acquire));
    let mut seen = 1;
    let mut beat = task::BEAT.load(Ordering::Relaxed);
    let mut still = 0;
    loop {
        let rung = shared.bell.load(Ordering::Acquire);
        if rung & 1 == 0 {
            return true;
        }
        if rung != seen {
            seen = rung;
            task::count_up(counter);
            continue;
        }
        if !task::futex_wait(&shared.bell, rung, PERIOD) {
            continue;
        }
        let now = task::BEAT.load(Ordering::Relaxed);
        still = if now == beat { still + 1 } else { 0 };
        beat = now;
        let stands = still >= STOPPED && task::is_stopped(service);
        if stands || still >= STUCK {
            return false;
        }
    }
}

/// Waits for the end of a service that is ending, and sees to it that no trace
/// of it is left.
fn bury(shared: &Shared, service: i32) {
    let patience = task::now() + LONGEST;
    while !task::reap(service) && task::now() < patience {
        // Without a ring: the kernel says when it is gone.
        let rung = shared.bell.load(Ordering::Acquire);
        task::futex_wait(&shared.bell, rung, if rung & 1 == 0 { 1 } else { 50 });
    }
}

/// Nothing of the program's stays open here. The first three numbers are kept
/// taken, so that no descriptor of ours is ever mistaken for standard error; the
/// log is the third of them, whatever it is.
fn keep_only_standard_error() {
    task::close_range(3, u32::MAX);
    if let Some(log) = crate::debug::log_file() {
        if log.number() == 2 {
            log.keep();
        } else {
            task::duplicate_to(log.fd(), 2);
        }
    }
    if let Ok(null) = crate::fd::open(c"/dev/null", libc::O_RDWR, 0) {
        let standard = if crate::debug::enabled() { 2 } else { 3 };
        for number in 0..standard {
            if number != null.number() {
                task::duplicate_to(null.fd(), number);
            }
        }
        if null.number() < standard {
            null.keep();
        }
    }
}
