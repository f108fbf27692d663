// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that is exported both ways: by this service and by the kernel module.
//!
//! The module shows what the program has mapped. While the program's threads
//! stand, the service takes memory away and puts the same content in its place;
//! a peer that touches it through the module meanwhile must wait, as the
//! program's own threads do, and not find nothing there.

#![forbid(unsafe_code)]

use super::Program;
use crate::fd::{self, OwnedFd};
use crate::uapi;
use crate::user::sys::Sys;

impl Program {
    /// From here on the module's faults on the program's memory wait while its
    /// threads stand.
    pub fn meet_the_module(&mut self) -> Sys<()> {
        if self.device.is_some() {
            return Ok(());
        }
        let device = fd::open(c"/dev/xpmem", libc::O_RDWR | libc::O_CLOEXEC, 0)?;
        // A module that knows no hold is an older one.
        ask_module(&device, false)?;
        self.device = Some(device);
        Ok(())
    }

    /// Whether the program exports its memory both ways.
    pub fn knows_the_module(&self) -> bool {
        self.device.is_some()
    }

    /// Lets the module's faults on the program's memory wait, or wait no more.
    pub fn hold(&self, hold: bool) {
        if let Some(device) = &self.device {
            let _ = ask_module(device, hold);
        }
    }
}

fn ask_module(device: &OwnedFd, hold: bool) -> Sys<()> {
    let mut word = i64::from(hold);
    let at = (&raw mut word).expose_provenance();
    fd::ioctl(device.fd(), uapi::HOLD, at).map(drop)
}
