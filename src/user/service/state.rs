// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that the service knows.

#![forbid(unsafe_code)]

use crate::user::arena::SLOTS;
use crate::user::attacher::Attacher;
use crate::user::owner::Owner;
use crate::user::patience::Patience;
use crate::user::peers::Peers;
use crate::user::protocol::wire::Words;
use crate::user::sys::rights::Rights;
use core::ffi::c_int;

/// Everything that the service knows. Made of integers and booleans, so that
/// all zero is valid; [`Service::start`] gives the real values.
pub struct Service {
    pub owner: Owner,
    pub attacher: Attacher,
    pub peers: Peers,
    /// What this task may do, and when that was last compared with the program.
    pub rights: Option<Rights>,
    pub looked: u64,
    /// Which of the program's threads is compared next.
    pub look_from: usize,
    /// How often it is still asked whether the program is there.
    pub doubt: u32,

    pub signals: c_int,
    /// Counts up when a command has come.
    pub bell: c_int,

    /// Of each command slot: what it waits for.
    pub waiting: [Waiting; SLOTS],
    /// How many do.
    pub commands_waiting: u32,
    /// A command is tried again soon.
    pub retrying: bool,

    /// An answer to a recall is waited for: nothing is shared meanwhile.
    pub recalling: bool,
    /// They are being paid.
    pub paying: bool,
    /// An attacher has answered that it cannot let go.
    pub recall_refused: bool,
}

/// A command that is answered when a peer has answered.
#[derive(Clone, Copy)]
pub struct Waiting {
    /// Index of the connection plus 1; 0: not waiting.
    pub connection: usize,
    /// The question's serial number.
    pub serial: u64,
    pub op: u32,
    /// The question, as long as it is to be sent.
    pub words: Words,
    pub unsent: bool,
    /// Not asked yet: its owner has too much to accept.
    pub retrying: bool,
    pub patience: Patience,
    /// The id that was asked about.
    pub id: i64,
    /// Attach: the address.
    pub value: u64,
    /// Get: the flags; attach: the number of the attachment.
    pub flags: u64,
    /// Of an attach: at an address that the program has chosen.
    pub fixed: bool,
}
