// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens what is needed of the program, once, at the service's start.

#![forbid(unsafe_code)]

use super::scratch::Scratch;
use super::{alarm, restart, Program};
use crate::debug_log;
use crate::fd::Fd;
use crate::user::sys::procfs::{self, Numbers};
use crate::user::sys::space::Space;
use crate::user::sys::{task, Sys};

impl Program {
    /// Meets the program that this task's parent is, and whose thread `anchor` is.
    pub fn begin(&mut self, anchor: i32) -> Sys<()> {
        self.anchor = anchor;
        self.space = Space::open()?;
        self.scratch = Scratch::reserve();
        self.stack_begin = procfs::stack_begin().unwrap_or(0);
        self.spare.keep();
        self.tgid = task::parent();
        if let Err(errno) = alarm::prepare(self.tgid) {
            debug_log!("no alarm: errno {errno}");
        }
        // Gone before its end could be told.
        task::signal_task(self.tgid, self.anchor, 0)?;
        let mut path = [0u8; 32];
        let path = procfs::proc_path(&mut path, self.tgid, b"/task");
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        self.task_dir = crate::fd::open(path, flags, 0)?.keep();
        self.pidfd = task::pidfd(self.tgid)?.keep();
        restart::prepare(self.tgid, self.pidfd);
        Ok(())
    }

    /// The program's number.
    pub fn tgid(&self) -> i32 {
        self.tgid
    }

    /// The thread of it that holds the service.
    pub fn anchor(&self) -> i32 {
        self.anchor
    }

    /// A descriptor of the program.
    pub fn pidfd(&self) -> Fd {
        self.pidfd
    }

    /// An address of the main stack: where the program began.
    pub fn stack_begin(&self) -> usize {
        self.stack_begin
    }

    /// The numbers of its threads.
    pub fn tids(&self) -> Numbers {
        Numbers::from_start(self.task_dir)
    }

    /// The folder in which they are.
    pub fn task_dir(&self) -> Fd {
        self.task_dir
    }
}
