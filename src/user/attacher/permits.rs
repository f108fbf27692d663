// SPDX-License-Identifier: MIT OR Apache-2.0
//! Permits of other processes' segments.

#![forbid(unsafe_code)]

use crate::errno::Errno;
use crate::user::protocol::ids::{Id, Kind, SLOTS as IDS};
use crate::user::sys::{Span, Sys, TOP};

/// One access permit of this process. All zero is a free one.
#[derive(Clone, Copy)]
pub struct Permit {
    used: bool,
    /// Its segment is gone.
    pub dead: bool,
    generation: u32,
    pub connection: usize,
    /// The owner's file, as mappings show it.
    pub identity: (u64, u64),
    pub segid: i64,
    pub writable: bool,
    /// The segment's addresses in its owner.
    pub span: Span,
}

/// The permits of this process. All zero is none.
pub struct Permits {
    /// Name of this process in their ids.
    token: u64,
    next: usize,
    permits: [Permit; IDS],
}

impl Permits {
    /// Gives this process its name.
    pub fn set_token(&mut self, token: u64) {
        self.token = token;
    }

    /// The slot of a live permit.
    pub fn find(&self, id: i64) -> Option<usize> {
        let id = Id::decode(id).filter(|id| id.token == self.token && id.kind == Kind::Permit)?;
        let p = &self.permits[id.slot];
        (p.used && p.generation == id.generation).then_some(id.slot)
    }

    /// The permit in a slot.
    pub fn get(&self, p: usize) -> &Permit {
        &self.permits[p]
    }

    /// The owner on a connection, whose file has the identity, said yes.
    pub fn grant(
        &mut self,
        (connection, identity): (usize, (u64, u64)),
        segid: i64,
        writable: bool,
        span: Span,
    ) -> Sys<u64> {
        if span.is_empty() || span.end() > TOP {
            return Err(Errno::ENOENT);
        }
        let slot = (0..IDS)
            .map(|k| (self.next + k) % IDS)
            .find(|&s| !self.permits[s].used)
            .ok_or(Errno::ENOMEM)?;
        self.next = slot + 1;
        let generation = Id::next_generation(self.permits[slot].generation);
        self.permits[slot] = Permit {
            used: true,
            dead: false,
            generation,
            connection,
            identity,
            segid,
            writable,
            span,
        };
        Ok(Id {
            token: self.token,
            kind: Kind::Permit,
            slot,
            generation,
        }
        .encode() as u64)
    }

    /// The owner on a connection has withdrawn a segment.
    pub fn withdraw(&mut self, connection: usize, segid: i64) {
        for p in &mut self.permits {
            p.dead |= p.used && p.connection == connection && p.segid == segid;
        }
    }

    /// Takes a permit back; answers whose connection it was of.
    pub fn give_back(&mut self, p: usize) -> usize {
        self.permits[p].used = false;
        self.permits[p].connection
    }
}
