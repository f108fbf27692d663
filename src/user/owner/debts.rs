// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is to be recalled before the program's threads go on.
//!
//! A raw munmap of a lent file is known when its event is read, in a stop. A stop
//! waits for no peer: the range is noted here, the threads are held, and whoever
//! asked for the stop has the service recall it
//! ([`Service::pay_debts`](crate::user::service::state::Service::pay_debts)).

#![forbid(unsafe_code)]

use crate::user::sys::Span;

/// Most ranges that are told apart; more are recalled with what lies between.
const DEBTS: usize = 64;

/// Ranges that have been unmapped and are still to be recalled. All zero is none.
pub struct Debts {
    len: usize,
    ranges: [Span; DEBTS],
}

impl Debts {
    /// Nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes note of a range.
    pub fn add(&mut self, span: Span) {
        match self.ranges.get_mut(self.len) {
            Some(place) => {
                *place = span;
                self.len += 1;
            }
            None => {
                let last = &mut self.ranges[DEBTS - 1];
                *last = last.around(span);
            }
        }
    }

    /// One of them, which stays until it is [paid](Self::paid).
    pub fn last(&self) -> Option<Span> {
        self.len.checked_sub(1).map(|i| self.ranges[i])
    }

    /// The [last](Self::last) one has been recalled.
    pub fn paid(&mut self) {
        self.len = self.len.saturating_sub(1);
    }

    /// Forgets all that is owed.
    pub fn forget(&mut self) {
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_recalled_with_what_lies_between() {
        let mut debts = Debts {
            len: 0,
            ranges: [Span::EMPTY; DEBTS],
        };
        for i in 0..DEBTS + 2 {
            debts.add(Span::of(10 * i, 5));
        }
        let last = Span::new(10 * (DEBTS - 1), 10 * (DEBTS + 1) + 5);
        assert_eq!(debts.last(), Some(last));
        for i in (0..DEBTS - 1).rev() {
            debts.paid();
            assert_eq!(debts.last(), Some(Span::of(10 * i, 5)));
        }
        debts.paid();
        assert!(debts.is_empty() && debts.last().is_none());
    }
}
