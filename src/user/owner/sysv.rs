// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that take mappings away and that the kernel tells nobody of: a System V
//! segment is detached, and pages of a file change their places.
//!
//! There is no event for either, so they have to be met in libc. Where they
//! cannot be, such segments are not shared at all.

#![forbid(unsafe_code)]

use super::refusal::Refusal;
use super::Owner;
use crate::debug_log;
use crate::user::hooks;
use crate::user::sys::maps::{Mapping, Name};

impl Owner {
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

    /// Sees to it that libc is met before anything is shared that the kernel's
    /// events say too little of.
    pub fn meet_libc(&mut self) -> Result<(), Refusal> {
        if self.hooks.are_due() {
            let standing = self.stop()?;
            self.hooks.write(self.program.standing_thread(&standing));
            self.resume(standing);
        }
        Ok(())
    }
}
