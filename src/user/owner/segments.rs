// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segments: ranges of this process that may be attached, and by whom.

#![forbid(unsafe_code)]

use super::Owner;
use crate::user::protocol::ids::{Id, Kind, SLOTS as IDS};
use crate::user::protocol::wire::{Message, Status};
use crate::user::sys::{Sys, TOP};

/// One segment of this process. All zero is a free one.
#[derive(Clone, Copy)]
pub struct Segment {
    pub used: bool,
    pub generation: u32,
    pub start: usize,
    pub end: usize,
    pub mode: u32,
}

impl Owner {
    /// An id issued here, if it is of this process and well-formed.
    pub fn own_id(&self, id: i64) -> Option<Id> {
        Id::decode(id).filter(|id| id.token == self.token)
    }

    /// Exports `[start, start + size)`; the arguments have been checked.
    pub fn make(&mut self, start: usize, size: usize, mode: u32) -> Sys<u64> {
        let slot = (0..IDS)
            .map(|k| (self.next_segment + k) % IDS)
            .find(|&i| !self.segments[i].used)
            .ok_or(libc::ENOMEM)?;
        self.next_segment = slot + 1;
        let s = &mut self.segments[slot];
        s.used = true;
        s.generation = Id::next_generation(s.generation);
        (s.start, s.end, s.mode) = (start, start.saturating_add(size).min(TOP), mode);
        let (token, generation) = (self.token, s.generation);
        Ok(Id {
            token,
            kind: Kind::Segment,
            slot,
            generation,
        }
        .encode() as u64)
    }

    /// The slot of a live segment of this process.
    pub fn segment(&self, id: i64) -> Option<usize> {
        let id = self.own_id(id).filter(|id| id.kind == Kind::Segment)?;
        let s = &self.segments[id.slot];
        (s.used && s.generation == id.generation).then_some(id.slot)
    }

    /// May this attacher?
    pub fn on_get(&self, m: &Message, uid: u32) -> Message {
        let mut answer = m.answer(Status::Gone);
        if let Some(s) = self.segment(m.id) {
            let s = self.segments[s];
            let wanted = if m.addr as i32 == crate::uapi::RDWR {
                0o600
            } else {
                0o400
            };
            // Root passes, as CAP_IPC_OWNER does with the module.
            answer.status = if s.mode & wanted == wanted || uid == 0 {
                Status::Done
            } else {
                Status::Denied
            };
            (answer.lo, answer.hi) = (s.start as u64, s.end as u64);
        }
        answer
    }
}
