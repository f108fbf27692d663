// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections between services. The attacher's side dials; the owner accepts.
//!
//! Nobody is waited for here. What does not go out at once is kept where it is
//! made: questions at the attacher ([`super::service::questions`]), requests at the owner
//! ([`super::owner::requests`]); both go on when the socket has room again.

#![forbid(unsafe_code)]

pub mod admission;
pub mod folder;
pub mod names;
pub mod rendezvous;

use super::arena::Shared;
use super::attacher::Piece;
use super::patience::Patience;
use super::protocol::wire::{Message, Verb, Words};
use super::service::CONNECTION_TOKEN;
use super::sys::net::{self, IN, OUT};
use super::sys::{mem, Sys, TOP};
use crate::debug_log;
use crate::user::service::state::Service;
use core::ffi::c_int;

/// How many messages of one connection are read before others are looked at.
const BATCH: usize = 64;

/// As many as a socket holds: everything that was sent before a moment.
const ALL: usize = 1024;

/// Cookies with this bit are of a command, and hold its slot; others are of a
/// fault, and are the page.
pub const COMMAND_COOKIE: u64 = 1 << 63;

/// Which side of a connection this process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Side {
    Free = 0,
    Attacher,
    Owner,
    /// Attacher's side, and the owner is gone: kept for its permits.
    Dead,
    /// Owner's side, and the attacher has been hung up on, but has not let go
    /// yet: it may still act upon what it was told before.
    Cut,
}

/// One connection. All zero is a free one.
pub struct Connection {
    pub side: Side,
    pub fd: c_int,
    /// For which the epoll set watches it.
    pub interest: u32,
    /// A message did not go out: the socket is full.
    pub clogged: bool,

    /// Attacher's side: the owner.
    pub token: u64,
    /// Attacher's side: the owner's address space; -1 before it came.
    pub memfd: c_int,
    /// As mappings show it.
    pub identity: (u64, u64),
    /// Attacher's side: readable when the owner is gone.
    pub pidfd: c_int,
    /// Attacher's side: permits that refer to this connection.
    pub permits: u32,
    /// Attacher's side: questions that have not been answered.
    pub under_way: usize,
    /// Attacher's side: something waits for room to be sent.
    pub unsent: bool,
    /// Attacher's side: answers that were acted upon, and the owner is still to
    /// be told.
    pub unsaid: u64,
    /// Attacher's side: the answer to a recall that is still to be sent.
    pub owes: bool,
    pub owed: Words,
    /// Attacher's side: why the owner has refused, as an errno.
    pub refusal: c_int,

    /// Owner's side: the attacher's process, as seen from here.
    pub pid: i32,
    /// Owner's side: where the last lazily shared chunk ended, and the size of
    /// the next one.
    pub next_expected: usize,
    pub chunk: usize,
    /// Owner's side: it has had an answer to `Share`, and may show pages.
    pub served: bool,
    /// Owner's side: answers to `Share` that have not been acted upon, and how
    /// long somebody has waited for that.
    pub unnoted: u64,
    pub patience: Patience,
    /// Owner's side: the last recall that it was sent, and the last that it has
    /// answered. It answers in order, and may leave out what a later answer says.
    pub recall: u64,
    pub recalled: u64,
}

/// A connection of nobody's.
const NEW: Connection = Connection {
    side: Side::Free,
    fd: -1,
    interest: 0,
    clogged: false,
    token: 0,
    memfd: -1,
    identity: (0, 0),
    pidfd: -1,
    permits: 0,
    under_way: 0,
    unsent: false,
    unsaid: 0,
    owes: false,
    owed: [0; 8],
    refusal: 0,
    pid: 0,
    next_expected: 0,
    chunk: 0,
    served: false,
    unnoted: 0,
    patience: Patience::NEW,
    recall: 0,
    recalled: 0,
};

impl Service {
    /// The connection to the owner `token`, made where there is none. EAGAIN:
    /// the owner has more to accept than it can, for now.
    pub fn connection_to(&mut self, shared: &Shared, token: u64) -> Sys<usize> {
        let known = self
            .connections
            .iter()
            .position(|c| c.side == Side::Attacher && c.token == token);
        if let Some(i) = known {
            self.drain_all(shared, i);
            if self.connections[i].side == Side::Attacher {
                return Ok(i);
            }
        }
        self.prepare_to_sever()?;
        let fd = self.dial(token)?;
        let i = self.adopt(fd, Side::Attacher).inspect_err(|_| {
            crate::rawsys::close(fd);
        })?;
        self.connections[i].token = token;
        let mut hello = Message::new(Verb::Hello);
        hello.serial = self.next_question();
        self.connections[i].under_way = 1;
        if !self.post(i, &hello, None) {
            // Why not, it may have said.
            self.refusal = libc::ENOENT;
            self.drain_all(shared, i);
            if self.connections[i].side == Side::Attacher {
                self.hang_up(shared, i);
            }
            return Err(self.refusal);
        }
        Ok(i)
    }

    /// Takes a connected socket into the table and the epoll set.
    pub fn adopt(&mut self, fd: c_int, side: Side) -> Sys<usize> {
        let free = |c: &Connection| c.side == Side::Free;
        let i = self.connections.iter().position(free);
        let i = i.ok_or(libc::ENOMEM)?;
        net::watch(self.epoll, fd, CONNECTION_TOKEN + i as u64)?;
        self.connections[i] = Connection {
            side,
            fd,
            interest: IN,
            ..NEW
        };
        Ok(i)
    }

    /// Sends a message; whether it is on its way.
    pub fn post(&mut self, i: usize, message: &Message, fds: Option<[c_int; 2]>) -> bool {
        self.try_post(i, message, fds).is_ok()
    }

    /// As [`Self::post`]. EAGAIN: there is no room for it, and it is heard of
    /// when there is.
    pub fn try_post(&mut self, i: usize, m: &Message, fds: Option<[c_int; 2]>) -> Sys<()> {
        match net::send(self.connections[i].fd, &m.encode(), fds) {
            Err(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => {
                self.connections[i].clogged = true;
                self.attend(i);
                Err(libc::EAGAIN)
            }
            sent => sent,
        }
    }

    /// Has the epoll set watch a connection for what is wanted of it.
    pub fn attend(&mut self, i: usize) {
        let c = &self.connections[i];
        let reads = match c.side {
            Side::Free | Side::Dead => return,
            Side::Owner => self.requests.has_room(i),
            Side::Attacher | Side::Cut => true,
        };
        let wanted = if reads { IN } else { 0 } | if c.clogged { OUT } else { 0 };
        if wanted != c.interest {
            let token = CONNECTION_TOKEN + i as u64;
            if net::watch_for(self.epoll, c.fd, token, wanted).is_ok() {
                self.connections[i].interest = wanted;
            }
        }
    }

    /// Something has happened on a connection, or had when it was told.
    pub fn on_connection(&mut self, shared: &Shared, i: usize, events: u32) {
        let Some(c) = self.connections.get_mut(i) else {
            return;
        };
        if matches!(c.side, Side::Free | Side::Dead) {
            return;
        }
        if events & OUT != 0 && c.clogged {
            c.clogged = false;
            if c.side == Side::Attacher {
                self.send_unsent(i);
            }
            self.attend(i);
        }
        let c = &self.connections[i];
        // What an attacher wanted that is gone is not looked at. What an owner has
        // said before is: perhaps why.
        if events & net::HUP != 0 && c.side == Side::Owner && net::is_hung_up(c.fd) {
            return self.hang_up(shared, i);
        }
        self.drain(shared, i, BATCH);
    }

    /// An owner has ended, or had when it was told.
    pub fn on_pidfd(&mut self, shared: &Shared, i: usize) {
        let Some(c) = self.connections.get(i) else {
            return;
        };
        if c.side == Side::Attacher && c.pidfd >= 0 && net::has_input(c.pidfd) {
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
        let mut fds = net::Descriptors::NONE;
        for _ in 0..most {
            let c = &self.connections[i];
            match c.side {
                Side::Free | Side::Dead => break,
                Side::Owner if !self.requests.has_room(i) => break,
                _ => {}
            }
            let fd = c.fd;
            match net::receive(fd, &mut words, &mut fds) {
                Ok(Some(())) => match Message::decode(&words) {
                    _ if self.connections[i].side == Side::Cut => {}
                    Some(message) => self.on_message(shared, i, &message, &mut fds),
                    None => {
                        debug_log!("a peer sends what is not of this protocol: hung up");
                        self.hang_up(shared, i);
                    }
                },
                // It is told of again.
                Err(libc::EAGAIN | libc::ENOMEM | libc::ENOBUFS) => break,
                Err(libc::EINTR) => {}
                Ok(None) | Err(_) => self.hang_up(shared, i),
            }
            self.dispose(shared, &mut fds);
        }
        self.attend(i);
    }

    /// Owner's side: an attacher has not done in time what others wait for. It
    /// is told nothing more and heard no more. When it notices, its attachments
    /// are cut; until it has let go of the connection it is reckoned with.
    pub fn cut(&mut self, i: usize) {
        let c = &mut self.connections[i];
        debug_log!("{} does not do in time what it is asked: hung up", c.pid);
        crate::debug::count(&crate::debug::COUNTERS.peers_cut);
        c.side = Side::Cut;
        c.clogged = false;
        net::end_sending(c.fd);
        self.cut_off += 1;
        self.requests.forget(i);
        self.attend(i);
    }

    /// Ends a connection. On the attacher's side the owner is gone: its memory
    /// goes away from here, and waiting commands are answered.
    pub fn hang_up(&mut self, shared: &Shared, i: usize) {
        let old = core::mem::replace(&mut self.connections[i], NEW);
        net::unwatch(self.epoll, old.fd);
        crate::rawsys::close(old.fd);
        match old.side {
            Side::Attacher => {}
            Side::Free | Side::Dead => return,
            Side::Owner | Side::Cut => {
                self.unnoted -= old.unnoted;
                self.cut_off -= u32::from(old.side == Side::Cut);
                self.requests.forget(i);
                return;
            }
        }
        // Only a dead owner's memory is ours to clear away.
        let dead = old.pidfd >= 0 && net::has_input(old.pidfd);
        if old.memfd >= 0 && dead {
            let _ = mem::punch(old.memfd, 0, TOP);
        }
        let permits = &self.permits;
        let shown = |p: &Piece| permits[p.permit].connection == i && (p.overlay || !dead);
        if old.memfd >= 0 && self.program.attachments.any(shown) {
            self.sever_attachments_of(i);
        }
        if old.pidfd >= 0 {
            net::unwatch(self.epoll, old.pidfd);
            crate::rawsys::close(old.pidfd);
        }
        if old.memfd >= 0 {
            crate::rawsys::close(old.memfd);
        }
        if old.permits > 0 {
            let c = &mut self.connections[i];
            (c.side, c.permits, c.identity) = (Side::Dead, old.permits, old.identity);
        }
        let refusal = if old.refusal == 0 {
            libc::ENOENT
        } else {
            old.refusal
        };
        self.refusal = refusal;
        self.abandon_commands_of(shared, i, refusal);
        self.wake_attachments_of(i);
    }
}
