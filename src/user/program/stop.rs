// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stopping all threads of the program, and letting them go.
//!
//! Between [`stop()`] and [`Program::resume`] no thread of the program
//! runs in user mode, none is inside a system call that can write to its
//! memory, and no event of its address space is left unread. The anchor thread
//! is not stopped: it sleeps in a wait and touches nothing. Neither waits for a
//! peer. Stops nest through [`Owner::stop`](crate::user::owner::Owner::stop) alone.

#![forbid(unsafe_code)]

use super::threads::Standing;
pub use super::threads::Unstoppable;
use super::Program;
use crate::user::sys::task;

/// How long a stop may take before it is given up and tried again later.
const PATIENCE: u64 = 20_000_000;

/// How long a thread that is to stop is waited for at a time, in microseconds.
const LONG_NAP: u64 = 500;
/// Pause between two looks after an event: the next one may come at once, without a wake-up.
const SHORT_NAP: u64 = 4;

/// Pauses, in nanoseconds, between stops that are tried again for a peer: all
/// other threads stand while the one that sleeps is waited for, and it may
/// sleep for long.
const FIRST_PAUSE: u64 = 1_000_000;
const LAST_PAUSE: u64 = 200 * FIRST_PAUSE;

/// When a stop that failed may be tried again.
#[derive(Clone, Copy)]
pub struct Pause {
    until: u64,
    length: u64,
}

impl Pause {
    /// A stop has failed: the next pause is twice as long.
    pub fn begin(&mut self) {
        self.length = (self.length * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
        self.until = task::now() + self.length;
    }

    /// A stop has been successful.
    pub fn end(&mut self) {
        *self = Pause {
            until: 0,
            length: 0,
        };
    }

    /// What is left of it, in milliseconds.
    pub fn left(&self) -> u64 {
        if self.until == 0 {
            return 0;
        }
        self.until.saturating_sub(task::now()).div_ceil(1_000_000)
    }
}

/// Time limit of a stop in which an event has been read: whoever dropped or moved
/// memory must not run on before that is put right, or what it writes next is
/// taken for the old content.
pub const LAST_PATIENCE: u64 = 10_000_000_000;

/// A queue of the kernel whose callers sleep until their event is read, so that a
/// stop has to read it; and the program that is stopped.
pub trait Events {
    fn program(&mut self) -> &mut Program;
    /// Reads one event. Its caller goes on, and must stand before it comes back to
    /// user mode.
    fn take(&mut self);
    /// Whether something has been read that must be put right before anybody runs on.
    fn is_urgent(&self) -> bool;
}

/// Stops all threads of the program, and reads what they wait for. Where that fails
/// those that have stopped still stand.
pub fn stop(events: &mut impl Events) -> Result<Standing, Unstoppable> {
    let began = task::now();
    let changes = events.program().changes();
    events.program().threads.begin(began);
    // When something last happened, and how many microseconds to wait for
    // more: one call can bring an event for each of many mappings.
    let (mut stirred, mut nap) = (began, LONG_NAP);
    loop {
        let mut fresh = events.program().seize_new_threads()?;
        loop {
            let running = events.program().still_running();
            if running == 0 {
                break;
            }
            let patience = if events.is_urgent() {
                LAST_PATIENCE
            } else {
                PATIENCE
            };
            if changes.has_next() {
                // A thread sleeps until its event is read, and then stops: it
                // must be one that has been asked to.
                if running > 1 || fresh > 0 {
                    fresh += events.program().seize_new_threads()?;
                }
                events.take();
                (stirred, nap) = (task::now(), SHORT_NAP);
            } else if events.program().has_ended() {
                return Err(Unstoppable::Ended);
            } else if task::now() > stirred + patience {
                return Err(Unstoppable::Busy);
            } else {
                task::await_child_stop(nap);
                nap = (nap * 2).min(LONG_NAP);
            }
        }
        if fresh == 0 {
            break;
        }
    }
    let standing = events.program().stand();
    while changes.has_next() {
        events.take();
    }
    Ok(standing)
}
