// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dispatches a message of a peer, by its verb and the side of the connection.
//!
//! A peer may say anything, at any time. What an attacher wants is put in its
//! queue ([`crate::user::peers::requests`]). What an owner answers is used where it was
//! asked, see [`super::questions`].

#![forbid(unsafe_code)]

use super::pending::What;
use crate::debug_log;
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use crate::user::arena::Shared;
use crate::user::attacher;
use crate::user::attacher::overlay::Lent;
use crate::user::owner::copier;
use crate::user::peers::{token, Side, COMMAND_COOKIE};
use crate::user::protocol::wire::{Message, Status, Verb, IN_WHOLE_PAGES, READ_ONLY};
use crate::user::service::state::Service;
use crate::user::sys::message::Descriptors;
use crate::user::sys::{mem, task, Span, Sys, PAGE, TOP};

/// Closes descriptors that came along with a message.
pub fn dispose(shared: &Shared, fds: &mut Descriptors) {
    let mut any = false;
    while let Some(fd) = fds.pop() {
        if copier::is_there(shared) {
            match shared.closing.put(fd) {
                Ok(()) => any = true,
                // It stays open.
                Err(fd) => drop(fd.keep()),
            }
        }
    }
    if any {
        shared.copying.ring();
    }
}

/// Closes what may be the last that holds much memory, where nobody waits for that.
pub fn close_apart(shared: &Shared, file: OwnedFd) {
    if copier::is_there(shared) && shared.closing.put(file).is_ok() {
        shared.copying.ring();
    }
}

impl Service {
    /// Descriptors that are of use are taken out of `fds`.
    pub fn on_message(&mut self, shared: &Shared, i: usize, m: &Message, fds: &mut Descriptors) {
        match (self.peers.side(i), m.verb) {
            (Side::Owner, Verb::Hello | Verb::Get | Verb::Share | Verb::Query) => {
                self.peers.requests.push(i, &m.encode());
            }
            (Side::Owner, Verb::Noted) => self.on_noted(shared, i, m.lo),
            (Side::Owner, _) if m.answers(Verb::Recall) || m.answers(Verb::Removed) => {
                let c = self.peers.connection_mut(i);
                if c.recalled < m.serial && m.serial <= c.recall {
                    c.recalled = m.serial;
                    self.recall_refused |= m.status != Status::Done;
                }
            }
            (Side::Attacher, Verb::Recall | Verb::Removed) => {
                let done = self.on_withdrawn(i, m);
                let status = if done { Status::Done } else { Status::Bad };
                self.owe(i, &m.answer(status));
            }
            (Side::Attacher, Verb::Answer) => self.on_answer(shared, i, m, fds),
            _ => debug_log!("a peer sends {:?} on the wrong side", m.verb),
        }
    }

    /// An attacher has acted upon answers.
    fn on_noted(&mut self, shared: &Shared, i: usize, answers: u64) {
        if !self.peers.noted(i, answers) {
            debug_log!("a peer acknowledges what it was not told: hung up");
            self.hang_up(shared, i);
        }
    }

    /// Attacher's side: an answer to a recall goes out, at once or when there is
    /// room. The last one then stands for those before it.
    fn owe(&mut self, i: usize, answer: &Message) {
        let c = self.peers.connection(i);
        let mut answer = *answer;
        if c.owes && Message::decode(&c.owed).is_some_and(|m| m.status != Status::Done) {
            answer.status = Status::Bad;
        }
        let answer = &answer;
        if !self.peers.post(i, answer, None) && self.peers.connection(i).clogged {
            let c = self.peers.connection_mut(i);
            (c.owes, c.owed, c.unsent) = (true, answer.encode(), true);
        }
    }

    /// Attacher's side: the owner has answered.
    fn on_answer(&mut self, shared: &Shared, i: usize, m: &Message, fds: &mut Descriptors) {
        let c = self.peers.connection_mut(i);
        c.under_way = c.under_way.saturating_sub(1);
        if m.answers(Verb::Hello) {
            if let Err(errno) = self.on_hello(i, m.status, fds) {
                debug_log!("an owner takes nobody, or has no address space: errno {errno}");
                self.peers.connection_mut(i).refusal = Some(errno);
                return self.hang_up(shared, i);
            }
        } else if m.cookie & COMMAND_COOKIE != 0 {
            self.on_command_answer(shared, i, m, fds.first());
        } else if m.answers(Verb::Share) {
            self.on_fault_answer(i, m, fds.first());
        }
        if m.answers(Verb::Share) && self.peers.side(i) == Side::Attacher {
            self.peers.connection_mut(i).unsaid += 1;
            self.peers.say_noted(i);
        }
        self.send_unsent(i);
    }

    /// The owner's address space has come: is it one?
    fn on_hello(&mut self, i: usize, status: Status, fds: &mut Descriptors) -> Sys<()> {
        match status {
            Status::Done => {}
            Status::Denied => return Err(Errno::EACCES),
            Status::Full => return Err(Errno::ENOMEM),
            _ => return Err(Errno::ENOENT),
        }
        if fds.were_cut() {
            debug_log!("there is no room for the owner's descriptors here");
            return Err(Errno::ENOMEM);
        }
        let [memfd, pidfd] = fds.pair().ok_or(Errno::ENOENT)?;
        let fixed = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
        // First what no file can delay: only a file in memory has seals.
        let sealed = mem::seals(memfd).is_ok_and(|seals| seals & fixed == fixed);
        if !sealed || !task::is_pidfd(pidfd) || self.peers.connection(i).memfd.is_some() {
            return Err(Errno::ENOENT);
        }
        if !mem::identity(memfd).is_ok_and(|(_, _, size)| size == TOP as u64) {
            return Err(Errno::ENOENT);
        }
        let mapped = self
            .owner
            .program
            .identity_as_mapped(memfd)
            .ok_or(Errno::ENOMEM)?;
        self.peers.watch(pidfd, token::PIDFD + i as u64)?;
        let c = self.peers.connection_mut(i);
        c.identity = mapped;
        if let Some([memfd, pidfd]) = fds.take_pair() {
            (c.memfd, c.pidfd) = (Some(memfd), Some(pidfd));
        }
        Ok(())
    }

    /// A peer answered what a command waits for, if it is the peer that was
    /// asked, and the question.
    fn on_command_answer(&mut self, shared: &Shared, i: usize, m: &Message, file: Option<Fd>) {
        let slot = (m.cookie & !COMMAND_COOKIE) as usize;
        let Some(what) = self.pending.asked(slot, i, m) else {
            return;
        };
        let answer = match what {
            What::Get { segid, flags } => match m.status {
                Status::Done if self.peers.connection(i).memfd.is_some() => {
                    let writable = flags == crate::uapi::RDWR;
                    self.grant(i, segid, writable, Span::new(m.lo as usize, m.hi as usize))
                }
                Status::Denied => Err(Errno::EACCES),
                _ => Err(Errno::ENOENT),
            },
            // At an address of its own choice the program has nothing left to
            // go back to: there the first touch tells.
            What::Attach {
                addr,
                attachment,
                fixed: false,
            } if m.status == Status::Refused => {
                let still = self.owner.program.attachments.at(addr);
                if still.is_some_and(|p| p.attachment == attachment) {
                    attacher::unmap(&mut self.owner.program, addr);
                }
                Err(Errno::ENOMEM)
            }
            What::Attach {
                addr,
                attachment,
                fixed,
            } => {
                let addr = self.on_attached(i, (addr, attachment, fixed), m, file);
                addr.map(|addr| addr as u64)
            }
            What::Alive => Err(if m.status == Status::Done {
                Errno::EACCES
            } else {
                Errno::ENOENT
            }),
        };
        self.pending.end(slot);
        shared.finish(slot, answer);
    }

    /// Owner `i` grants access to a range of its own.
    fn grant(&mut self, i: usize, segid: i64, writable: bool, span: Span) -> Sys<u64> {
        let c = self.peers.connection_mut(i);
        let owner = (i, c.identity);
        let granted = self.attacher.permits.grant(owner, segid, writable, span)?;
        c.permits += 1;
        Ok(granted)
    }

    /// The pages of a new attachment are ready, or what they are is known. If they are
    /// not, or not to be had, the first touch will tell. Answers its address.
    fn on_attached(
        &mut self,
        i: usize,
        (addr, attachment, fixed): (usize, u64, bool),
        m: &Message,
        file: Option<Fd>,
    ) -> Sys<usize> {
        let Some(p) = self.owner.program.attachments.at(addr) else {
            return Ok(addr);
        };
        if p.attachment != attachment || self.attacher.permits.get(p.permit).connection != i {
            return Ok(addr);
        }
        let range = (m.lo as usize, m.hi as usize);
        if m.status == Status::Done && m.flags & IN_WHOLE_PAGES != 0 {
            return self.make_room(i, (addr, attachment), m.addr as usize, range);
        }
        if m.status == Status::Done {
            let read_only = m.flags & READ_ONLY != 0;
            self.publish(addr, m, read_only);
        } else if m.status == Status::Elsewhere {
            let page = Lent { answer: m, file }.page().unwrap_or(PAGE);
            let mut addr = addr;
            if page > PAGE && !fixed {
                let last = p.source + (p.end - p.start);
                let range = (p.source & !(page - 1), last.next_multiple_of(page));
                addr = self.make_room(i, (addr, attachment), page, range)?;
            }
            let _ = self.overlay(i, addr, m, file);
            return Ok(addr);
        }
        Ok(addr)
    }
}
