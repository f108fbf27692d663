// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service task: one loop that is owner and attacher for its process.
//!
//! It shares the program's memory and has its own descriptors. It is the only
//! writer of everything in [`Service`] and of the set of promoted ranges, so
//! there are no locks. It never blocks on a peer: what needs an answer is sent,
//! and the answer is met in the loop. It never touches attached memory (the
//! fault would come back to itself), and it unregisters a range before it
//! unmaps it (the event would come back to itself).

pub mod anchor;
pub mod attach;
pub mod boot;
pub mod commands;
pub mod connections;
pub mod events;
pub mod faults;
pub mod forks;
pub mod messages;
pub mod others;
pub mod pending;
pub mod questions;
pub mod recall;
pub mod remap;
pub mod rites;
pub mod share;
pub mod start;
pub mod state;
pub mod turns;
pub mod withdraw;

use super::arena::Shared;
use super::peers::{emptying, tag};
use super::sys::{net, task};
use crate::user::service::state::Service;
use core::ffi::c_int;
use core::sync::atomic::Ordering;

/// Longest sleep in milliseconds: who watches over the service
/// ([`anchor`]) wants a sign of life, and it watches over the program.
const TICK: c_int = 200;

impl Service {
    fn run(&mut self, shared: &Shared) {
        while !self.is_to_end(shared) {
            let mut happened = [(0, 0); net::EVENTS];
            let n = self.peers.wait(&mut happened, self.timeout());
            task::beat();
            self.look_at_rights(shared);
            for &(tag, events) in &happened[..n] {
                match tag {
                    tag::SIGNALS => self.on_signals(shared),
                    tag::BELL => self.on_bell(shared),
                    tag::LISTENER => self.accept(shared),
                    tag::OWNER => return self.farewell(shared),
                    tag::EVENTS => self.on_events(),
                    tag::FAULTS => self.on_faults(),
                    t if t >= tag::PIDFD => self.on_pidfd(shared, (t - tag::PIDFD) as usize),
                    t if t >= tag::CONNECTION => {
                        self.on_connection(shared, (t - tag::CONNECTION) as usize, events);
                    }
                    _ => {}
                }
                self.pay_debts();
            }
            if self.doubt > 0 {
                self.doubt -= 1;
                let gone = self.owner.program.has_ended();
                if gone
                    || task::parent() != self.owner.program.tgid()
                    || net::has_input(self.owner.program.pidfd())
                {
                    return self.farewell(shared);
                }
            }
            if self.owner.has_changes() {
                self.on_events();
            }
            if self.retrying {
                self.take_commands(shared);
            }
            self.serve_requests(shared);
            self.end_long_waits(shared);
            self.attacher.take_in(&self.owner.program);
            self.peers.emptying.go_on();
            self.peers.listen_again(&mut self.owner.program.spare);
            self.clear_poison();
            // Their news may have come while another stop was waited for, which
            // takes the signal that would bring us here again.
            self.on_fork_stop();
            self.owner.program.release_strays();
            self.pay_debts();
        }
        self.last_rites(shared);
    }

    /// Milliseconds to sleep at most.
    fn timeout(&self) -> c_int {
        if !self.peers.emptying.is_done() {
            0
        } else if self.doubt > 0 || !self.attacher.poisoned.is_empty() {
            1
        } else {
            let soon = [
                self.peers.next_request(),
                (self.retrying || self.owner.has_changes()).then_some(1),
                self.peers.is_deaf().then_some(100),
                (!self.pending.is_empty()).then_some(40),
            ];
            let soonest = soon.into_iter().flatten().min();
            soonest.map_or(TICK, |ms| ms.min(TICK as u64) as c_int)
        }
    }

    fn on_signals(&mut self, shared: &Shared) {
        let mut rung = false;
        while let Ok(signal) = task::read_signal(self.signals) {
            match signal {
                task::BELL => rung = true,
                // The thread that is ending may still be there for a moment.
                task::PARENT_GONE => self.doubt = 1000,
                libc::SIGCHLD => {
                    self.on_fork_stop();
                    self.owner.program.release_strays();
                }
                _ => {}
            }
        }
        if rung {
            self.take_commands(shared);
        }
    }

    /// The program is gone: so is what it exported.
    fn farewell(&mut self, shared: &Shared) {
        shared.settled.store(1, Ordering::Release);
        self.peers
            .unlink_socket(self.owner.program.knows_the_module());
        // Those who show it do that, and would wait for the file's lock.
        if !self.peers.any_shows() {
            emptying::empty(self.owner.memfd());
        }
    }
}
