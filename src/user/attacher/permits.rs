// SPDX-License-Identifier: MIT OR Apache-2.0
//! Permits of other processes' segments, and the commands that ask for them.

#![forbid(unsafe_code)]

use super::WAIT;
use crate::user::arena::Op;
use crate::user::peers::Side;
use crate::user::protocol::ids::{Id, Kind, SLOTS as IDS};
use crate::user::protocol::wire::{Message, Verb};
use crate::user::service::state::Service;
use crate::user::sys::{Sys, TOP};
use core::ffi::c_int;

/// One access permit of this process. All zero is a free one.
#[derive(Clone, Copy)]
pub struct Permit {
    pub used: bool,
    /// Its segment is gone.
    pub dead: bool,
    pub generation: u32,
    pub connection: usize,
    pub segid: i64,
    pub writable: bool,
    /// The segment's addresses in its owner.
    pub start: usize,
    pub end: usize,
}

impl Service {
    /// The slot of a live permit of this process.
    pub fn permit(&self, id: i64) -> Option<usize> {
        let id = self.owner.own_id(id).filter(|id| id.kind == Kind::Permit)?;
        let p = &self.permits[id.slot];
        (p.used && p.generation == id.generation).then_some(id.slot)
    }

    /// Asks for access to a segment. `None`: the owner has been asked.
    pub fn get(&mut self, slot: usize, segid: i64, flags: c_int) -> Option<Sys<u64>> {
        let shared = crate::user::arena::existing()?;
        let Some(id) = Id::decode(segid).filter(|id| id.kind == Kind::Segment) else {
            return Some(Err(libc::ENOENT));
        };
        let i = match self.connection_to(shared, id.token) {
            Ok(i) => i,
            Err(errno) => return Some(Err(errno)),
        };
        let mut m = Message::new(Verb::Get);
        (m.id, m.addr) = (segid, flags as u64);
        self.ask_for_command(slot, i, Op::Get, &m);
        self.waiting[slot].flags = flags as u64;
        WAIT
    }

    /// The owner said yes.
    pub fn grant(
        &mut self,
        i: usize,
        segid: i64,
        flags: c_int,
        start: usize,
        end: usize,
    ) -> Sys<u64> {
        if start >= end || end > TOP {
            return Err(libc::ENOENT);
        }
        let slot = (0..IDS)
            .map(|k| (self.next_permit + k) % IDS)
            .find(|&s| !self.permits[s].used)
            .ok_or(libc::ENOMEM)?;
        self.next_permit = slot + 1;
        let generation = Id::next_generation(self.permits[slot].generation);
        self.permits[slot] = Permit {
            used: true,
            dead: false,
            generation,
            connection: i,
            segid,
            writable: flags == crate::uapi::RDWR,
            start,
            end,
        };
        self.peers.connections[i].permits += 1;
        Ok(Id {
            token: self.peers.token,
            kind: Kind::Permit,
            slot,
            generation,
        }
        .encode() as u64)
    }

    /// Gives a permit back, with its attachments.
    pub fn release(&mut self, slot: usize, apid: i64) -> Option<Sys<u64>> {
        let shared = crate::user::arena::existing()?;
        let Some(p) = self.permit(apid) else {
            return if self.owner.own_id(apid).is_some() {
                Some(Err(libc::ENOENT))
            } else {
                self.ask_issuer(shared, slot, apid, Kind::Permit)
            };
        };
        let mut at = 0;
        while let Some(piece) = self
            .owner
            .program
            .attachments
            .first_from(at, |piece| piece.permit == p)
        {
            at = piece.start;
            self.unmap_attachment(at);
        }
        self.permits[p].used = false;
        let i = self.permits[p].connection;
        let c = &mut self.peers.connections[i];
        c.permits -= 1;
        if c.permits == 0 && c.side == Side::Dead {
            c.side = Side::Free;
        }
        Some(Ok(0))
    }
}
