// SPDX-License-Identifier: MIT OR Apache-2.0
//! A descriptor that is kept to be given up.

#![forbid(unsafe_code)]

use crate::fd::OwnedFd;

/// Where no other descriptor is left, there is one when this is given up. All zero:
/// there is none.
pub struct Spare {
    kept: Option<OwnedFd>,
}

impl Spare {
    /// Opens one to keep, where none is kept and one is left.
    pub fn keep(&mut self) {
        if self.kept.is_none() {
            let flags = libc::O_RDWR | libc::O_CLOEXEC;
            self.kept = crate::fd::open(c"/dev/null", flags, 0).ok();
        }
    }

    /// Closes the kept descriptor; whether there was one.
    pub fn give_up(&mut self) -> bool {
        self.kept.take().is_some()
    }
}
