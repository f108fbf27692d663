// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens what the owner's side needs, once, at the service's start.

#![forbid(unsafe_code)]

use super::nodes::Nodes;
use super::{thrift, Owner};
use crate::fd::{Fd, OwnedFd};
use crate::user::sys::{mem, task, uffd, Sys, TOP};

impl Owner {
    /// Looks at what this machine has.
    pub fn look_around(&mut self) {
        self.thrifty_from = thrift::limit();
        self.nodes = Nodes::find();
    }

    /// Makes the file that is the exported address space.
    pub fn open_memory(&mut self) -> Sys<()> {
        self.memfd = mem::memfd(c"xpmem")?.keep();
        task::with_file_size_limit_lifted(|| mem::set_size(self.memfd, TOP))?;
        mem::seal_size(self.memfd)?;
        self.handed_out =
            mem::open_again(self.memfd, libc::O_RDWR).map_or(self.memfd, OwnedFd::keep);
        let (device, inode, _) = mem::identity(self.memfd)?;
        // Mappings show the identity in the kernel's own words: take those.
        self.memfd_identity = self
            .program
            .identity_as_mapped(self.memfd)
            .unwrap_or((device, inode));
        Ok(())
    }

    /// Opens what a copy is watched with, on a kernel that `has` such features of
    /// userfaultfd.
    pub fn open_precopy(&mut self, has: u64) {
        self.precopy = Fd::NONE;
        if has & uffd::FEATURE_WP_ASYNC == 0 || !self.program.space.has_scan() {
            return;
        }
        let moves = has & uffd::FEATURE_MOVE;
        let on_precopy = uffd::FEATURE_WP_ASYNC
            | uffd::FEATURE_WP_HUGETLBFS_SHMEM
            | uffd::FEATURE_MISSING_SHMEM
            | moves;
        if let Ok(userfaultfd) = uffd::open(on_precopy) {
            (self.precopy, self.can_precopy) = (userfaultfd.keep(), true);
            self.can_move_pages = moves != 0;
        }
    }

    /// Whether memory is copied while the program runs.
    pub fn can_precopy(&self) -> bool {
        self.can_precopy
    }

    /// The exported address space.
    pub fn memfd(&self) -> Fd {
        self.memfd
    }

    /// The same file, for peers.
    pub fn file_for_peers(&self) -> Fd {
        self.handed_out
    }

    /// Takes note of whether every answer that was given has been acted upon.
    pub fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }
}
