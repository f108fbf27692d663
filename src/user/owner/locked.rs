// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps memory locked that the program has locked.

#![forbid(unsafe_code)]

use super::Owner;
use crate::debug_log;
use crate::user::sys::{insist, mem};

impl Owner {
    pub fn lock_again(&self, lo: usize, len: usize) {
        if let Err(errno) = insist(|| mem::lock(lo, len)) {
            debug_log!("{lo:#x}+{len:#x} is not locked any more: errno {errno}");
        }
    }

    /// Locks the memory that has taken the place of locked memory. Every page
    /// that was there is in the file by now, and is mapped so that the lock holds
    /// it; one that was not (`MLOCK_ONFAULT`) is locked when it comes.
    pub fn lock_promoted(&self, lo: usize, hi: usize) {
        self.lock_again(lo, hi - lo);
        let mut at = lo;
        while let Some(data) = mem::next_data(self.memfd, at, hi) {
            let _ = mem::populate(data.start(), data.len());
            at = data.end();
        }
    }
}

/// What was locked stays locked: the pages are there.
pub fn lock_if(locked: bool, start: usize, len: usize) {
    if locked {
        if let Err(errno) = mem::lock(start, len) {
            debug_log!("{start:#x} is not locked any more: errno {errno}");
        }
    }
}
