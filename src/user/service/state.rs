// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that the service knows.

#![forbid(unsafe_code)]

use crate::user::arena::SLOTS;
use crate::user::attacher::permits::Permit;
use crate::user::attacher::sigbus::{FaultingThreads, Poisoned};
use crate::user::hooks::Hooks;
use crate::user::owner::changes::{Change, CHANGES};
use crate::user::owner::debts::Debts;
use crate::user::owner::journal::Journal;
use crate::user::owner::lend::{Lent, LENT};
use crate::user::owner::pins::Stuck;
use crate::user::owner::segments::Segment;
use crate::user::owner::settings::Settings;
use crate::user::patience::Patience;
use crate::user::peers::Peers;
use crate::user::program::Program;
use crate::user::protocol::ids::{Id, SLOTS as IDS};
use crate::user::protocol::wire::Words;
use crate::user::sys::rights::Rights;
use core::ffi::c_int;

/// What this kernel lets the service do, probed once at its start.
#[derive(Clone, Copy)]
pub struct Abilities {
    /// Writes to a range can be told afterwards: copy first, stop then.
    pub precopy: bool,
    /// Pinned pages can be told.
    pub move_pages: bool,
    /// Touching a hole can be answered with SIGBUS by userfaultfd.
    pub poison: bool,
    /// A page can be mapped write-protected at once. Without, the threads stand
    /// while it is mapped first and protected then.
    pub map_protected: bool,
}

/// Everything that the service knows. Made of integers and booleans, so that
/// all zero is valid; [`Service::start`] gives the real values.
pub struct Service {
    pub program: Program,
    pub peers: Peers,
    /// What this task may do, and when that was last compared with the program.
    pub rights: Option<Rights>,
    pub looked: u64,
    /// Which of the program's threads is compared next.
    pub look_from: usize,
    /// How often it is still asked whether the program is there.
    pub doubt: u32,
    pub abilities: Abilities,

    pub signals: c_int,
    /// Counts up when a command has come.
    pub bell: c_int,
    /// The exported address space: offset = address. Its identity on disk.
    pub memfd: c_int,
    /// The same file for peers: flags that one of them sets there are not ours.
    pub handed_out: c_int,
    pub memfd_identity: (u64, u64),
    /// userfaultfd that tells what was written during a copy; -1 without.
    pub precopy: c_int,

    pub segments: [Segment; IDS],
    pub next_segment: usize,
    pub permits: [Permit; IDS],
    pub next_permit: usize,
    /// What takes the place of a lost owner's memory, a file without a page; -1
    /// before it is needed. And its identity.
    pub gone: c_int,
    pub gone_identity: (u64, u64),
    pub poisoned: Poisoned,
    pub faulting: FaultingThreads,
    /// Of each command slot: what it waits for.
    pub waiting: [Waiting; SLOTS],
    /// How many do.
    pub commands_waiting: u32,
    /// A command is tried again soon.
    pub retrying: bool,

    /// With so many ranges promoted no more come to stand alone.
    pub thrifty_from: usize,
    /// Behind which range a gap was looked for last.
    pub gap_looked_at: usize,

    pub stuck: Stuck,
    pub journal: Journal,
    /// Pages that a promotion has replaced, in [`Self::scratch`]: start and length.
    pub trash: (usize, usize),

    /// Events that have been read and not been acted upon.
    pub changes: [Change; CHANGES],
    pub change_count: usize,
    /// Moved memory could not be made private again: it may still be in use
    /// somewhere.
    pub moved_astray: bool,
    /// When the first stop failed that unread events wait for; 0: none waits.
    pub events_wait_since: u64,

    pub hooks: Hooks,

    /// What the program has said about memory that is promoted.
    pub settings: Settings,
    /// Some of the memfd may have a NUMA policy.
    pub has_policies: bool,

    /// Those that were ever in use are the first ones.
    pub lent: [Lent; LENT],
    pub lent_used: usize,
    /// The program's descriptor of the file that was lent last.
    pub lent_number: c_int,
    /// An answer to a recall is waited for: nothing is shared meanwhile.
    pub recalling: bool,
    /// What the program has unmapped and is still to be recalled: who did it must
    /// not go on before.
    pub debts: Debts,
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

impl Service {
    /// An id issued here, if it is of this process and well-formed.
    pub fn own_id(&self, id: i64) -> Option<Id> {
        Id::decode(id).filter(|id| id.token == self.peers.token)
    }
}
