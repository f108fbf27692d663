// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that the service knows.

#![forbid(unsafe_code)]

use super::pending::Pending;
use crate::user::attacher::Attacher;
use crate::user::owner::Owner;
use crate::user::peers::Peers;
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

    pub pending: Pending,
    /// A command is tried again soon.
    pub retrying: bool,

    /// An answer to a recall is waited for: nothing is shared meanwhile.
    pub recalling: bool,
    /// They are being paid.
    pub paying: bool,
    /// An attacher has answered that it cannot let go.
    pub recall_refused: bool,
}
