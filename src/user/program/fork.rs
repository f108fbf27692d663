// SPDX-License-Identifier: MIT OR Apache-2.0
//! A thread of the program is watched through its fork.

#![forbid(unsafe_code)]

use super::Program;
use crate::debug_log;
use crate::user::sys::regs;
use crate::user::sys::trace::{self, Waited};

/// What the watch of a forking thread is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ForkPhase {
    None = 0,
    /// On its way to the system call.
    Watching,
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
