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
use crate::user::attacher::overlay::OnLoan;
use crate::user::owner::copier;
use crate::user::peers::{tag, Side, COMMAND_COOKIE};
use crate::user::protocol::message::{Answer, Body, Denial, Message, Pages, Question};
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
        match (self.peers.side(i), m.body) {
            (Side::Owner, Body::Question(Question::Noted { answers })) => {
                self.on_noted(shared, i, answers);
            }
            (Side::Owner, Body::Answer(Answer::Withdrawn { done })) => {
                let c = self.peers.connection_mut(i);
                if c.recalled < m.serial && m.serial <= c.recall {
                    c.recalled = m.serial;
                    self.recall_refused |= !done;
                }
            }
            (Side::Attacher, Body::Question(Question::Withdraw(what))) => {
                let done = self.on_withdrawn(i, what);
                self.answer_recall(i, m, done);
            }
            (Side::Owner, Body::Question(asked)) if !matches!(asked, Question::Withdraw(_)) => {
                self.peers.requests.push(i, &m.encode());
            }
            (Side::Attacher, Body::Answer(said)) => self.on_answer(shared, i, (m, said), fds),
            _ => debug_log!("a peer sends {:?} on the wrong side", m.body),
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
    fn answer_recall(&mut self, i: usize, asked: &Message, done: bool) {
        const FAILED: Body = Body::Answer(Answer::Withdrawn { done: false });
        let c = self.peers.connection(i);
        let failed_before = c.has_unsent_answer
            && Message::decode(&c.unsent_answer).is_some_and(|m| m.body == FAILED);
        let done = done && !failed_before;
        let answer = asked.answer(Answer::Withdrawn { done });
        if !self.peers.post(i, &answer, None) && self.peers.connection(i).clogged {
            let c = self.peers.connection_mut(i);
            (c.has_unsent_answer, c.unsent_answer, c.unsent) = (true, answer.encode(), true);
        }
    }

    /// Attacher's side: the owner has answered.
    fn on_answer(
        &mut self,
        shared: &Shared,
        i: usize,
        (m, said): (&Message, Answer),
        fds: &mut Descriptors,
    ) {
        let c = self.peers.connection_mut(i);
        c.under_way = c.under_way.saturating_sub(1);
        if let Answer::Hello(taken) = said {
            if let Err(errno) = self.on_hello(i, taken, fds) {
                debug_log!("an owner takes nobody, or has no address space: errno {errno}");
                self.peers.connection_mut(i).refusal = Some(errno);
                return self.hang_up(shared, i);
            }
        } else if m.cookie & COMMAND_COOKIE != 0 {
            self.on_command_answer(shared, i, (m, said), fds.first());
        } else if let Answer::Share(pages) = said {
            self.on_fault_answer(i, m, pages, fds.first());
        }
        if matches!(said, Answer::Share(_)) && self.peers.side(i) == Side::Attacher {
            self.peers.connection_mut(i).unsaid += 1;
            self.peers.say_noted(i);
        }
        self.send_unsent(i);
    }

    /// The owner's address space has come: is it one?
    fn on_hello(&mut self, i: usize, taken: Result<(), Denial>, fds: &mut Descriptors) -> Sys<()> {
        taken.map_err(errno_of)?;
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
        self.peers.watch(pidfd, tag::PIDFD + i as u64)?;
        let c = self.peers.connection_mut(i);
        c.identity = mapped;
        if let Some([memfd, pidfd]) = fds.take_pair() {
            (c.memfd, c.pidfd) = (Some(memfd), Some(pidfd));
        }
        Ok(())
    }

    /// A peer answered what a command waits for, if it is the peer that was
    /// asked, and the question.
    fn on_command_answer(
        &mut self,
        shared: &Shared,
        i: usize,
        (m, said): (&Message, Answer),
        file: Option<Fd>,
    ) {
        let slot = (m.cookie & !COMMAND_COOKIE) as usize;
        let Some(what) = self.pending.asked(slot, i, (m.serial, said)) else {
            return;
        };
        let answer = match (what, said) {
            (What::Get { segid, writable }, Answer::Get(granted)) => {
                self.on_admitted(i, (segid, writable), granted)
            }
            // At an address of its own choice the program has nothing left to
            // go back to: there the first touch tells.
            (
                What::Attach {
                    addr,
                    attachment,
                    fixed: false,
                },
                Answer::Share(Pages::Refused),
            ) => {
                let still = self.owner.program.attachments.at(addr);
                if still.is_some_and(|p| p.attachment == attachment) {
                    attacher::unmap(&mut self.owner.program, addr);
                }
                Err(Errno::ENOMEM)
            }
            (
                What::Attach {
                    addr,
                    attachment,
                    fixed,
                },
                Answer::Share(pages),
            ) => {
                let addr = self.on_attached(i, (addr, attachment, fixed), pages, file);
                addr.map(|addr| addr as u64)
            }
            (What::Alive, Answer::Query { alive: true }) => Err(Errno::EACCES),
            _ => Err(Errno::ENOENT),
        };
        self.pending.end(slot);
        shared.finish(slot, answer);
    }

    /// Owner `i` grants access to a range of its own, or does not.
    fn on_admitted(
        &mut self,
        i: usize,
        (segid, writable): (i64, bool),
        granted: Result<Span, Denial>,
    ) -> Sys<u64> {
        let span = granted.map_err(errno_of)?;
        let c = self.peers.connection(i);
        if c.memfd.is_none() {
            return Err(Errno::ENOENT);
        }
        let owner = (i, c.identity);
        let granted = self.attacher.permits.grant(owner, segid, writable, span)?;
        self.peers.connection_mut(i).permits += 1;
        Ok(granted)
    }

    /// The pages of a new attachment are ready, or what they are is known. If they are
    /// not, or not to be had, the first touch will tell. Answers its address.
    fn on_attached(
        &mut self,
        i: usize,
        (addr, attachment, fixed): (usize, u64, bool),
        pages: Pages,
        file: Option<Fd>,
    ) -> Sys<usize> {
        let Some(p) = self.owner.program.attachments.at(addr) else {
            return Ok(addr);
        };
        if p.attachment != attachment || self.attacher.permits.get(p.permit).connection != i {
            return Ok(addr);
        }
        match pages {
            Pages::Layout { span, page } => self.make_room(i, (addr, attachment), page, span),
            Pages::Here { span, about } => {
                self.publish(addr, span, about);
                Ok(addr)
            }
            Pages::Elsewhere(said) => {
                let lent = OnLoan { said, file };
                let page = lent.page().unwrap_or(PAGE);
                let mut addr = addr;
                if page > PAGE && !fixed {
                    let last = p.source + (p.end - p.start);
                    let whole = Span::new(p.source & !(page - 1), last.next_multiple_of(page));
                    addr = self.make_room(i, (addr, attachment), page, whole)?;
                }
                let _ = self.overlay(i, addr, &lent);
                Ok(addr)
            }
            Pages::Hole | Pages::Gone | Pages::Refused => Ok(addr),
        }
    }
}

/// What the program is told where an owner does not take or admit it.
fn errno_of(why: Denial) -> Errno {
    match why {
        Denial::Denied => Errno::EACCES,
        Denial::Full => Errno::ENOMEM,
        Denial::Gone => Errno::ENOENT,
    }
}
