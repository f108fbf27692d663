// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that need not be served: who hands one over waits for the service to
//! begin for so long and no longer.

#![forbid(unsafe_code)]

use super::slots::{Progress, Slot};
use super::{Command, Shared};
use crate::user::sys::Sys;

impl Shared {
    /// As [`Shared::call`], for a service that begins with it within some `patience`
    /// milliseconds. `None`: it has not, and will not. What it has begun is waited for.
    ///
    /// The waits are counted, and no clock is read: a program that may make no such
    /// call any more goes on.
    pub fn call_soon(&self, command: Command, patience: u32) -> Option<Sys<u64>> {
        let claim = self.slots.iter().find_map(Slot::claim)?;
        let mut left = patience;
        claim.fill(command);
        self.ring();
        loop {
            match claim.progress() {
                Progress::Answered(answer) => return Some(answer),
                Progress::Lost => return None,
                _ if self.is_over() => {
                    claim.leave();
                    return None;
                }
                Progress::Ready(_) if left == 0 && claim.give_up() => return None,
                Progress::Ready(word) => {
                    left = left.saturating_sub(1);
                    claim.wait(word, 1);
                }
                Progress::Busy(word) => claim.wait(word, 1000),
            }
        }
    }
}
