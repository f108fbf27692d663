// SPDX-License-Identifier: MIT OR Apache-2.0
//! The attacher's side: permits, attachments and their faults.

pub mod overlay;
pub mod pieces;
pub mod sigbus;

use super::arena::{Op, Shared};
use super::owner::CHUNK_MAX;
use super::peers::Side;
use super::protocol::ids::{Id, Kind, SLOTS as IDS};
use super::protocol::wire::{Message, Status, Verb, READ_ONLY, WHOLE};
use super::service::Service;
use super::sys::{mem, page_down, page_up, uffd, Sys, PAGE, TOP};
use crate::debug::{count, COUNTERS};
use crate::debug_log;
use core::ffi::c_int;
pub use pieces::{Attachments, Piece};

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

/// Up to this size an attachment's pages are shared when it is made: a page
/// that is there cannot fail a system call.
pub const EAGER: usize = 256 * 1024;

/// A page of the memfd may be one that its owner is still filling. So a page is
/// only ever mapped here after the owner has said that it is ready: until then
/// a touch is reported whether the file has the page or not. And it is mapped
/// write-protected where the owner may not write either, or the permit does not
/// allow it: then a write is reported too.
pub const GATED: u64 = uffd::MODE_MISSING | uffd::MODE_MINOR | uffd::MODE_WP;

/// How often pages are tried to be mapped while the program changes its address
/// space; who waits for them then faults again.
const TRIES: u32 = 8;

const WAIT: Option<Sys<u64>> = None;

impl Service {
    /// The slot of a live permit of this process.
    pub fn permit(&self, id: i64) -> Option<usize> {
        let id = self.own_id(id).filter(|id| id.kind == Kind::Permit)?;
        let p = &self.permits[id.slot];
        (p.used && p.generation == id.generation).then_some(id.slot)
    }

    /// Asks for access to a segment. `None`: the owner has been asked.
    pub fn get(&mut self, slot: usize, segid: i64, flags: c_int) -> Option<Sys<u64>> {
        let shared = super::arena::existing()?;
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
        self.connections[i].permits += 1;
        Ok(Id {
            token: self.token,
            kind: Kind::Permit,
            slot,
            generation,
        }
        .encode() as u64)
    }

    /// Gives a permit back, with its attachments.
    pub fn release(&mut self, slot: usize, apid: i64) -> Option<Sys<u64>> {
        let shared = super::arena::existing()?;
        let Some(p) = self.permit(apid) else {
            return if self.own_id(apid).is_some() {
                Some(Err(libc::ENOENT))
            } else {
                self.ask_issuer(shared, slot, apid, Kind::Permit)
            };
        };
        let mut at = 0;
        while let Some(piece) = self.attachments.first_from(at, |piece| piece.permit == p) {
            at = piece.start;
            self.unmap_attachment(at);
        }
        self.permits[p].used = false;
        let i = self.permits[p].connection;
        let c = &mut self.connections[i];
        c.permits -= 1;
        if c.permits == 0 && c.side == Side::Dead {
            c.side = Side::Free;
        }
        Some(Ok(0))
    }

    /// Maps part of a segment. `None`: the owner has been asked for its pages.
    pub fn attach(
        &mut self,
        shared: &Shared,
        slot: usize,
        apid: i64,
        offset: i64,
        size: usize,
        vaddr: usize,
    ) -> Option<Sys<u64>> {
        let Some(p) = self.permit(apid) else {
            return if self.own_id(apid).is_some() {
                Some(Err(libc::ENOENT))
            } else {
                self.ask_issuer(shared, slot, apid, Kind::Permit)
            };
        };
        let i = self.permits[p].connection;
        if self.connections[i].side == Side::Attacher {
            self.drain_all(shared, i);
        }
        let permit = self.permits[p];
        if permit.dead || self.connections[i].side != Side::Attacher {
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
            self.waiting[slot].flags = self.attachments.last_number;
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
        let c = &self.connections[permit.connection];
        let (memfd, identity) = (c.memfd, c.identity);
        if !self.attachments.has_room() {
            return Err(libc::ENOMEM);
        }
        let mut flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        if vaddr != 0 {
            let end = vaddr
                .checked_add(len)
                .filter(|&end| end <= TOP)
                .ok_or(libc::EINVAL)?;
            let own = c.token == self.token;
            if own && vaddr < source + len && end > source {
                return Err(libc::EINVAL);
            }
            if self.attachments.overlaps(vaddr, end) {
                return Err(libc::EINVAL);
            }
            self.note_growth_into(vaddr, end);
            if shared.promoted.first_in(vaddr, end).is_some() {
                self.retire(vaddr, end);
            }
            self.unwatch(vaddr, end)?;
            flags |= libc::MAP_FIXED;
        }
        // Not to be touched before it is registered: a touch would be served
        // by the file, and not by its owner.
        let addr = mem::map(vaddr, len, libc::PROT_NONE, flags, memfd, source)?;
        let write = if permit.writable { libc::PROT_WRITE } else { 0 };
        let ready = uffd::register(self.faults, addr, len, GATED)
            .and_then(|()| mem::advise(addr, len, libc::MADV_DONTFORK))
            .and_then(|()| mem::protect(addr, len, libc::PROT_READ | write));
        if let Err(errno) = ready {
            debug_log!("attachment of {len:#x} at {addr:#x} fails: errno {errno}");
            if uffd::unwatch(self.faults, addr, len).is_ok() {
                let _ = mem::unmap(addr, len);
            }
            return Err(if errno == libc::EINVAL {
                libc::ENOMEM
            } else {
                errno
            });
        }
        let _ = mem::advise(addr, len, libc::MADV_DONTDUMP);
        self.attachments.last_number += 1;
        let attachment = self.attachments.last_number;
        self.attachments.insert(Piece {
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
        match self.attachments.at(addr) {
            Some(_) => {
                self.unmap_attachment(addr);
                Ok(0)
            }
            None => match self.space.at(addr) {
                Ok(Some(m)) if self.unmap_severed(addr, &m) => Ok(0),
                Ok(Some(_)) => Err(libc::EINVAL),
                _ => Ok(0),
            },
        }
    }

    /// Unmaps all pieces of the attachment that holds `addr`.
    pub fn unmap_attachment(&mut self, addr: usize) {
        let mut at = Some(addr);
        while let Some((piece, other)) = at.and_then(|at| self.attachments.take(at)) {
            at = other;
            self.for_mapped_parts(piece, |service, lo, len| {
                // Else each page would be looked at for its protection first.
                let _ = mem::advise(lo, len, libc::MADV_DONTNEED);
                if uffd::unwatch(service.faults, lo, len).is_ok() {
                    let _ = mem::unmap(lo, len);
                }
            });
        }
    }

    /// Calls `body` with what of a piece is still mapped as it was made: the
    /// program may have put something else there.
    pub fn for_mapped_parts(
        &mut self,
        piece: Piece,
        mut body: impl FnMut(&mut Self, usize, usize),
    ) {
        let mut at = piece.start;
        while at < piece.end {
            let Ok(Some(m)) = self.space.find(at) else {
                break;
            };
            let (lo, hi) = (m.start.max(at), m.end.min(piece.end));
            if lo >= piece.end {
                break;
            }
            if piece.is_shown_by(&m, lo) {
                body(self, lo, hi - lo);
            }
            at = hi;
        }
    }

    /// The program has unmapped `[start, end)`: so its attachments there are
    /// gone, but for one that has been made there since.
    pub fn on_unmapped(&mut self, start: usize, end: usize) {
        let mut at = start;
        while at < end {
            let found = self.space.find(at).ok().flatten().filter(|m| m.start < end);
            let Some(m) = found else {
                return self.attachments.cut(at, end);
            };
            if m.start > at {
                self.attachments.cut(at, m.start);
                at = m.start;
            }
            let hi = m.end.min(end);
            let live = self
                .attachments
                .at(at)
                .is_some_and(|p| p.is_shown_by(&m, at));
            if !live {
                self.attachments.cut(at, hi);
            }
            at = hi;
        }
    }

    /// Faults on attachments, and changes that the program made to them.
    pub fn on_faults(&mut self) {
        while let Ok(event) = uffd::read(self.faults) {
            match event.kind {
                uffd::EVENT_PAGEFAULT => {
                    let protected = event.a & uffd::FAULT_WP != 0;
                    let page = page_down(event.b as usize);
                    self.on_fault(page, event.c as u32 as i32, protected);
                }
                uffd::EVENT_UNMAP => self.on_unmapped(event.a as usize, event.b as usize),
                uffd::EVENT_REMAP => {
                    let (from, to) = (event.a as usize, event.b as usize);
                    self.attachments.moved(from, to, page_up(event.c as usize));
                }
                _ => {}
            }
        }
    }

    /// Owner `i` has answered a fault. The answer is used where a thread still
    /// waits for that page, having asked this owner, and where the attachment is
    /// the one that it asked for: else it is too late, or a lie.
    pub fn on_fault_answer(&mut self, i: usize, m: &Message, fd: c_int) {
        let page = page_down(m.cookie as usize);
        let asked = self.faulting.last(page).copied();
        let Some(asked) = asked.filter(|f| f.connection == i) else {
            return;
        };
        let still =
            |p: &Piece| p.attachment == asked.attachment && self.permits[p.permit].connection == i;
        let Some(piece) = self.attachments.at(page).filter(still) else {
            return self.fault_again(page);
        };
        let here = m.lo as usize <= piece.source_of(page) && piece.source_of(page) < m.hi as usize;
        if !here || !matches!(m.status, Status::Done | Status::Elsewhere) {
            return self.answer_sigbus(page, m.serial);
        }
        if m.status == Status::Elsewhere {
            count(&COUNTERS.faults_served);
            if !self.overlay(page, m, fd) {
                return self.answer_sigbus(page, m.serial);
            }
            return self.fault_again(page);
        }
        let read_only = m.flags & READ_ONLY != 0 || !self.may_write(page);
        if read_only && self.faulting.is_refused_write(page) {
            return self.answer_sigbus(page, m.serial);
        }
        count(&COUNTERS.faults_served);
        self.publish(page, m.lo as usize, m.hi as usize, read_only);
        self.fault_again(page);
    }

    /// Whether the permit of an attached page allows writing.
    fn may_write(&self, page: usize) -> bool {
        let piece = self.attachments.at(page);
        piece.is_some_and(|piece| self.permits[piece.permit].writable)
    }

    /// The owner has `[first, last)` ready: maps what of it is within the piece
    /// that holds `addr`, and lets those go on who wait for it. No owner shares
    /// more at a time than is looked at here: each page may cost a system call.
    pub fn publish(&mut self, addr: usize, first: usize, last: usize, read_only: bool) {
        let read_only = read_only || !self.may_write(addr);
        for _ in 0..TRIES {
            let Some(p) = self.attachments.at(addr) else {
                return;
            };
            if p.overlay {
                return;
            }
            let end = page_down(last).min(p.source + (p.end - p.start));
            let end = end.min(p.source_of(addr).saturating_add(CHUNK_MAX));
            let first = page_up(first.min(TOP)).max(p.source);
            let first = first.max(p.source_of(addr).saturating_sub(CHUNK_MAX));
            if first >= end {
                return;
            }
            let here = p.start + (first - p.source);
            // All of it: what the file has but nobody has written yet does not
            // count as data there.
            let done = self.map_present(here, end - first, read_only);
            self.faulting.forget(here, here + (end - first));
            let _ = uffd::wake(self.faults, here, end - first);
            if done != Err(libc::EAGAIN) {
                return;
            }
            // The program is unmapping or moving something, and waits for us to
            // take note of it.
            self.on_faults();
        }
    }

    /// Maps the pages of `[start, start + len)` that the file has.
    fn map_present(&mut self, start: usize, len: usize, read_only: bool) -> Sys<()> {
        if !read_only {
            // What the owner could not write to before, it can now.
            return match uffd::map_present(self.faults, start, len, false)? {
                true => uffd::write_unprotect(self.faults, start, len),
                false => Ok(()),
            };
        }
        if self.abilities.map_protected {
            return uffd::map_present(self.faults, start, len, true).map(drop);
        }
        // If they cannot be stopped the pages can be written to for a moment.
        let stopped = self.stop().is_ok();
        let mapped = uffd::map_present(self.faults, start, len, false);
        let done = uffd::write_protect(self.faults, start, len).and(mapped.map(drop));
        if stopped {
            self.resume();
        }
        done
    }

    /// An owner is gone: threads that wait for its pages fault again, and get
    /// SIGBUS.
    pub fn wake_attachments_of(&mut self, i: usize) {
        for k in 0..self.attachments.len() {
            let Some(p) = self.attachments.get(k) else {
                break;
            };
            if self.permits[p.permit].connection == i {
                let _ = uffd::wake(self.faults, p.start, p.end - p.start);
            }
        }
        // The program may have unmapped what a thread waits for.
        while let Some(page) = self.faulting.page_asked_on(i) {
            self.fault_again(page);
        }
    }

    /// Keeps what [`Self::sever_attachments_of`] needs: later there may be no
    /// descriptor left for it.
    pub fn prepare_to_sever(&mut self) -> Sys<()> {
        if self.gone >= 0 {
            return Ok(());
        }
        let no_room = |_| libc::ENOMEM;
        let empty = mem::memfd(c"xpmem-gone").map_err(no_room)?;
        match self.identity_as_mapped(empty) {
            Some(identity) => {
                (self.gone, self.gone_identity) = (empty, identity);
                Ok(())
            }
            None => {
                crate::rawsys::close(empty);
                Err(libc::ENOMEM)
            }
        }
    }

    /// The service of a living owner is gone: nobody would revoke its pages any
    /// more, so they must not stay in sight here. Its memory is not ours to
    /// change: something whose touch is SIGBUS takes the attachments' places,
    /// while the threads stand, and stays there until they are detached.
    pub fn sever_attachments_of(&mut self, i: usize) {
        let (empty, identity) = (self.gone, self.gone_identity);
        let stopped = (0..50).any(|_| self.stop().is_ok());
        self.on_faults();
        let mut k = 0;
        while let Some(piece) = self.attachments.get(k) {
            k += 1;
            if self.permits[piece.permit].connection == i {
                self.for_mapped_parts(piece, |service, lo, len| {
                    if uffd::unwatch(service.faults, lo, len).is_err() {
                        return;
                    }
                    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
                    // A store is SIGBUS too, and not SIGSEGV.
                    let prot = libc::PROT_READ | libc::PROT_WRITE;
                    let offset = lo - piece.start;
                    let _ = mem::map(lo, len, prot, flags, empty, offset);
                    let _ = uffd::register(service.faults, lo, len, GATED);
                });
                self.attachments.show(k - 1, identity);
            }
        }
        if stopped {
            self.resume();
        }
    }
}
