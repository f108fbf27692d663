// SPDX-License-Identifier: MIT OR Apache-2.0
//! The attacher's commands: get, attach, detach and release.

#![forbid(unsafe_code)]

use super::pending::{Reply, What};
use crate::errno::Errno;
use crate::user::arena::Shared;
use crate::user::attacher::{self, OwnersFile, Place};
use crate::user::peers::Side;
use crate::user::protocol::ids::{Id, Kind};
use crate::user::protocol::limits::EAGER;
use crate::user::protocol::message::{Extent, Question, Wish};
use crate::user::service::state::Service;
use crate::user::sys::{hugetlb, Span, Sys, HUGE, PAGE, TOP};
use core::ffi::c_int;

/// A window of this size or more may be on pages larger than [`HUGE`].
const GIGANTIC: usize = 1 << 30;

/// What `xpmem_attach` is asked for.
pub struct Wanted {
    pub apid: i64,
    pub offset: i64,
    pub size: usize,
    /// 0: anywhere.
    pub vaddr: usize,
}

impl Service {
    /// Asks for access to a segment. [`Reply::Later`]: the owner has been asked.
    pub fn get(&mut self, shared: &Shared, slot: usize, segid: i64, flags: c_int) -> Reply {
        let Some(id) = Id::decode(segid).filter(|id| id.kind == Kind::Segment) else {
            return Reply::Now(Err(Errno::ENOENT));
        };
        let i = match self.connection_to(shared, id.token) {
            Ok(i) => i,
            Err(errno) => return Reply::Now(Err(errno)),
        };
        let writable = flags == crate::uapi::RDWR;
        let question = Question::Get { segid, writable };
        self.ask_for_command(slot, i, question, What::Get { segid, writable })
    }

    /// Maps part of a segment. [`Reply::Later`]: the owner has been asked for its pages.
    pub fn attach(&mut self, shared: &Shared, slot: usize, wanted: &Wanted) -> Reply {
        let Wanted {
            apid,
            offset,
            size,
            vaddr,
        } = *wanted;
        let Some(p) = self.attacher.permits.find(apid) else {
            return self.ask_issuer(shared, slot, apid, Kind::Permit);
        };
        let i = self.attacher.permits.get(p).connection;
        if self.peers.side(i) == Side::Attacher {
            self.drain_all(shared, i);
        }
        let permit = *self.attacher.permits.get(p);
        if permit.dead || self.peers.side(i) != Side::Attacher {
            return Reply::Now(Err(Errno::ENOENT));
        }
        let len = match size.checked_next_multiple_of(PAGE) {
            Some(len) if len > 0 && offset >= 0 => len,
            _ => return Reply::Now(Err(Errno::EINVAL)),
        };
        let start = permit.span.start().saturating_add(offset as usize);
        let source = match Span::below_top(start, len) {
            Some(source) if source.end() <= permit.span.end() => source,
            _ => return Reply::Now(Err(Errno::EINVAL)),
        };
        let addr = match self.map_attachment(shared, p, source, vaddr) {
            Ok(addr) => addr,
            Err(errno) => return Reply::Now(Err(errno)),
        };
        // Where the program has chosen the address, nothing is moved for large pages. A
        // window that begins and ends at multiples of a large page has room for them.
        let odd = (start | len) % HUGE != 0 || len >= GIGANTIC;
        let layout = vaddr == 0 && len > EAGER && odd && self.attacher.hugetlb.any();
        if len <= EAGER || layout {
            let question = Question::Share(Wish {
                segid: permit.segid,
                addr: start,
                span: source,
                extent: if layout {
                    Extent::Layout
                } else {
                    Extent::Whole
                },
            });
            let attachment = self.owner.program.attachments.last_number();
            let fixed = vaddr != 0;
            let what = What::Attach {
                addr,
                attachment,
                fixed,
            };
            return self.ask_for_command(slot, i, question, what);
        }
        Reply::Now(Ok(addr as u64))
    }

    /// Maps `source` of the owner's for permit `p`, at `vaddr` if that is not 0.
    fn map_attachment(
        &mut self,
        shared: &Shared,
        p: usize,
        source: Span,
        vaddr: usize,
    ) -> Sys<usize> {
        let c = self
            .peers
            .connection(self.attacher.permits.get(p).connection);
        let (memfd, identity, token) = (c.owners_file(), c.identity, c.token);
        if !self.owner.program.attachments.has_room() {
            return Err(Errno::ENOMEM);
        }
        if vaddr != 0 {
            let window = Span::below_top(vaddr, source.len()).ok_or(Errno::EINVAL)?;
            let own = token == self.peers.token();
            if own && window.overlaps(source) {
                return Err(Errno::EINVAL);
            }
            if self.owner.program.attachments.overlaps(window) {
                return Err(Errno::EINVAL);
            }
            // The service itself would be gone.
            if self.owner.own_memory().any(|own| own.overlaps(window)) {
                return Err(Errno::EINVAL);
            }
            self.owner.note_growth_into(window);
            if shared.promoted.first_in(window).is_some() {
                self.retire(window);
            }
            self.owner.program.unwatch(window)?;
        }
        let at = if vaddr == 0 {
            Place::ForPages(HUGE)
        } else {
            Place::At(vaddr)
        };
        let file = OwnersFile { memfd, identity };
        let program = &mut self.owner.program;
        self.attacher.map(program, p, source, at, &file)
    }

    /// A new attachment, whose address the program does not know yet, gets room for
    /// whole pages of size `page`, which are the owner's `whole`. Answers its address.
    pub fn make_room(
        &mut self,
        i: usize,
        (addr, attachment): (usize, u64),
        page: usize,
        whole: Span,
    ) -> Sys<usize> {
        let (lo, hi) = (whole.start(), whole.end());
        let Some(p) = self.owner.program.attachments.at(addr) else {
            return Ok(addr);
        };
        let (first, last) = (p.source, p.source + (p.end - p.start));
        let is_it = p.attachment == attachment
            && p.start == addr
            && self.attacher.permits.get(p.permit).connection == i;
        // No more than the pages at its ends.
        let sane = hugetlb::sane(page).is_some()
            && (lo == first || lo == first & !(page - 1))
            && (hi == last || hi == last.next_multiple_of(page))
            && hi <= TOP;
        let fits = (lo, hi) == (first, last) && p.start.wrapping_sub(lo) % page == 0;
        if !is_it || !sane || fits {
            return Ok(addr);
        }
        let c = self.peers.connection(i);
        let (memfd, identity) = (c.owners_file(), c.identity);
        let file = OwnersFile { memfd, identity };
        let program = &mut self.owner.program;
        attacher::unmap(program, addr);
        let place = Place::ForPages(page);
        let room = self.attacher.map(program, p.permit, whole, place, &file)?;
        Ok(room + (first - lo))
    }

    /// Unmaps the attachment that holds `addr`.
    pub fn detach(&mut self, addr: usize) -> Sys<u64> {
        self.on_faults();
        match self.owner.program.attachments.at(addr) {
            Some(_) => {
                attacher::unmap(&mut self.owner.program, addr);
                Ok(0)
            }
            None => match self.owner.program.space.at(addr) {
                Ok(Some(m)) if self.unmap_severed(addr, &m) => Ok(0),
                Ok(Some(_)) => Err(Errno::EINVAL),
                _ => Ok(0),
            },
        }
    }

    /// Gives a permit back, with its attachments.
    pub fn release(&mut self, shared: &Shared, slot: usize, apid: i64) -> Reply {
        let Some(p) = self.attacher.permits.find(apid) else {
            return self.ask_issuer(shared, slot, apid, Kind::Permit);
        };
        let mut at = 0;
        while let Some(piece) = self
            .owner
            .program
            .attachments
            .first_from(at, |piece| piece.permit == p)
        {
            at = piece.start;
            attacher::unmap(&mut self.owner.program, at);
        }
        let i = self.attacher.permits.give_back(p);
        let c = self.peers.connection_mut(i);
        c.permits -= 1;
        if c.permits == 0 && c.side == Side::Dead {
            c.side = Side::Free;
        }
        Reply::Now(Ok(0))
    }
}
