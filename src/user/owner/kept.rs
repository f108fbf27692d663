// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared anonymous memory that a device may hold, and that is never promoted.
//!
//! The kernel tells of pins of private memory ([`super::pins`]) and of no other. So
//! what a device has pinned before it was promoted must be known from the call that
//! pinned it: where its memory could not be promoted first, it stays what it is for as
//! long as it is mapped, since nothing tells when the device lets go.

#![forbid(unsafe_code)]

use super::Owner;
use crate::debug_log;
use crate::user::sys::maps::{self, Mapping, Name};
use crate::user::sys::Span;

/// How many pieces of such memory are known one by one.
const KEPT: usize = 64;

/// The memory that a device may hold. All zero: none.
pub struct Kept {
    /// By what mappings show of it: device and inode.
    memory: [(u64, u64); KEPT],
    used: usize,
    /// There was more of it: all such memory may be.
    all: bool,
}

impl Kept {
    fn has(&self, m: &Mapping) -> bool {
        self.all || self.memory[..self.used].contains(&(m.device, m.inode))
    }

    /// Takes note of a piece of memory, and forgets others that are `gone` where there is
    /// no room.
    fn note(&mut self, m: &Mapping, gone: impl Fn(u64, u64) -> bool) {
        if self.has(m) {
            return;
        }
        let mut i = 0;
        while self.used == KEPT && i < KEPT {
            let (device, inode) = self.memory[i];
            if gone(device, inode) {
                self.used -= 1;
                self.memory[i] = self.memory[self.used];
            }
            i += 1;
        }
        if self.used == KEPT {
            self.all = true;
        } else {
            self.memory[self.used] = (m.device, m.inode);
            self.used += 1;
        }
    }
}

impl Owner {
    /// Whether a device may hold pages of this shared anonymous memory.
    pub fn is_kept(&self, m: &Mapping) -> bool {
        self.kept.has(m)
    }

    /// The program registers `span` with a device, as it is.
    pub fn keep(&mut self, span: Span) {
        let mut at = span.start();
        while let Ok(Some(m)) = self.program.space.find(at) {
            if m.start >= span.end() {
                break;
            }
            if m.shared && m.name == Name::SharedAnonymous && !self.is_own(&m) {
                debug_log!("{:#x} is registered before it could be shared", m.start);
                let pid = self.program.tgid();
                let gone = |device, inode| maps::process_maps_file(pid, device, inode) == Ok(false);
                self.kept.note(&m, gone);
            }
            at = m.end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(inode: u64) -> Mapping {
        Mapping {
            start: 0,
            end: 0,
            read: true,
            write: true,
            exec: false,
            shared: true,
            offset: 0,
            device: 1,
            inode,
            page: 0,
            name: Name::SharedAnonymous,
        }
    }

    #[test]
    fn what_is_gone_makes_room_and_else_all_is_kept() {
        let mut kept = Kept {
            memory: [(0, 0); KEPT],
            used: 0,
            all: false,
        };
        for inode in 0..KEPT as u64 {
            kept.note(&memory(inode), |_, _| unreachable!());
            kept.note(&memory(inode), |_, _| unreachable!());
        }
        assert!(kept.has(&memory(63)) && !kept.has(&memory(64)));
        kept.note(&memory(64), |_, inode| inode == 7);
        assert!(kept.has(&memory(64)) && !kept.has(&memory(7)) && kept.has(&memory(8)));
        kept.note(&memory(65), |_, _| false);
        assert!(kept.has(&memory(7)));
    }
}
