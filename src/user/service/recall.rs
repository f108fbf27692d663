// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recalls: asks attachers to let go of something, and waits until they have.
//!
//! The program's own thread waits with us, so the wait has an end. What is lent
//! cannot be taken back by force: who does not answer in time is hung up on, and
//! is not asked again.

#![forbid(unsafe_code)]

use crate::debug::{count, COUNTERS};
use crate::user::arena::Shared;
use crate::user::patience::Patience;
use crate::user::peers::{tag, Side};
use crate::user::program::threads::Standing;
use crate::user::protocol::limits::CONNECTIONS;
use crate::user::protocol::message::{Message, Question, Withdrawal};
use crate::user::service::state::Service;
use crate::user::sys::{net, task};
use core::time::Duration;

impl Service {
    /// Asks every attacher that may show something, or may have a permit for what
    /// is removed, and waits until each has answered or is hung up on; whether all
    /// have done as they were asked. Who stands still costs the program this wait
    /// once. Others may recall from here meanwhile: all are heard.
    pub fn ask_attachers(&mut self, shared: &Shared, what: Withdrawal) -> bool {
        if crate::testing::revocation_is_off() {
            return true;
        }
        count(&COUNTERS.revocations);
        let mut m = Message::question(Question::Withdraw(what));
        m.serial = self.peers.next_question();
        let all = matches!(what, Withdrawal::Segment(_));
        let mut asked = self.peers.begin_recall(m.serial, all);
        let mut unsent = asked;
        let before = core::mem::replace(&mut self.recalling, true);
        let refused = core::mem::replace(&mut self.recall_refused, false);
        let mut patience = Patience::NEW;
        let mut pause = 10;
        loop {
            for_each(&mut unsent, |i| {
                let open = self.peers.side(i) == Side::Owner;
                open && !self.peers.post(i, &m, None)
            });
            let open = for_each(&mut asked, |i| {
                let c = self.peers.connection(i);
                c.side == Side::Owner && c.recalled < m.serial
            });
            if !open {
                break;
            }
            let spent = patience.spent();
            for_each(&mut asked, |i| {
                let is_late = self.peers.is_late_to_answer(i, spent);
                if is_late {
                    self.peers.cut(i);
                }
                !is_late
            });
            task::beat();
            if !self.hear_peers(shared) {
                crate::rawsys::sleep(Duration::from_micros(pause));
                pause = (pause * 2).min(200);
            }
        }
        self.recalling = before;
        let done = !core::mem::replace(&mut self.recall_refused, refused);
        // Who has been hung up on and has not let go yet shows what it showed.
        done && self.peers.have_let_go()
    }

    /// Recalls what the program has unmapped, and lets those go who were held for
    /// it. Whoever has the threads stop, or events looked at, calls this afterwards.
    pub fn pay_debts(&mut self) {
        if self.paying || (self.owner.debts.is_empty() && !self.owner.program.threads.are_held()) {
            return;
        }
        let Some(shared) = crate::user::arena::existing() else {
            return;
        };
        self.paying = true;
        while let Some(span) = self.owner.debts.last() {
            self.recall_range(shared, span);
            self.owner.debts.paid();
        }
        self.paying = false;
        self.owner.program.release_held();
    }

    /// Tries to stop the threads, so often at most.
    pub fn insist_on_stop(&mut self, tries: u32) -> Option<Standing> {
        (0..tries).find_map(|_| {
            let standing = self.owner.stop().ok();
            if standing.is_none() {
                self.pay_debts();
            }
            standing
        })
    }

    /// Reads what peers have to say just now; whether there was anything.
    pub fn hear_peers(&mut self, shared: &Shared) -> bool {
        let mut happened = [(0, 0); net::EVENTS];
        let n = self.peers.wait(&mut happened, 0);
        let mut any = false;
        for &(tag, events) in &happened[..n] {
            if tag >= tag::PIDFD {
                self.on_pidfd(shared, (tag - tag::PIDFD) as usize);
            } else if tag >= tag::CONNECTION {
                any = true;
                self.on_connection(shared, (tag - tag::CONNECTION) as usize, events);
            }
        }
        any
    }
}

/// Calls `keep` for every bit that is set, which stays so if it says so; whether
/// any is left.
fn for_each(bits: &mut [u64; CONNECTIONS / 64], mut keep: impl FnMut(usize) -> bool) -> bool {
    let mut left = false;
    for (k, word) in bits.iter_mut().enumerate() {
        let mut rest = *word;
        while rest != 0 {
            let bit = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if keep(k * 64 + bit) {
                left = true;
            } else {
                *word &= !(1 << bit);
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_visited_once_and_kept_where_that_is_said() {
        let mut bits = [0u64; CONNECTIONS / 64];
        for i in [0, 63, 64, 4095] {
            bits[i / 64] |= 1 << (i % 64);
        }
        let mut seen = Vec::new();
        assert!(for_each(&mut bits, |i| {
            seen.push(i);
            i == 64
        }));
        assert_eq!(seen, [0, 63, 64, 4095]);
        assert!(!for_each(&mut bits, |i| {
            assert_eq!(i, 64);
            false
        }));
        assert_eq!(bits, [0; CONNECTIONS / 64]);
    }
}
