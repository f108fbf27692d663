// SPDX-License-Identifier: MIT OR Apache-2.0
//! The owner's side: serves attachers in turn.
//!
//! One request of each, and no longer than a while before the program's own
//! commands are looked at again.

#![forbid(unsafe_code)]

use super::share::Outcome;
use crate::user::arena::Shared;
use crate::user::peers::Side;
use crate::user::protocol::message::Message;
use crate::user::service::state::Service;
use crate::user::sys::task;

/// How long requests are served before the program's own commands are looked
/// at again, in nanoseconds. A request that was begun is ended.
const SLICE: u64 = 2_000_000;

/// How long a request that could not be served waits at least.
const PAUSE: u64 = 1_000_000;

/// How often that pause doubles for what may take long to pass: each look at it
/// can stop the program.
const LONGEST_PAUSE: u32 = 5;

impl Service {
    /// Serves attachers in turn, for a while.
    pub fn serve_requests(&mut self, shared: &Shared) {
        if self.peers.requests.next().is_none() {
            return;
        }
        let began = task::now();
        // The first of a round of attachers that could not be served.
        let mut in_vain = None;
        while let Some(i) = self.peers.requests.next() {
            if in_vain == Some(i) {
                break;
            }
            self.peers.requests.begin_turn(i);
            let served = self.serve_one(shared, i);
            self.pay_debts();
            if served {
                in_vain = None;
            } else if in_vain.is_none() {
                in_vain = Some(i);
            }
            if task::now() - began > SLICE {
                break;
            }
        }
    }

    /// Serves the oldest request of a connection that is due; whether there was one.
    fn serve_one(&mut self, shared: &Shared, i: usize) -> bool {
        let c = self.peers.connection(i);
        if c.side != Side::Owner || c.clogged {
            return false;
        }
        let Some(mut request) = self.peers.requests.take(i, task::now()) else {
            return false;
        };
        let Some(message) = Message::decode(&request.words) else {
            return true;
        };
        self.peers.requests.begin(i);
        let outcome = self.answer(shared, i, &message, &mut request.effort);
        if !self.peers.requests.end(i) {
            // It was hung up on meanwhile.
            return true;
        }
        match outcome {
            Outcome::Answered => {}
            Outcome::Unsent => {
                request.due = 0;
                self.peers.requests.put(i, request);
            }
            Outcome::Later(tries) => {
                request.effort.tries = request.effort.tries.saturating_add(tries);
                let pause = self.owner.program.pause.left() * 1_000_000;
                request.due = task::now() + pause.max(PAUSE);
                self.peers.requests.put(i, request);
            }
            Outcome::Wait => {
                let pause = PAUSE << request.effort.looks.min(LONGEST_PAUSE);
                request.effort.looks += 1;
                request.due = task::now() + pause;
                self.peers.requests.put(i, request);
            }
        }
        self.peers.attend(i);
        true
    }
}
