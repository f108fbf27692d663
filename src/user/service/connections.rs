// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections: dials owners, receives from peers, and hangs up.

#![forbid(unsafe_code)]

use super::messages::{close_apart, dispose};
use crate::debug_log;
use crate::errno::Errno;
use crate::user::arena::Shared;
use crate::user::attacher::Piece;
use crate::user::peers::Side;
use crate::user::protocol::message::{Message, Question};
use crate::user::protocol::wire::Words;
use crate::user::service::commands::OWNER_BUSY;
use crate::user::service::state::Service;
use crate::user::sys::message;
use crate::user::sys::net::{self, OUT};
use crate::user::sys::Sys;

/// How many messages of one connection are read before others are looked at.
const BATCH: usize = 64;

/// As many as a socket holds: everything that was sent before a moment.
const ALL: usize = 1024;

impl Service {
    /// Takes new attachers of the same user.
    pub fn accept(&mut self, shared: &Shared) {
        let spare = &mut self.owner.program.spare;
        self.peers.accept(spare, &|fds| dispose(shared, fds));
    }

    /// The connection to the owner `token`, made where there is none. `OWNER_BUSY`:
    /// the owner has more to accept than it can, for now.
    pub fn connection_to(&mut self, shared: &Shared, token: u64) -> Sys<usize> {
        if let Some(i) = self.peers.to_owner(token) {
            self.drain_all(shared, i);
            if self.peers.side(i) == Side::Attacher {
                return Ok(i);
            }
        }
        self.attacher.prepare_to_sever(&self.owner.program)?;
        let fd = self.peers.dial(token).map_err(|errno| match errno {
            Errno::EAGAIN => OWNER_BUSY,
            _ => errno,
        })?;
        let i = self.peers.adopt(fd.fd(), Side::Attacher)?;
        fd.keep();
        self.peers.connection_mut(i).token = token;
        let mut hello = Message::question(Question::Hello);
        hello.serial = self.peers.next_question();
        self.peers.connection_mut(i).under_way = 1;
        if !self.peers.post(i, &hello, None) {
            // Why not, it may have said.
            self.peers.set_refusal(Errno::ENOENT);
            self.drain_all(shared, i);
            if self.peers.side(i) == Side::Attacher {
                self.hang_up(shared, i);
            }
            return Err(self.peers.refusal());
        }
        Ok(i)
    }

    /// Something has happened on a connection, or had when it was told.
    pub fn on_connection(&mut self, shared: &Shared, i: usize, events: u32) {
        if self.peers.in_use(i).is_none() {
            return;
        }
        let c = self.peers.connection_mut(i);
        if events & OUT != 0 && c.clogged {
            c.clogged = false;
            if c.side == Side::Attacher {
                self.send_unsent(i);
            }
            self.peers.attend(i);
        }
        let c = self.peers.connection(i);
        // What an attacher wanted that is gone is not looked at. What an owner has
        // said before is: perhaps why.
        if events & net::HUP != 0 && c.side == Side::Owner && net::is_hung_up(c.fd) {
            return self.hang_up(shared, i);
        }
        self.drain(shared, i, BATCH);
    }

    /// An owner has ended, or had when it was told.
    pub fn on_pidfd(&mut self, shared: &Shared, i: usize) {
        // An attacher's side alone has one.
        let pidfd = self.peers.in_use(i).and_then(|c| c.pidfd.as_ref());
        if pidfd.is_some_and(|pidfd| net::has_input(pidfd.fd())) {
            self.hang_up(shared, i);
        }
    }

    /// Reads everything that was sent before now.
    pub fn drain_all(&mut self, shared: &Shared, i: usize) {
        self.drain(shared, i, ALL);
        self.on_pidfd(shared, i);
    }

    /// Reads what has arrived, and notices the end of the other side.
    fn drain(&mut self, shared: &Shared, i: usize, most: usize) {
        let mut words: Words = [0; 8];
        let mut fds = message::Descriptors::NONE;
        for _ in 0..most {
            let c = self.peers.connection(i);
            match c.side {
                Side::Free | Side::Dead => break,
                Side::Owner if !self.peers.requests.has_room(i) => break,
                _ => {}
            }
            let fd = c.fd;
            match message::receive(fd, &mut words, &mut fds) {
                Ok(Some(())) => match Message::decode(&words) {
                    _ if self.peers.side(i) == Side::Cut => {}
                    Some(message) => self.on_message(shared, i, &message, &mut fds),
                    None => {
                        debug_log!("a peer sends what is not of this protocol: hung up");
                        self.hang_up(shared, i);
                    }
                },
                // It is told of again.
                Err(Errno::EAGAIN | Errno::ENOMEM | Errno::ENOBUFS) => break,
                Err(Errno::EINTR) => {}
                Ok(None) | Err(_) => self.hang_up(shared, i),
            }
            dispose(shared, &mut fds);
        }
        self.peers.attend(i);
    }

    /// Ends a connection. On the attacher's side the owner is gone: its memory
    /// goes away from here, and waiting commands are answered.
    pub fn hang_up(&mut self, shared: &Shared, i: usize) {
        let old = self.peers.close(i);
        self.owner.loans.forget(i);
        if old.side != Side::Attacher {
            return;
        }
        // Only a dead owner's memory is ours to clear away.
        let dead = old.pidfd.as_ref().is_some_and(|fd| net::has_input(fd.fd()));
        let permits = &self.attacher.permits;
        let shown = |p: &Piece| permits.get(p.permit).connection == i && (p.overlay || !dead);
        if old.memfd.is_some() && self.owner.program.attachments.any(shown) {
            self.sever_attachments_of(i);
        }
        if let Some(pidfd) = old.pidfd {
            self.peers.unwatch(pidfd.fd());
        }
        match old.memfd {
            Some(memfd) if dead => self.peers.emptying.take(memfd),
            Some(memfd) => close_apart(shared, memfd),
            None => {}
        }
        if old.permits > 0 {
            let c = self.peers.connection_mut(i);
            (c.side, c.permits, c.identity) = (Side::Dead, old.permits, old.identity);
        }
        let refusal = old.refusal.unwrap_or(Errno::ENOENT);
        self.peers.set_refusal(refusal);
        self.abandon_commands_of(shared, i, refusal);
        self.attacher.wake_attachments_of(&self.owner.program, i);
    }
}
