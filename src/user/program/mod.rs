// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program that is served: its threads, and its address space.

pub mod alarm;
mod begin;
pub mod fork;
pub mod hold;
#[cfg(target_arch = "x86_64")]
mod limit;
pub mod pieces;
pub mod restart;
pub mod scratch;
pub mod stop;
pub mod threads;
pub mod view;
#[cfg(target_arch = "x86_64")]
mod waits;
pub mod watch;

use crate::fd::{Fd, OwnedFd};
use crate::user::sys::space::Space;
use crate::user::sys::spare::Spare;
use fork::ForkWatch;
use pieces::Attachments;
use scratch::Scratch;
use stop::Pause;
use threads::Threads;
use watch::{Changes, Touches};

/// The program: what the service knows of it, and holds of it. All zero is valid;
/// the service gives the real values at its start.
pub struct Program {
    tgid: i32,
    anchor: i32,
    pidfd: Fd,
    /// An address of the main stack: where the program began.
    stack_begin: usize,
    pub space: Space,
    pub scratch: Scratch,
    /// The module's device, where this program exports its memory both ways.
    device: Option<OwnedFd>,
    changes: Changes,
    touches: Touches,
    /// Given up for a moment by a promotion, and where a new attacher finds none left.
    pub spare: Spare,
    pub attachments: Attachments,
    /// Where the last attachment was made.
    pub last_window: usize,
    task_dir: Fd,
    /// No stop is tried for requests of peers meanwhile.
    pub pause: Pause,
    pub threads: Threads,
    pub forks: ForkWatch,
}
