// SPDX-License-Identifier: MIT OR Apache-2.0
//! The attacher's side: permits, attachments and their faults.

#![cfg_attr(not(test), forbid(unsafe_code))]

pub mod faults;
pub mod overlay;
pub mod permits;
pub mod sever;
pub mod sigbus;

use super::arena::{Op, Shared};
use super::peers::Side;
use super::protocol::ids::Kind;
use super::protocol::limits::EAGER;
use super::protocol::wire::{Message, Verb, WHOLE};
use super::service::state::Service;
use super::sys::{mem, uffd, Sys, PAGE, TOP};
use crate::debug_log;
pub use crate::user::program::pieces::Piece;

/// A page of the memfd may be one that its owner is still filling. So a page is
/// only ever mapped here after the owner has said that it is ready: until then
/// a touch is reported whether the file has the page or not. And it is mapped
/// write-protected where the owner may not write either, or the permit does not
/// allow it: then a write is reported too.
pub const GATED: u64 = uffd::MODE_MISSING | uffd::MODE_MINOR | uffd::MODE_WP;

/// What `xpmem_attach` is asked for.
pub struct Wanted {
    pub apid: i64,
    pub offset: i64,
    pub size: usize,
    /// 0: anywhere.
    pub vaddr: usize,
}

/// No answer yet: it comes when a peer has answered.
pub const WAIT: Option<Sys<u64>> = None;

impl Service {
    /// Maps part of a segment. `None`: the owner has been asked for its pages.
    pub fn attach(&mut self, shared: &Shared, slot: usize, wanted: &Wanted) -> Option<Sys<u64>> {
        let Wanted {
            apid,
            offset,
            size,
            vaddr,
        } = *wanted;
        let Some(p) = self.permit(apid) else {
            return if self.owner.own_id(apid).is_some() {
                Some(Err(libc::ENOENT))
            } else {
                self.ask_issuer(shared, slot, apid, Kind::Permit)
            };
        };
        let i = self.permits[p].connection;
        if self.peers.connections[i].side == Side::Attacher {
            self.drain_all(shared, i);
        }
        let permit = self.permits[p];
        if permit.dead || self.peers.connections[i].side != Side::Attacher {
            return Some(Err(libc::ENOENT));
        }
        let len = match size.checked_next_multiple_of(PAGE) {
            Some(len) if len > 0 && offset >= 0 => len,
            _ => return Some(Err(libc::EINVAL)),
        };
        let source = permit.start.saturating_add(offset as usize);
        if source.checked_add(len).is_none_or(|end| end > permit.end) {
            return Some(Err(libc::EINVAL));
        }
        let addr = match self.map_attachment(shared, p, source, len, vaddr) {
            Ok(addr) => addr,
            Err(errno) => return Some(Err(errno)),
        };
        if len <= EAGER {
            let mut m = Message::new(Verb::Share);
            (m.id, m.flags) = (permit.segid, WHOLE);
            (m.addr, m.lo, m.hi) = (source as u64, source as u64, (source + len) as u64);
            self.ask_for_command(slot, i, Op::Attach, &m);
            self.waiting[slot].value = addr as u64;
            self.waiting[slot].flags = self.owner.program.attachments.last_number;
            self.waiting[slot].fixed = vaddr != 0;
            return WAIT;
        }
        Some(Ok(addr as u64))
    }

    fn map_attachment(
        &mut self,
        shared: &Shared,
        p: usize,
        source: usize,
        len: usize,
        vaddr: usize,
    ) -> Sys<usize> {
        let permit = self.permits[p];
        let c = &self.peers.connections[permit.connection];
        let (memfd, identity) = (c.memfd, c.identity);
        if !self.owner.program.attachments.has_room() {
            return Err(libc::ENOMEM);
        }
        let mut flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        if vaddr != 0 {
            let end = vaddr
                .checked_add(len)
                .filter(|&end| end <= TOP)
                .ok_or(libc::EINVAL)?;
            let own = c.token == self.peers.token;
            if own && vaddr < source + len && end > source {
                return Err(libc::EINVAL);
            }
            if self.owner.program.attachments.overlaps(vaddr, end) {
                return Err(libc::EINVAL);
            }
            self.owner.note_growth_into(vaddr, end);
            if shared.promoted.first_in(vaddr, end).is_some() {
                self.retire(vaddr, end);
            }
            self.owner.program.unwatch(vaddr, end)?;
            flags |= libc::MAP_FIXED;
        }
        // Not to be touched before it is registered: a touch would be served
        // by the file, and not by its owner.
        let addr = mem::map(vaddr, len, libc::PROT_NONE, flags, memfd, source)?;
        let write = if permit.writable { libc::PROT_WRITE } else { 0 };
        let ready = uffd::register(self.owner.program.faults, addr, len, GATED)
            .and_then(|()| mem::advise(addr, len, libc::MADV_DONTFORK))
            .and_then(|()| mem::protect(addr, len, libc::PROT_READ | write));
        if let Err(errno) = ready {
            debug_log!("attachment of {len:#x} at {addr:#x} fails: errno {errno}");
            if uffd::unwatch(self.owner.program.faults, addr, len).is_ok() {
                let _ = mem::unmap(addr, len);
            }
            return Err(if errno == libc::EINVAL {
                libc::ENOMEM
            } else {
                errno
            });
        }
        let _ = mem::advise(addr, len, libc::MADV_DONTDUMP);
        self.owner.program.attachments.last_number += 1;
        let attachment = self.owner.program.attachments.last_number;
        self.owner.program.attachments.insert(Piece {
            start: addr,
            end: addr + len,
            source,
            attachment,
            permit: p,
            overlay: false,
            identity,
            offset: source,
        });
        Ok(addr)
    }

    /// Unmaps the attachment that holds `addr`.
    pub fn detach(&mut self, addr: usize) -> Sys<u64> {
        self.on_faults();
        match self.owner.program.attachments.at(addr) {
            Some(_) => {
                self.unmap_attachment(addr);
                Ok(0)
            }
            None => match self.owner.program.space.at(addr) {
                Ok(Some(m)) if self.unmap_severed(addr, &m) => Ok(0),
                Ok(Some(_)) => Err(libc::EINVAL),
                _ => Ok(0),
            },
        }
    }

    /// Unmaps all pieces of the attachment that holds `addr`.
    pub fn unmap_attachment(&mut self, addr: usize) {
        let mut at = Some(addr);
        while let Some((piece, other)) = at.and_then(|at| self.owner.program.attachments.take(at)) {
            at = other;
            self.owner
                .program
                .for_mapped_parts(piece, |program, lo, len| {
                    // Else each page would be looked at for its protection first.
                    let _ = mem::advise(lo, len, libc::MADV_DONTNEED);
                    if uffd::unwatch(program.faults, lo, len).is_ok() {
                        let _ = mem::unmap(lo, len);
                    }
                });
        }
    }
}
