// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps memory locked that the program has locked.

#![forbid(unsafe_code)]

use super::Owner;
use crate::debug_log;
use crate::user::sys::{insist, mem, Span};

impl Owner {
    pub fn lock_again(&self, span: Span) {
        let (lo, len) = (span.start(), span.len());
        if let Err(errno) = insist(|| mem::lock(lo, len)) {
            debug_log!("{lo:#x}+{len:#x} is not locked any more: errno {errno}");
        }
    }

    /// Locks the memory that has taken the place of locked memory. Every page
    /// that was there is in the file by now, and is mapped so that the lock holds
    /// it; one that was not (`MLOCK_ONFAULT`) is locked when it comes.
    pub fn lock_promoted(&self, span: Span) {
        self.lock_again(span);
        let mut at = span.start();
        while let Some(data) = mem::next_data(self.memfd, at, span.end()) {
            let _ = mem::populate(data.start(), data.len());
            at = data.end();
        }
    }
}

/// What was locked stays locked: the pages are there.
pub fn lock_if(locked: bool, span: Span) {
    if locked {
        if let Err(errno) = mem::lock(span.start(), span.len()) {
            debug_log!("{:#x} is not locked any more: errno {errno}", span.start());
        }
    }
}
