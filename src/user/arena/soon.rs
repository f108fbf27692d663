// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that need not be served: who hands one over waits for the service to
//! begin for so long and no longer.

#![forbid(unsafe_code)]

use super::{Command, Shared, BUSY, DONE, FILLING, FREE, READY};
use crate::user::sys::{task, Sys};
use core::sync::atomic::Ordering;

impl Shared {
    /// As [`Shared::call`], for a service that begins with it within `patience`
    /// nanoseconds. `None`: it has not, and will not. What it has begun is waited for.
    pub fn call_soon(&self, command: Command, patience: u64) -> Option<Sys<u64>> {
        let claimed = |state: u32| (state == FREE).then_some(FILLING);
        let slot = self.slots.iter().find(|slot| {
            let (taken, failed) = (Ordering::Acquire, Ordering::Relaxed);
            slot.state.fetch_update(taken, failed, claimed).is_ok()
        })?;
        let begun = task::now();
        slot.fill(command);
        self.ring();
        loop {
            let state = slot.state.load(Ordering::Acquire);
            let late = task::now() - begun > patience;
            match state {
                DONE => {
                    let answer = slot.result();
                    slot.state.store(FREE, Ordering::Release);
                    return Some(answer);
                }
                _ if self.is_over() => {
                    slot.state.store(FREE, Ordering::Release);
                    return None;
                }
                READY if late => {
                    let given_up = slot.state.compare_exchange(
                        READY,
                        FREE,
                        Ordering::Acquire,
                        Ordering::Relaxed,
                    );
                    if given_up.is_ok() {
                        return None;
                    }
                }
                BUSY => {
                    task::futex_wait(&slot.state, state, 1000);
                }
                _ => {
                    task::futex_wait(&slot.state, state, 1);
                }
            }
        }
    }
}
