// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that take mappings away and that the kernel tells nobody of: a System V
//! segment is detached, and pages of a file change their places.
//!
//! There is no event for either, so they have to be met in libc. Where they
//! cannot be, such segments are not shared at all.

#![forbid(unsafe_code)]

use super::refusal::Refusal;
use crate::debug_log;
use crate::user::arena::Shared;
use crate::user::hooks;
use crate::user::service::state::Service;
use crate::user::sys::maps::{Mapping, Name};
use crate::user::sys::Sys;

impl Service {
    /// Before a mapping is lent: whether its end can be noticed.
    pub fn can_see_end_of(&mut self, m: &Mapping) -> Result<(), Refusal> {
        match self.meet_libc() {
            // Under a debugger the events are there still, and tell of other files.
            Err(Refusal::Traced) if m.name != Name::SysV => return Ok(()),
            met => met?,
        }
        if m.name != Name::SysV {
            return Ok(());
        }
        if !hooks::meets(libc::SYS_shmdt) {
            debug_log!(
                "the segment at {:#x} is not shared: nobody would tell that it is detached",
                m.start
            );
            return Err(Refusal::SharedFile);
        }
        Ok(())
    }

    /// The program is about to detach the segment at `address`: what stands as
    /// far from there as its offset says is part of it.
    pub fn recall_segment(&mut self, shared: &Shared, address: usize) {
        for i in 0..self.lent.len() {
            let l = self.lent[i];
            if l.start < l.end && l.start.checked_sub(address) == Some(l.offset) {
                self.recall(shared, l.start, l.end);
            }
        }
    }

    /// The program is about to let pages of the file in `[start, end)` change
    /// their places. A lent file is recalled for it. What has been promoted is
    /// of another file than the program knows: EINVAL, as for private memory.
    pub fn rearrange(&mut self, shared: &Shared, start: usize, end: usize) -> Sys<u64> {
        self.recall(shared, start, end);
        match shared.promoted.first_in(start, end) {
            Some(_) => Err(libc::EINVAL),
            None => Ok(0),
        }
    }
}
