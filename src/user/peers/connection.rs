// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of one connection.

#![forbid(unsafe_code)]

use super::lateness::Lateness;
use super::streams::Streams;
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use crate::user::patience::Patience;
use crate::user::protocol::wire::Words;

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
    pub fd: Fd,
    /// For which the epoll set watches it.
    pub interest: u32,
    /// A message did not go out: the socket is full.
    pub clogged: bool,

    /// Attacher's side: the owner.
    pub token: u64,
    /// Attacher's side: the owner's address space, once it has come.
    pub memfd: Option<OwnedFd>,
    /// As mappings show it.
    pub identity: (u64, u64),
    /// Attacher's side: readable when the owner is gone.
    pub pidfd: Option<OwnedFd>,
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
    pub has_unsent_answer: bool,
    pub unsent_answer: Words,
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
    pub acknowledging: Lateness,
    /// Owner's side: how long it is waited for.
    pub limit: u64,
    /// Owner's side: the last recall that it was sent, and the last that it has
    /// answered. It answers in order, and may leave out what a later answer says.
    pub recall: u64,
    pub recalled: u64,
    pub answering: Lateness,
}

impl Connection {
    /// Attacher's side: the owner's address space, once it has come.
    pub fn owners_file(&self) -> Fd {
        self.memfd.as_ref().map_or(Fd::NONE, OwnedFd::fd)
    }
}

/// A connection of nobody's.
pub const NEW: Connection = Connection {
    side: Side::Free,
    fd: Fd::NONE,
    interest: 0,
    clogged: false,
    token: 0,
    memfd: None,
    identity: (0, 0),
    pidfd: None,
    permits: 0,
    under_way: 0,
    unsent: false,
    unsaid: 0,
    has_unsent_answer: false,
    unsent_answer: [0; 8],
    refusal: None,
    pid: 0,
    streams: Streams::NONE,
    greeting: false,
    served: false,
    unnoted: 0,
    patience: Patience::NEW,
    acknowledging: Lateness::NEW,
    limit: 0,
    recall: 0,
    recalled: 0,
    answering: Lateness::NEW,
};
