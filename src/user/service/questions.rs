// SPDX-License-Identifier: MIT OR Apache-2.0
//! The attacher's side: sends questions to owners, and gives up those of one that is gone.
//!
//! A question that does not go out at once stays with whom it is for: a command
//! in [`Pending`](super::pending::Pending), a thread in [`Attacher::faulting`](crate::user::attacher::Attacher::faulting). It goes out when an
//! answer comes or the socket has room, see [`Service::send_unsent`].

#![forbid(unsafe_code)]

use super::pending::{Reply, What};
use crate::debug_log;
use crate::errno::Errno;
use crate::user::arena::Shared;
use crate::user::peers::{Side, COMMAND_COOKIE};
use crate::user::protocol::ids::{Id, Kind};
use crate::user::protocol::message::{Message, Question};
use crate::user::service::commands::OWNER_BUSY;
use crate::user::service::state::Service;

impl Service {
    /// Asks owner `i` for the command in `slot`, which waits for the answer.
    pub fn ask_for_command(
        &mut self,
        slot: usize,
        i: usize,
        question: Question,
        what: What,
    ) -> Reply {
        let mut m = Message::question(question);
        m.serial = self.peers.next_question();
        m.cookie = COMMAND_COOKIE | slot as u64;
        self.pending.wait(slot, i, &m, what);
        if self.peers.ask(i, &m) {
            self.pending.sent(slot);
        }
        Reply::Later
    }

    /// Owner `i` is gone: nobody waits for its answers.
    pub fn abandon_commands_of(&mut self, shared: &Shared, i: usize, errno: Errno) {
        while let Some((slot, answer)) = self.pending.abandon(i, errno) {
            shared.finish(slot, answer);
        }
    }

    /// No command waits for ever for an owner that does not answer.
    pub fn end_long_waits(&mut self, shared: &Shared) {
        let mut from = 0;
        if self.pending.is_empty() {
            return;
        }
        while let Some((slot, answer)) = self.pending.abandon_late(from) {
            debug_log!("an owner does not answer a call");
            shared.finish(slot, answer);
            from = slot + 1;
        }
    }

    /// Sends what has waited for room: first what the owner waits for.
    pub fn send_unsent(&mut self, i: usize) {
        let c = self.peers.connection_mut(i);
        if c.side != Side::Attacher || !c.unsent || c.clogged {
            return;
        }
        c.unsent = false;
        self.peers.say_noted(i);
        let c = self.peers.connection(i);
        if c.has_unsent_answer && !c.clogged {
            let unsent = Message::decode(&c.unsent_answer);
            let sent =
                unsent.is_none_or(|m| self.peers.try_post(i, &m, None) != Err(Errno::EAGAIN));
            let c = self.peers.connection_mut(i);
            (c.has_unsent_answer, c.unsent) = (!sent, c.unsent | !sent);
        }
        let mut from = 0;
        while let Some((slot, words)) = self.pending.next_unsent(i, from) {
            if !Message::decode(words).is_none_or(|m| self.peers.ask(i, &m)) {
                return;
            }
            self.pending.sent(slot);
            from = slot + 1;
        }
        while let Some(fault) = self.attacher.faulting.next_unsent(i) {
            if !self.ask_for_page(&fault) {
                return;
            }
        }
    }

    /// An id names nothing that the program may use: ENOENT if this process has issued
    /// it. Else its issuer is asked whether it is alive: EACCES if it is, ENOENT if not.
    pub fn ask_issuer(&mut self, shared: &Shared, slot: usize, id: i64, kind: Kind) -> Reply {
        if self.owner.segments.issued(id) {
            return Reply::Now(Err(Errno::ENOENT));
        }
        let Some(decoded) = Id::decode(id).filter(|d| d.kind == kind) else {
            return Reply::Now(Err(Errno::ENOENT));
        };
        let i = match self.connection_to(shared, decoded.token) {
            Ok(i) => i,
            Err(errno @ (Errno::EACCES | Errno::ENOMEM | OWNER_BUSY)) => {
                return Reply::Now(Err(errno))
            }
            Err(_) => return Reply::Now(Err(Errno::ENOENT)),
        };
        self.ask_for_command(slot, i, Question::Query { id }, What::Alive)
    }
}
