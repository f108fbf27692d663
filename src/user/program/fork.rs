// SPDX-License-Identifier: MIT OR Apache-2.0
//! Watches a thread of the program through its fork.

#![forbid(unsafe_code)]

use super::Program;
use crate::debug_log;
use crate::user::sys::regs;
use crate::user::sys::trace::{self, Waited};

/// How many other system calls, entries and exits, a thread may make between
/// telling of a fork and the fork, where it does not tell of its end.
const DETOURS: u32 = 1000;

/// The forks that threads have told of, and the one that is watched. All zero: none.
pub struct ForkWatch {
    /// The thread that is watched on its way to the system call; 0: none.
    tid: i32,
    /// Nobody tells of the end of that fork.
    alone: bool,
    /// How many other system calls its thread has made since.
    detours: u32,
    under_way: u32,
}

impl ForkWatch {
    /// The thread that is watched.
    pub fn watched(&self) -> Option<i32> {
        (self.tid != 0).then_some(self.tid)
    }

    /// Whether a thread is in a fork, or may be.
    pub fn are_under_way(&self) -> bool {
        self.under_way > 0
    }

    /// A thread is in a fork, and will tell of its end.
    pub fn begin(&mut self) {
        self.under_way += 1;
    }

    /// A thread of which [`Self::begin`] has told is back.
    pub fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// A thread is watched from here on; `alone`: it will not tell of the end.
    pub fn watch(&mut self, tid: i32, alone: bool) {
        (self.tid, self.alone, self.detours) = (tid, alone, 0);
        self.under_way += u32::from(alone);
    }

    /// Nobody is watched any more.
    pub fn unwatch(&mut self) {
        if core::mem::take(&mut self.alone) {
            self.end();
        }
        self.tid = 0;
    }

    /// The watched thread has made another system call.
    pub fn detour(&mut self) {
        self.detours = self.detours.saturating_add(1);
    }

    /// Whether a signal handler has led the watched thread away for good.
    pub fn is_led_away(&self) -> bool {
        self.alone && self.detours == DETOURS
    }

    /// The task that watched is gone.
    pub fn forget(&mut self) {
        self.tid = 0;
    }
}

impl Program {
    /// Lets the thread through its fork.
    pub fn make_child(&mut self, tid: i32) -> Made {
        if trace::to_syscall(tid, 0).is_err() {
            return Made::Nothing;
        }
        loop {
            match self.wait_soon(tid) {
                Waited::Stopped { event, .. }
                    if event == trace::EVENT_FORK || event == trace::EVENT_CLONE =>
                {
                    let Ok(child) = trace::event_message(tid) else {
                        return Made::Nothing;
                    };
                    let child = child as i32;
                    let stands =
                        matches!(trace::wait_soon(child, || false), Waited::Stopped { .. });
                    if stands {
                        return Made::Child(child);
                    }
                    debug_log!("child {child} of a fork is lost: it does not stop");
                    trace::end(child);
                    return Made::Nothing;
                }
                Waited::Stopped { signal: _, event } if event == trace::EVENT_STOP => {
                    if trace::to_syscall(tid, 0).is_err() {
                        return Made::Nothing;
                    }
                }
                Waited::Syscall if is_to_restart(tid) => return Made::Again,
                // The fork has failed.
                _ => return Made::Nothing,
            }
        }
    }
}

/// What became of a fork that was let through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// A child, which stands.
    Child(i32),
    /// None: a signal waits for the thread, which takes it and comes again.
    Again,
    Nothing,
}

/// Whether the system call at whose exit the thread stands is going to be made
/// anew: the kernel forks nobody while a signal is pending.
fn is_to_restart(tid: i32) -> bool {
    const ERESTARTNOINTR: i64 = 513;
    regs::registers(tid).is_ok_and(|regs| regs.answer() == -ERESTARTNOINTR)
}
