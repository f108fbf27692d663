// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that are answered when a peer has answered.

#![forbid(unsafe_code)]

use crate::errno::Errno;
use crate::user::arena::SLOTS;
use crate::user::patience::{Patience, ATTACH_LIMIT, COMMAND_LIMIT};
use crate::user::protocol::message::{Answer, Message};
use crate::user::protocol::wire::Words;
use crate::user::sys::Sys;

/// What becomes of a command.
pub enum Reply {
    Now(Sys<u64>),
    /// It is answered later, or has been.
    Later,
}

/// What a command waits for.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum What {
    /// Whether somebody else's id is alive.
    Alive = 0,
    /// Access to a segment.
    Get { segid: i64, writable: bool },
    /// Pages of a new attachment; `fixed`: at an address that the program has chosen.
    Attach {
        addr: usize,
        attachment: u64,
        fixed: bool,
    },
}

impl What {
    /// Whether it is an answer to that.
    fn is_answered_by(self, answer: Answer) -> bool {
        match self {
            What::Alive => matches!(answer, Answer::Query { .. }),
            What::Get { .. } => matches!(answer, Answer::Get(_)),
            What::Attach { .. } => matches!(answer, Answer::Share(_)),
        }
    }

    /// The answer where none comes.
    fn without(self, errno: Errno) -> Sys<u64> {
        match self {
            What::Attach { addr, .. } => Ok(addr as u64),
            _ => Err(errno),
        }
    }
}

/// A command. All zero is one that does not wait.
#[derive(Clone, Copy)]
struct Waiting {
    /// Index of the connection plus 1; 0: not waiting.
    connection: usize,
    /// The question's serial number.
    serial: u64,
    what: What,
    /// The question, as long as it is to be sent.
    words: Words,
    unsent: bool,
    /// Not asked yet: its owner has too much to accept.
    retrying: bool,
    patience: Patience,
}

/// What each command slot waits for. All zero: none waits.
pub struct Pending {
    slots: [Waiting; SLOTS],
    count: u32,
}

impl Pending {
    /// Whether no command waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The command in `slot` waits for the answer to a question on a connection, which
    /// is still to be [sent](Self::sent).
    pub fn wait(&mut self, slot: usize, connection: usize, question: &Message, what: What) {
        self.slots[slot] = Waiting {
            connection: connection + 1,
            serial: question.serial,
            what,
            words: question.encode(),
            unsent: true,
            retrying: false,
            patience: Patience::NEW,
        };
        self.count += 1;
    }

    /// The question of `slot` is on its way.
    pub fn sent(&mut self, slot: usize) {
        self.slots[slot].unsent = false;
    }

    /// A question that is still to be sent on a connection, of a slot from `from` on.
    pub fn next_unsent(&self, connection: usize, from: usize) -> Option<(usize, &Words)> {
        let slots = self.slots.iter().enumerate().skip(from);
        let mut unsent = slots.filter(|(_, w)| w.connection == connection + 1 && w.unsent);
        unsent.next().map(|(slot, w)| (slot, &w.words))
    }

    /// What is waited for, if an answer on a connection is to the question of that
    /// number of `slot`.
    pub fn asked(
        &self,
        slot: usize,
        connection: usize,
        (serial, answer): (u64, Answer),
    ) -> Option<What> {
        let w = self.slots.get(slot)?;
        let is_it = w.connection == connection + 1 && w.serial == serial;
        (is_it && w.what.is_answered_by(answer)).then_some(w.what)
    }

    /// The command in `slot` has its answer.
    pub fn end(&mut self, slot: usize) {
        self.slots[slot].connection = 0;
        self.count -= 1;
    }

    /// Ends a command that waits on a connection; answers which, and with what it ends.
    pub fn abandon(&mut self, connection: usize, errno: Errno) -> Option<(usize, Sys<u64>)> {
        let of_it = |w: &Waiting| w.connection == connection + 1;
        let slot = self.slots.iter().position(of_it)?;
        self.end(slot);
        Some((slot, self.slots[slot].what.without(errno)))
    }

    /// Ends a command that has waited too long, if there is one from `from` on.
    pub fn abandon_late(&mut self, from: usize) -> Option<(usize, Sys<u64>)> {
        let is_late = |w: &mut Waiting| {
            let limit = match w.what {
                What::Attach { .. } => ATTACH_LIMIT,
                _ => COMMAND_LIMIT,
            };
            w.connection != 0 && w.patience.is_over(limit)
        };
        let slot = from + self.slots[from..].iter_mut().position(is_late)?;
        self.end(slot);
        Some((slot, self.slots[slot].what.without(Errno::ENOENT)))
    }

    /// The command in `slot` could not be asked; whether it is to be tried again.
    pub fn retry(&mut self, slot: usize) -> bool {
        let w = &mut self.slots[slot];
        if !core::mem::replace(&mut w.retrying, true) {
            w.patience = Patience::NEW;
        }
        w.retrying = !w.patience.is_over(COMMAND_LIMIT);
        w.retrying
    }

    /// The command in `slot` has been answered at once.
    pub fn answered(&mut self, slot: usize) {
        self.slots[slot].retrying = false;
    }
}
