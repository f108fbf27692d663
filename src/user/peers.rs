// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections between services. The attacher's side dials; the owner accepts.

use super::attacher::Piece;
use super::ids::{Id, Kind};
use super::service::{Service, Waiting, CONNECTION_TOKEN};
use super::shared::{Op, Shared};
use super::sys::{mem, net, Sys, TOP};
use super::wire::{Message, Status, Verb, Words, READ_ONLY};
use crate::debug_log;
use core::ffi::c_int;

/// Most connections at a time, both directions together.
pub const CONNECTIONS: usize = 4096;

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
}

/// One connection. All zero is a free one.
pub struct Connection {
    pub side: Side,
    pub fd: c_int,
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
    /// Owner's side: where the last lazily shared chunk ended, and the size of
    /// the next one.
    pub next_expected: usize,
    pub chunk: usize,
    /// Owner's side: answers to `Share` that have not been acted upon.
    pub unnoted: u32,
    /// Owner's side: recalls that have not been answered. Counted: the answer to
    /// one that was no longer waited for must not stand for the next one's.
    pub recalls: u32,
}

impl Service {
    /// The connection to the owner `token`, made where there is none.
    pub fn connection_to(&mut self, shared: &Shared, token: u64) -> Sys<usize> {
        let known = self
            .connections
            .iter()
            .position(|c| c.side == Side::Attacher && c.token == token);
        if let Some(i) = known {
            self.drain(shared, i);
            if self.connections[i].side == Side::Attacher {
                return Ok(i);
            }
        }
        let fd = self.dial(shared, token)?;
        let i = match self.adopt(fd, Side::Attacher) {
            Ok(i) => i,
            Err(errno) => {
                crate::rawsys::close(fd);
                return Err(errno);
            }
        };
        self.connections[i].token = token;
        if !self.post(i, &Message::new(Verb::Hello), None) {
            self.hang_up(shared, i);
            return Err(libc::ENOENT);
        }
        Ok(i)
    }

    /// Takes a connected socket into the table and the epoll set.
    fn adopt(&mut self, fd: c_int, side: Side) -> Sys<usize> {
        let i = self
            .connections
            .iter()
            .position(|c| c.side == Side::Free)
            .ok_or(libc::ENOMEM)?;
        net::watch(self.epoll, fd, CONNECTION_TOKEN + i as u64)?;
        self.connections[i] = Connection {
            side,
            fd,
            token: 0,
            memfd: -1,
            identity: (0, 0),
            pidfd: -1,
            permits: 0,
            next_expected: 0,
            chunk: 0,
            unnoted: 0,
            recalls: 0,
        };
        Ok(i)
    }

    /// Takes new attachers of the same user.
    pub fn accept(&mut self) {
        while let Ok(fd) = net::accept(self.listener) {
            let uid = net::peer_uid(fd);
            if uid != Ok(self.uid) {
                debug_log!("refused a connection of uid {uid:?}");
                let _ = net::send(
                    fd,
                    &Message::new(Verb::Answer).answer(Status::Denied).encode(),
                    None,
                );
                crate::rawsys::close(fd);
            } else if self.adopt(fd, Side::Owner).is_err() {
                crate::rawsys::close(fd);
            }
        }
    }

    /// Sends a message; whether it is on its way.
    pub fn post(&mut self, i: usize, message: &Message, fds: Option<[c_int; 2]>) -> bool {
        net::send(self.connections[i].fd, &message.encode(), fds).is_ok()
    }

    /// Reads everything that a connection has.
    pub fn on_connection(&mut self, shared: &Shared, i: usize) {
        if i < CONNECTIONS && !matches!(self.connections[i].side, Side::Free | Side::Dead) {
            self.drain(shared, i);
        } else if i < CONNECTIONS && self.connections[i].side == Side::Dead {
            net::unwatch(self.epoll, self.connections[i].pidfd);
        }
    }

    /// Reads what has arrived, and notices the end of the other side.
    pub fn drain(&mut self, shared: &Shared, i: usize) {
        let mut words: Words = [0; 8];
        let mut fds = [-1; 2];
        while matches!(self.connections[i].side, Side::Attacher | Side::Owner) {
            match net::receive(self.connections[i].fd, &mut words, &mut fds) {
                Ok(Some(())) => match Message::decode(&words) {
                    Some(message) => self.on_message(shared, i, &message, fds),
                    None => {
                        debug_log!("a peer sends what is not of this protocol: hung up");
                        close_all(fds);
                        self.hang_up(shared, i);
                    }
                },
                Err(libc::EAGAIN) => break,
                Err(libc::EINTR) => {}
                Ok(None) | Err(_) => {
                    close_all(fds);
                    self.hang_up(shared, i);
                }
            }
        }
        let c = &self.connections[i];
        if c.side == Side::Attacher && c.pidfd >= 0 && net::has_input(c.pidfd) {
            self.hang_up(shared, i);
        }
    }

    fn on_message(&mut self, shared: &Shared, i: usize, m: &Message, fds: [c_int; 2]) {
        match (self.connections[i].side, m.verb) {
            (Side::Owner, Verb::Hello) => {
                let answer = m.answer(Status::Done);
                let fds = [self.memfd, self.pidfd];
                self.post(i, &answer, Some(fds));
            }
            (Side::Owner, Verb::Get) => self.on_get(i, m),
            (Side::Owner, Verb::Share) => self.on_share(shared, i, m),
            (Side::Owner, Verb::Query) => {
                let alive = self.is_alive(m.id);
                self.post(
                    i,
                    &m.answer(if alive { Status::Done } else { Status::Gone }),
                    None,
                );
            }
            (Side::Owner, Verb::Noted) => {
                let c = &mut self.connections[i];
                c.unnoted = c.unnoted.saturating_sub(1);
            }
            (Side::Owner, Verb::Answer) if m.flags == Verb::Recall as u64 => {
                let c = &mut self.connections[i];
                c.recalls = c.recalls.saturating_sub(1);
            }
            (Side::Attacher, Verb::Recall) => {
                self.on_recall(i, m.lo as usize, m.hi as usize);
                self.post(i, &m.answer(Status::Done), None);
            }
            (Side::Attacher, Verb::Removed) => self.on_removed(i, m.id),
            (Side::Attacher, Verb::Answer) if m.answers(Verb::Hello) => {
                if self.on_hello(i, fds).is_err() {
                    debug_log!("an owner hands out what is no address space: hung up");
                    close_all(fds);
                    self.hang_up(shared, i);
                }
                return;
            }
            (Side::Attacher, Verb::Answer) if m.cookie & COMMAND_COOKIE != 0 => {
                self.on_command_answer(shared, i, m, fds[0]);
                self.note(i, m);
            }
            (Side::Attacher, Verb::Answer) if m.answers(Verb::Share) => {
                self.on_fault_answer(i, m, fds[0]);
                self.note(i, m);
            }
            _ => debug_log!("a peer sends {:?} on the wrong side", m.verb),
        }
        close_all(fds);
    }

    /// Tells the owner that its answer has been acted upon.
    fn note(&mut self, i: usize, m: &Message) {
        if m.answers(Verb::Share) && self.connections[i].side == Side::Attacher {
            self.post(i, &Message::new(Verb::Noted), None);
        }
    }

    /// The owner's address space has come: is it one?
    fn on_hello(&mut self, i: usize, fds: [c_int; 2]) -> Sys<()> {
        let [memfd, pidfd] = fds;
        let fixed = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
        let (_, _, size) = mem::identity(memfd)?;
        if size != TOP as u64 || mem::seals(memfd)? & fixed != fixed || pidfd < 0 {
            return Err(libc::EPROTO);
        }
        if self.connections[i].memfd >= 0 {
            return Err(libc::EPROTO);
        }
        let mapped = self.identity_as_mapped(memfd).ok_or(libc::EPROTO)?;
        let c = &mut self.connections[i];
        (c.memfd, c.pidfd, c.identity) = (memfd, pidfd, mapped);
        net::watch(self.epoll, pidfd, CONNECTION_TOKEN + i as u64)
    }

    /// A peer answered what a command waits for, if it is the peer that was
    /// asked, and the question.
    fn on_command_answer(&mut self, shared: &Shared, i: usize, m: &Message, fd: c_int) {
        let slot = (m.cookie & !COMMAND_COOKIE) as usize;
        let Some(w) = self.waiting.get_mut(slot) else {
            return;
        };
        let verb = if w.op == Op::Get as u32 {
            Verb::Get
        } else if w.op == Op::Attach as u32 {
            Verb::Share
        } else {
            Verb::Query
        };
        if w.connection != i + 1 || w.serial != m.serial || !m.answers(verb) {
            return;
        }
        w.connection = 0;
        let w = *w;
        let answer = match verb {
            Verb::Get => match m.status {
                Status::Done if self.connections[i].memfd >= 0 => {
                    self.grant(i, w.id, w.flags as c_int, m.lo as usize, m.hi as usize)
                }
                Status::Denied => Err(libc::EACCES),
                _ => Err(libc::ENOENT),
            },
            Verb::Share => {
                self.on_attached(i, &w, m, fd);
                Ok(w.value)
            }
            // A question about somebody else's id.
            _ => Err(if m.status == Status::Done {
                libc::EACCES
            } else {
                libc::ENOENT
            }),
        };
        shared.finish(slot, answer);
    }

    /// The pages of a new attachment are ready. If they are not, or not to be
    /// had, the first touch will tell.
    fn on_attached(&mut self, i: usize, w: &Waiting, m: &Message, fd: c_int) {
        let addr = w.value as usize;
        let Some(p) = self.attachments.at(addr) else {
            return;
        };
        if p.attachment != w.flags || self.permits[p.permit].connection != i {
            return;
        }
        if m.status == Status::Done {
            let read_only = m.flags & READ_ONLY != 0;
            self.publish(addr, m.lo as usize, m.hi as usize, read_only);
        } else if m.status == Status::Elsewhere {
            let _ = self.overlay(addr, m, fd);
        }
    }

    /// Ends a connection. On the attacher's side the owner is gone: its memory
    /// goes away from here, and waiting commands are answered.
    pub fn hang_up(&mut self, shared: &Shared, i: usize) {
        let c = &mut self.connections[i];
        let side = c.side;
        let (fd, memfd, pidfd) = (c.fd, c.memfd, c.pidfd);
        c.side = Side::Free;
        net::unwatch(self.epoll, fd);
        crate::rawsys::close(fd);
        if side == Side::Owner {
            self.deferred.forget(i);
            return;
        }
        // Only a dead owner's memory is ours to clear away.
        let dead = pidfd >= 0 && net::has_input(pidfd);
        if memfd >= 0 && dead {
            let _ = mem::punch(memfd, 0, TOP);
        }
        let permits = &self.permits;
        let overlaid = |p: &Piece| p.overlay && permits[p.permit].connection == i;
        if memfd >= 0 && (!dead || self.attachments.any(overlaid)) {
            self.sever_attachments_of(i);
        }
        for fd in [memfd, pidfd] {
            if fd >= 0 {
                net::unwatch(self.epoll, fd);
                crate::rawsys::close(fd);
            }
        }
        if self.connections[i].permits > 0 {
            self.connections[i].side = Side::Dead;
        }
        for slot in 0..self.waiting.len() {
            if self.waiting[slot].connection == i + 1 {
                self.waiting[slot].connection = 0;
                let op = self.waiting[slot].op;
                let answer = if op == Op::Attach as u32 {
                    Ok(self.waiting[slot].value)
                } else {
                    Err(libc::ENOENT)
                };
                shared.finish(slot, answer);
            }
        }
        self.wake_attachments_of(i);
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
            Err(errno) => {
                return Some(Err(if errno == libc::EACCES {
                    errno
                } else {
                    libc::ENOENT
                }))
            }
        };
        let mut m = Message::new(Verb::Query);
        m.id = id;
        self.wait_for_peer(&mut m, slot, i, Op::Release);
        if self.post(i, &m, None) {
            None
        } else {
            self.waiting[slot].connection = 0;
            Some(Err(libc::ENOENT))
        }
    }
}

fn close_all(fds: [c_int; 2]) {
    for fd in fds {
        if fd >= 0 {
            crate::rawsys::close(fd);
        }
    }
}
