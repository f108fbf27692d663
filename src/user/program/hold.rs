// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that is exported both ways: by this service and by the kernel module.
//!
//! The module shows what the program has mapped. While the program's threads
//! stand, the service takes memory away and puts the same content in its place;
//! a peer that touches it through the module meanwhile must wait, as the
//! program's own threads do, and not find nothing there.

#![forbid(unsafe_code)]

use super::Program;
use crate::user::sys::Sys;
use crate::{rawsys, uapi};

impl Program {
    /// From here on the module's faults on the program's memory wait while its
    /// threads stand.
    pub fn meet_the_module(&mut self) -> Sys<()> {
        if self.device != 0 {
            return Ok(());
        }
        let fd = rawsys::open(c"/dev/xpmem", libc::O_RDWR | libc::O_CLOEXEC, 0)?;
        // 0 says that there is none.
        let high = rawsys::dup_above(fd, 3);
        rawsys::close(fd);
        self.device = high?;
        // A module that knows no hold is an older one.
        self.ask_module(false).inspect_err(|_| {
            rawsys::close(core::mem::take(&mut self.device));
        })
    }

    /// Whether the program exports its memory both ways.
    pub fn knows_the_module(&self) -> bool {
        self.device != 0
    }

    fn ask_module(&self, hold: bool) -> Sys<()> {
        let mut word = i64::from(hold);
        let at = (&raw mut word).expose_provenance();
        rawsys::ioctl(self.device, uapi::HOLD, at).map(drop)
    }

    /// Lets the module's faults on the program's memory wait, or wait no more.
    pub fn hold(&self, hold: bool) {
        if self.device != 0 {
            let _ = self.ask_module(hold);
        }
    }
}
