// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a peer is waited for.
//!
//! A wait is counted while this process runs, in small steps: where a whole
//! machine, a container or a job is suspended and goes on later, nobody is
//! blamed for the time between.

#![forbid(unsafe_code)]

use super::sys::task;

/// How long others wait for a peer to acknowledge, to answer a recall, or to
/// read what it is sent, in nanoseconds; then it is hung up on.
pub const LIMIT: u64 = 1_000_000_000;

/// How long a command waits for an owner's answer, in nanoseconds. The service
/// of a program that stands, in a debugger too, answers; so this one's stands
/// itself, or its computer does not find the time.
pub const COMMAND_LIMIT: u64 = 30_000_000_000;

/// An attach that asks for its pages goes on without them after that: they
/// come when they are touched.
pub const ATTACH_LIMIT: u64 = 5_000_000_000;

/// The most that counts between two looks.
const STEP: u64 = 50_000_000;

/// A wait for a peer. All zero is one that has not begun.
#[derive(Clone, Copy)]
pub struct Patience {
    spent: u64,
    last: u64,
}

impl Patience {
    pub const NEW: Self = Self { spent: 0, last: 0 };

    /// Looks at the clock; whether more than `limit` nanoseconds have been
    /// waited.
    pub fn is_over(&mut self, limit: u64) -> bool {
        self.spent() > limit
    }

    /// Looks at the clock; how many nanoseconds have been waited.
    pub fn spent(&mut self) -> u64 {
        self.advance(task::now());
        self.spent
    }

    fn advance(&mut self, now: u64) {
        if self.last != 0 {
            self.spent += now.saturating_sub(self.last).min(STEP);
        }
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_which_nothing_ran_counts_as_one_step() {
        let mut wait = Patience::NEW;
        wait.advance(1_000);
        assert_eq!(wait.spent, 0);
        wait.advance(2_000);
        assert_eq!(wait.spent, 1_000);
        wait.advance(2_000 + 100 * LIMIT);
        assert_eq!(wait.spent, 1_000 + STEP);
    }
}
