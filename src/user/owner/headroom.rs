// SPDX-License-Identifier: MIT OR Apache-2.0
//! No peer makes its owner's memory cgroup overflow.
//!
//! What is shared takes the place of what was there before, but for a moment there
//! are both. Where the cgroup has no room for that the kernel would end the program, which
//! was well before its peer touched it: so the peer is refused.

#![forbid(unsafe_code)]

use super::Owner;
use crate::user::sys::{cgroup, task};

/// What is left free for what else is charged: page tables, and what the kernel
/// charges ahead.
const SLACK: usize = 1 << 20;

/// How long a look counts, in nanoseconds, unless much is taken.
const LONG: u64 = 100_000_000;

/// All zero: not looked yet.
#[derive(Clone, Copy)]
pub struct Headroom {
    looked: u64,
    left: usize,
}

impl Owner {
    /// Whether `len` bytes more can be charged to the program for a moment. A look
    /// takes some system calls: it is made anew after a while, and where little is left.
    pub fn has_headroom(&mut self, len: usize) -> bool {
        let need = len.saturating_add(SLACK);
        let now = task::now();
        let h = self.headroom;
        if h.looked == 0 || now - h.looked > LONG || h.left / 4 < need {
            let left = cgroup::memory_left(self.program.tgid(), 4 * need);
            self.headroom = Headroom {
                looked: now,
                left: left.unwrap_or(usize::MAX),
            };
        }
        self.headroom.left >= need
    }
}
