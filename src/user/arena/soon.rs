// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that need not be served: who hands one over waits for the service to
//! begin for so long and no longer.

#![forbid(unsafe_code)]

use super::slots::{Progress, Slot};
use super::{Command, Shared};
use crate::user::sys::{task, Sys};

impl Shared {
    /// As [`Shared::call`], for a service that begins with it within `patience`
    /// nanoseconds. `None`: it has not, and will not. What it has begun is waited for.
    pub fn call_soon(&self, command: Command, patience: u64) -> Option<Sys<u64>> {
        let claim = self.slots.iter().find_map(Slot::claim)?;
        let begun = task::now();
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
                Progress::Ready(_) if task::now() - begun > patience && claim.give_up() => {
                    return None;
                }
                Progress::Ready(word) => claim.wait(word, 1),
                Progress::Busy(word) => claim.wait(word, 1000),
            }
        }
    }
}
