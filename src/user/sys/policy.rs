// SPDX-License-Identifier: MIT OR Apache-2.0
//! NUMA policies of mappings. Where a container forbids to ask for them, there
//! is none.

#![forbid(unsafe_code)]

use super::{sys, Sys};

const WORDS: usize = 16;
const NODES: usize = WORDS * 64;
const BY_ADDRESS: usize = 2;

/// Where the pages of a mapping are to come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    mode: i32,
    nodes: [u64; WORDS],
}

impl Policy {
    /// None of its own.
    pub const DEFAULT: Self = Self {
        mode: 0,
        nodes: [0; WORDS],
    };

    /// Of the mapping at `addr`.
    pub fn of(addr: usize) -> Self {
        let mut policy = Self::DEFAULT;
        let (mode, nodes) = (&raw mut policy.mode, policy.nodes.as_mut_ptr());
        match sys!(
            libc::SYS_get_mempolicy,
            mode,
            nodes,
            NODES,
            addr,
            BY_ADDRESS
        ) {
            Ok(_) => policy,
            Err(_) => Self::DEFAULT,
        }
    }

    /// The node of whoever touches a page first.
    const LOCAL: Self = Self {
        mode: 4,
        nodes: [0; WORDS],
    };

    /// Gives it to a new mapping of a file, and so to the file, for pages that are
    /// yet to come.
    pub fn give_file(&self, addr: usize, len: usize) -> Sys<()> {
        if *self == Self::DEFAULT {
            // The mapping has it already, and the file would not hear of it.
            Self::LOCAL.give(addr, len)?;
        }
        self.give(addr, len)
    }

    /// Gives it to mappings, for pages that are yet to come.
    pub fn give(&self, addr: usize, len: usize) -> Sys<()> {
        let nodes = self.nodes.as_ptr();
        // It counts one more than it reads.
        sys!(libc::SYS_mbind, addr, len, self.mode, nodes, NODES + 1, 0).map(drop)
    }
}
