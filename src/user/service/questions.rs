// SPDX-License-Identifier: MIT OR Apache-2.0
//! The attacher's side: what owners are asked.
//!
//! A question that does not go out at once stays with whom it is for: a command
//! in [`Service::waiting`], a thread in [`Attacher::faulting`](crate::user::attacher::Attacher::faulting). It goes out when an
//! answer comes or the socket has room, see [`Service::send_unsent`].

#![forbid(unsafe_code)]

use crate::debug_log;
use crate::user::arena::{Op, Shared};
use crate::user::patience::{Patience, ATTACH_LIMIT, COMMAND_LIMIT};
use crate::user::peers::{Side, COMMAND_COOKIE};
use crate::user::protocol::ids::{Id, Kind};
use crate::user::protocol::wire::{Message, Verb};
use crate::user::service::commands::OWNER_BUSY;
use crate::user::service::state::{Service, Waiting};
use crate::user::sys::Sys;

impl Service {
    /// Asks owner `i` for the command in `slot`, which waits for the answer.
    pub fn ask_for_command(&mut self, slot: usize, i: usize, op: Op, m: &Message) {
        let mut m = *m;
        m.serial = self.peers.next_question();
        m.cookie = COMMAND_COOKIE | slot as u64;
        self.waiting[slot] = Waiting {
            connection: i + 1,
            serial: m.serial,
            op: op as u32,
            words: m.encode(),
            unsent: true,
            retrying: false,
            patience: Patience::NEW,
            id: m.id,
            value: 0,
            flags: 0,
            fixed: false,
        };
        self.commands_waiting += 1;
        self.waiting[slot].unsent = !self.peers.ask(i, &m);
    }

    /// The command in `slot` has its answer.
    pub fn end_waiting(&mut self, shared: &Shared, slot: usize, answer: Sys<u64>) {
        self.waiting[slot].connection = 0;
        self.commands_waiting -= 1;
        shared.finish(slot, answer);
    }

    /// Owner `i` is gone: nobody waits for its answers.
    pub fn abandon_commands_of(&mut self, shared: &Shared, i: usize, errno: i32) {
        for slot in 0..self.waiting.len() {
            if self.waiting[slot].connection == i + 1 {
                self.give_up_waiting(shared, slot, errno);
            }
        }
    }

    fn give_up_waiting(&mut self, shared: &Shared, slot: usize, errno: i32) {
        let w = &self.waiting[slot];
        let answer = if w.op == Op::Attach as u32 {
            Ok(w.value)
        } else {
            Err(errno)
        };
        self.end_waiting(shared, slot, answer);
    }

    /// No command waits for ever for an owner that does not answer.
    pub fn end_long_waits(&mut self, shared: &Shared) {
        if self.commands_waiting == 0 {
            return;
        }
        for slot in 0..self.waiting.len() {
            let w = &mut self.waiting[slot];
            let limit = if w.op == Op::Attach as u32 {
                ATTACH_LIMIT
            } else {
                COMMAND_LIMIT
            };
            if w.connection != 0 && w.patience.is_over(limit) {
                debug_log!("an owner does not answer a call");
                self.give_up_waiting(shared, slot, libc::ENOENT);
            }
        }
    }

    /// Sends what has waited for room: first what the owner waits for.
    pub fn send_unsent(&mut self, i: usize) {
        let c = &mut self.peers.connections[i];
        if c.side != Side::Attacher || !c.unsent || c.clogged {
            return;
        }
        c.unsent = false;
        self.peers.say_noted(i);
        let c = &self.peers.connections[i];
        if c.owes && !c.clogged {
            let owed = Message::decode(&c.owed);
            let sent = owed.is_none_or(|m| self.peers.try_post(i, &m, None) != Err(libc::EAGAIN));
            let c = &mut self.peers.connections[i];
            (c.owes, c.unsent) = (!sent, c.unsent | !sent);
        }
        for slot in 0..self.waiting.len() {
            let w = &self.waiting[slot];
            if w.connection == i + 1 && w.unsent {
                let sent = Message::decode(&w.words).is_none_or(|m| self.peers.ask(i, &m));
                self.waiting[slot].unsent = !sent;
                if !sent {
                    return;
                }
            }
        }
        while let Some(fault) = self.attacher.faulting.next_unsent(i) {
            if !self.ask_for_page(&fault) {
                return;
            }
        }
    }

    /// Asks the issuer of an id that is not of this process whether it is
    /// alive: EACCES if it is, ENOENT if not.
    pub fn ask_issuer(
        &mut self,
        shared: &Shared,
        slot: usize,
        id: i64,
        kind: Kind,
    ) -> Option<Sys<u64>> {
        let Some(decoded) = Id::decode(id).filter(|d| d.kind == kind) else {
            return Some(Err(libc::ENOENT));
        };
        let i = match self.connection_to(shared, decoded.token) {
            Ok(i) => i,
            Err(errno @ (libc::EACCES | libc::ENOMEM | OWNER_BUSY)) => return Some(Err(errno)),
            Err(_) => return Some(Err(libc::ENOENT)),
        };
        let mut m = Message::new(Verb::Query);
        m.id = id;
        self.ask_for_command(slot, i, Op::Release, &m);
        None
    }
}
