// SPDX-License-Identifier: MIT OR Apache-2.0
//! A descriptor that is kept to be given up.

#![forbid(unsafe_code)]

use core::ffi::c_int;

/// Where no other descriptor is left, there is one when this is given up. All zero:
/// there is none.
pub struct Spare {
    /// Its number plus 1.
    next: c_int,
}

impl Spare {
    /// Keeps one, where none is kept and one is left.
    pub fn keep(&mut self) {
        if self.next == 0 {
            let flags = libc::O_RDWR | libc::O_CLOEXEC;
            self.next = crate::rawsys::open(c"/dev/null", flags, 0).map_or(0, |fd| fd + 1);
        }
    }

    /// Gives it up; whether there was one.
    pub fn give_up(&mut self) -> bool {
        let next = core::mem::take(&mut self.next);
        if next > 0 {
            crate::rawsys::close(next - 1);
        }
        next > 0
    }
}
