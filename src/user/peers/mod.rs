// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections between services. The attacher's side dials; the owner accepts.
//!
//! Nobody is waited for here. What does not go out at once is kept where it is
//! made: questions at the attacher, requests at the owner ([`requests`]); both go on
//! when the socket has room again.

#![forbid(unsafe_code)]

pub mod admission;
pub mod crowd;
pub mod emptying;
pub mod folder;
pub mod names;
pub mod rendezvous;
pub mod requests;
pub mod streams;

use super::patience::Patience;
use super::protocol::limits::{CONNECTIONS, WINDOW};
use super::protocol::wire::{Message, Verb, Words};
use super::sys::net::{self, IN, OUT};
use super::sys::{task, Sys};
use crate::debug_log;
use crate::errno::Errno;
use core::ffi::c_int;
use crowd::Slow;
use emptying::Emptying;
use requests::Requests;
use streams::Streams;

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
    pub refusal: Option<Errno>,

    /// Owner's side: the attacher's process, as seen from here.
    pub pid: i32,
    /// Owner's side: where it has touched memory last.
    pub streams: Streams,
    /// Owner's side: it has not had the address space that it has asked for.
    pub greeting: bool,
    /// Owner's side: it has had an answer to `Share`, and may show pages.
    pub served: bool,
    /// Owner's side: answers to `Share` that have not been acted upon, and how
    /// long somebody has waited for that.
    pub unnoted: u64,
    pub patience: Patience,
    /// Owner's side: how long it is waited for.
    pub limit: u64,
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
    refusal: None,
    pid: 0,
    streams: Streams::NONE,
    greeting: false,
    served: false,
    unnoted: 0,
    patience: Patience::NEW,
    limit: 0,
    recall: 0,
    recalled: 0,
};

/// Names of the descriptors in the epoll set; a connection is `CONNECTION + i`, and
/// the process of its owner `PIDFD + i`.
pub mod token {
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
    pub epoll: c_int,
    listener: c_int,
    /// The listener is not looked at before.
    deaf_until: u64,
    pub connections: [Connection; CONNECTIONS],
    /// Of each connection of an attacher: its process; 0: of none.
    pub attachers: [u64; CONNECTIONS],
    pub slow: Slow,
    /// Those that have ended are looked for then, and a place for another not before.
    pub ended_due: u64,
    pub full_until: u64,
    /// Of all attachers: answers that have not been acted upon.
    unnoted: u64,
    /// How many attachers have been hung up on that have not let go.
    cut_off: u32,
    /// Why the last owner that hung up did so, as an errno.
    refusal: Option<Errno>,
    /// The folder of this user's processes, also the working directory, and the
    /// one that holds it.
    folder: c_int,
    base: c_int,
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
    /// The user whom this process and its peers are of.
    pub fn set_uid(&mut self, uid: u32) {
        self.uid = uid;
    }

    /// That user.
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

    /// Takes note of that.
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
        c.patience = Patience::NEW;
        self.unnoted -= answers;
        true
    }

    /// Whether all attachers that have been hung up on have let go.
    pub fn have_let_go(&self) -> bool {
        self.cut_off == 0
    }

    /// Takes a connected socket into the table and the epoll set.
    pub fn adopt(&mut self, fd: c_int, side: Side) -> Sys<usize> {
        let free = |c: &Connection| c.side == Side::Free;
        let i = self.connections.iter().position(free);
        let i = i.ok_or(Errno::ENOMEM)?;
        net::watch(self.epoll, fd, token::CONNECTION + i as u64)?;
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
            let token = token::CONNECTION + i as u64;
            if net::watch_for(self.epoll, c.fd, token, wanted).is_ok() {
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

    /// Somebody waits until peers are [quiet](Self::is_quiet): attachers that do not acknowledge
    /// are waited for no longer than the limit. Whether some still are.
    pub fn await_acknowledgements(&mut self) -> bool {
        let mut some = false;
        for i in 0..CONNECTIONS {
            let c = &mut self.connections[i];
            if c.side != Side::Owner || c.unnoted == 0 {
                continue;
            }
            if c.patience.is_over(c.limit) {
                self.cut(i);
            } else {
                some = true;
            }
        }
        some
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
        let mut m = Message::new(Verb::Noted);
        m.lo = c.unsaid;
        if c.clogged || m.lo == 0 {
            c.unsent |= m.lo != 0;
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
        crate::rawsys::close(old.fd);
        if matches!(old.side, Side::Owner | Side::Cut) {
            self.attachers[i] = 0;
            self.unnoted -= old.unnoted;
            self.cut_off -= u32::from(old.side == Side::Cut);
            self.requests.forget(i);
        }
        old
    }
}
