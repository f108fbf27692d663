// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections between services. The attacher's side dials; the owner accepts.
//!
//! Nobody is waited for here. What does not go out at once is kept where it is
//! made: questions at the attacher, requests at the owner ([`requests`]); both go on
//! when the socket has room again.

#![forbid(unsafe_code)]

pub mod admission;
mod connection;
pub mod crowd;
pub mod emptying;
pub mod folder;
mod lateness;
pub mod names;
pub mod rendezvous;
pub mod requests;
pub mod streams;

use super::patience::Patience;
use super::protocol::limits::{CONNECTIONS, WINDOW};
use super::protocol::message::{Message, Question};
use super::sys::message;
use super::sys::net::{self, EVENTS, IN, OUT};
use super::sys::{task, Sys};
use crate::debug_log;
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use connection::NEW;
pub use connection::{Connection, Side};
use core::ffi::c_int;
use crowd::Slow;
use emptying::Emptying;
use lateness::Lateness;
use requests::Requests;

/// Cookies with this bit are of a command, and hold its slot; others are of a
/// fault, and are the page.
pub const COMMAND_COOKIE: u64 = 1 << 63;

/// Tags of the descriptors in the epoll set; a connection is `CONNECTION + i`, and
/// the process of its owner `PIDFD + i`.
pub mod tag {
    pub const SIGNALS: u64 = 1;
    pub const BELL: u64 = 6;
    pub const LISTENER: u64 = 2;
    pub const EVENTS: u64 = 3;
    pub const FAULTS: u64 = 4;
    pub const OWNER: u64 = 5;
    pub const CONNECTION: u64 = 1 << 32;
    pub const PIDFD: u64 = 1 << 33;
}

/// Everything that is known of peers, and how they find this process. All zero is
/// valid; the service gives the real values at its start.
pub struct Peers {
    epoll: Fd,
    listener: Fd,
    /// The listener is not looked at before.
    deaf_until: u64,
    connections: [Connection; CONNECTIONS],
    /// Of each connection of an attacher: its process; 0: of none.
    attachers: [u64; CONNECTIONS],
    slow: Slow,
    /// Those that have ended are looked for then, and a place for another not before.
    ended_due: u64,
    full_until: u64,
    /// Of all attachers: answers that have not been acted upon.
    unnoted: u64,
    /// How many attachers have been hung up on that have not let go.
    cut_off: u32,
    /// Why the last owner that hung up did so, as an errno.
    refusal: Option<Errno>,
    /// The folder of this user's processes, also the working directory, and the
    /// one that holds it.
    folder: Fd,
    base: Fd,
    /// Name of this process in ids and in the folder of sockets.
    token: u64,
    uid: u32,
    pub requests: Requests,
    /// Files of owners that have ended.
    pub emptying: Emptying,
    /// Serial number of the last question to a peer.
    questions: u64,
}

impl Peers {
    /// Opens what everything is waited for with.
    pub fn open(&mut self) -> Sys<()> {
        self.epoll = net::epoll()?.keep();
        Ok(())
    }

    /// Reports by its `tag` when there is something to read from `fd`.
    pub fn watch(&self, fd: Fd, tag: u64) -> Sys<()> {
        net::watch(self.epoll, fd, tag)
    }

    /// Tells of it no more.
    pub fn unwatch(&self, fd: Fd) {
        net::unwatch(self.epoll, fd);
    }

    /// Waits up to `ms` (-1: for ever) until something has happened; answers how much,
    /// and the names of where.
    pub fn wait(&self, happened: &mut [(u64, u32); EVENTS], ms: c_int) -> usize {
        net::wait(self.epoll, happened, ms)
    }

    /// Connection `i`, which is one of the table.
    pub fn connection(&self, i: usize) -> &Connection {
        &self.connections[i]
    }

    /// Connection `i`, to be changed.
    pub fn connection_mut(&mut self, i: usize) -> &mut Connection {
        &mut self.connections[i]
    }

    /// Which side of connection `i` this process is.
    pub fn side(&self, i: usize) -> Side {
        self.connections[i].side
    }

    /// Connection `i`, if it is one of the table that is in use.
    pub fn in_use(&self, i: usize) -> Option<&Connection> {
        let c = self.connections.get(i)?;
        (!matches!(c.side, Side::Free | Side::Dead)).then_some(c)
    }

    /// The connection to the owner with this token.
    pub fn to_owner(&self, token: u64) -> Option<usize> {
        let is_it = |c: &Connection| c.side == Side::Attacher && c.token == token;
        self.connections.iter().position(is_it)
    }

    /// Takes note that recall `serial` goes to every attacher that may show something,
    /// or to `all`; answers to which, a bit for each.
    pub fn begin_recall(&mut self, serial: u64, all: bool) -> [u64; CONNECTIONS / 64] {
        let mut asked = [0; CONNECTIONS / 64];
        for (i, c) in self.connections.iter_mut().enumerate() {
            if c.side == Side::Owner && (c.served || all) {
                (c.recall, c.answering) = (serial, Lateness::NEW);
                asked[i / 64] |= 1 << (i % 64);
            }
        }
        asked
    }

    /// Sets the user whom this process and its peers are of.
    pub fn set_uid(&mut self, uid: u32) {
        self.uid = uid;
    }

    /// The user whom this process and its peers are of.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Name of this process in ids and in the folder of sockets.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Why the last owner that hung up did so, as an errno.
    pub fn refusal(&self) -> Errno {
        self.refusal.unwrap_or(Errno::ENOENT)
    }

    /// Takes note of why an owner hung up.
    pub fn set_refusal(&mut self, errno: Errno) {
        self.refusal = Some(errno);
    }

    /// An answer to `Share` has been given to attacher `i`, who has to act upon it.
    pub fn answered(&mut self, i: usize) {
        let c = &mut self.connections[i];
        c.served = true;
        c.unnoted += 1;
        self.unnoted += 1;
    }

    /// Attacher `i` has acted upon so many; false if it was not given them.
    pub fn noted(&mut self, i: usize, answers: u64) -> bool {
        let c = &mut self.connections[i];
        let Some(left) = c.unnoted.checked_sub(answers) else {
            return false;
        };
        c.unnoted = left;
        (c.patience, c.acknowledging) = (Patience::NEW, Lateness::NEW);
        self.unnoted -= answers;
        true
    }

    /// Whether all attachers that have been hung up on have let go.
    pub fn have_let_go(&self) -> bool {
        self.cut_off == 0
    }

    /// Takes a connected socket into the table and the epoll set, which close it from
    /// then on.
    pub fn adopt(&mut self, fd: Fd, side: Side) -> Sys<usize> {
        let free = |c: &Connection| c.side == Side::Free;
        let i = self.connections.iter().position(free);
        let i = i.ok_or(Errno::ENOMEM)?;
        net::watch(self.epoll, fd, tag::CONNECTION + i as u64)?;
        self.connections[i] = Connection {
            side,
            fd,
            interest: IN,
            ..NEW
        };
        Ok(i)
    }

    /// Sends a message; whether it is on its way.
    pub fn post(&mut self, i: usize, message: &Message, fds: Option<[Fd; 2]>) -> bool {
        self.try_post(i, message, fds).is_ok()
    }

    /// As [`Self::post`]. EAGAIN: there is no room for it, and it is heard of
    /// when there is.
    pub fn try_post(&mut self, i: usize, m: &Message, fds: Option<[Fd; 2]>) -> Sys<()> {
        match message::send(self.connections[i].fd, &m.encode(), fds) {
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => {
                self.connections[i].clogged = true;
                self.attend(i);
                Err(Errno::EAGAIN)
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
            let tag = tag::CONNECTION + i as u64;
            if net::watch_for(self.epoll, c.fd, tag, wanted).is_ok() {
                self.connections[i].interest = wanted;
            }
        }
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
        self.slow.note(self.attachers[i]);
        let c = &mut self.connections[i];
        net::end_sending(c.fd);
        self.cut_off += 1;
        self.requests.forget(i);
        self.attend(i);
    }

    /// A serial number for a question: those of one process are never the same.
    pub fn next_question(&mut self) -> u64 {
        self.questions += 1;
        self.questions
    }

    /// Sends a question, if there is room for it at the owner. `false`: it is to
    /// be sent later. One that the owner's end overtakes counts as sent.
    pub fn ask(&mut self, i: usize, m: &Message) -> bool {
        let c = &mut self.connections[i];
        if c.clogged || c.under_way >= WINDOW {
            c.unsent = true;
            return false;
        }
        c.under_way += 1;
        if self.try_post(i, m, None) == Err(Errno::EAGAIN) {
            let c = &mut self.connections[i];
            c.under_way -= 1;
            c.unsent = true;
            return false;
        }
        true
    }

    /// Tells owner `i` which answers have been acted upon.
    pub fn say_noted(&mut self, i: usize) {
        let c = &mut self.connections[i];
        let answers = c.unsaid;
        let m = Message::question(Question::Noted { answers });
        if c.clogged || answers == 0 {
            c.unsent |= answers != 0;
        } else if self.try_post(i, &m, None) == Err(Errno::EAGAIN) {
            self.connections[i].unsent = true;
        } else {
            self.connections[i].unsaid = 0;
        }
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

    /// Whether an attacher has had pages.
    pub fn any_shows(&self) -> bool {
        let shows = |c: &Connection| c.side == Side::Owner && c.served;
        self.connections.iter().any(shows)
    }

    /// Whether every answer that was given has been acted upon.
    pub fn is_quiet(&self) -> bool {
        self.unnoted == 0
    }

    /// Whether a mapping with this identity is of another process's exported
    /// address space.
    pub fn show(&self, identity: (u64, u64)) -> bool {
        let shows = |c: &Connection| c.side != Side::Free && c.identity == identity;
        self.connections.iter().any(shows)
    }

    /// Closes a connection, whose place is free then; answers what it was. On the
    /// owner's side nothing more is to be done.
    pub fn close(&mut self, i: usize) -> Connection {
        let old = core::mem::replace(&mut self.connections[i], NEW);
        net::unwatch(self.epoll, old.fd);
        drop(OwnedFd::new(old.fd.number()));
        if matches!(old.side, Side::Owner | Side::Cut) {
            self.attachers[i] = 0;
            self.unnoted -= old.unnoted;
            self.cut_off -= u32::from(old.side == Side::Cut);
            self.requests.forget(i);
        }
        old
    }
}
