// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that the service knows.

#![forbid(unsafe_code)]

use super::pending::Pending;
use crate::fd::Fd;
use crate::user::attacher::Attacher;
use crate::user::owner::Owner;
use crate::user::peers::Peers;
use crate::user::sys::rights::Rights;

/// Everything that the service knows. Made of integers and booleans, so that
/// all zero is valid; [`Service::start`] gives the real values.
pub struct Service {
    pub(super) owner: Owner,
    pub(super) attacher: Attacher,
    pub(super) peers: Peers,
    /// What this task may do, and when that was last compared with the program.
    pub(super) rights: Option<Rights>,
    pub(super) looked: u64,
    /// Which of the program's threads is compared next.
    pub(super) look_from: usize,
    /// How often it is still asked whether the program is there.
    pub(super) doubt: u32,

    pub(super) signals: Fd,
    /// Counts up when a command has come.
    pub(super) bell: Fd,

    /// The commands that wait for a peer.
    pub(super) pending: Pending,
    /// A command is tried again soon.
    pub(super) retrying: bool,

    /// An answer to a recall is waited for: nothing is shared meanwhile.
    pub(super) recalling: bool,
    /// What is owed ([`Owner::debts`]) is being paid.
    pub(super) paying: bool,
    /// An attacher has answered that it cannot let go.
    pub(super) recall_refused: bool,
}
