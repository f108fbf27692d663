// SPDX-License-Identifier: MIT OR Apache-2.0
//! The owner's side: attachers are served in turn.
//!
//! One request of each, and no longer than a while before the program's own
//! commands are looked at again.

#![forbid(unsafe_code)]

use crate::user::arena::Shared;
use crate::user::owner::Outcome;
use crate::user::peers::Side;
use crate::user::protocol::wire::Message;
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
        let began = task::now();
        // The first of a round of attachers that could not be served.
        let mut in_vain = None;
        while let Some(i) = self.requests.next_after(self.requests.turn) {
            if in_vain == Some(i) {
                break;
            }
            self.requests.turn = i;
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
        let c = &self.connections[i];
        if c.side != Side::Owner || c.clogged {
            return false;
        }
        let Some(mut request) = self.requests.take(i, task::now()) else {
            return false;
        };
        let Some(message) = Message::decode(&request.words) else {
            return true;
        };
        self.requests.serving = i + 1;
        let outcome = self.answer(shared, i, &message, &mut request.effort);
        if self.requests.serving != i + 1 {
            // It was hung up on meanwhile.
            return true;
        }
        self.requests.serving = 0;
        match outcome {
            Outcome::Answered => {}
            Outcome::Unsent => {
                request.due = 0;
                self.requests.put(i, request);
            }
            Outcome::Later(tries) => {
                request.effort.tries = request.effort.tries.saturating_add(tries);
                let pause = self.program.pause.left() * 1_000_000;
                request.due = task::now() + pause.max(PAUSE);
                self.requests.put(i, request);
            }
            Outcome::Wait => {
                let pause = PAUSE << request.effort.looks.min(LONGEST_PAUSE);
                request.effort.looks += 1;
                request.due = task::now() + pause;
                self.requests.put(i, request);
            }
        }
        self.attend(i);
        true
    }

    /// Milliseconds until a request is due; `None` where none waits that could
    /// be served.
    pub fn next_request(&self) -> Option<u64> {
        let can = |i: usize| {
            let c = &self.connections[i];
            c.side == Side::Owner && !c.clogged
        };
        let due = self.requests.next_due(can)?;
        Some(due.saturating_sub(task::now()).div_ceil(1_000_000))
    }
}
