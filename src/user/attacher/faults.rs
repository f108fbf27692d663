// SPDX-License-Identifier: MIT OR Apache-2.0
//! Touches of attached memory, and changes that the program makes to it.

#![forbid(unsafe_code)]

use crate::debug::{count, COUNTERS};
use crate::user::program::pieces::Piece;
use crate::user::protocol::limits::CHUNK_MAX;
use crate::user::protocol::wire::{Message, Status, READ_ONLY};
use crate::user::service::state::Service;
use crate::user::sys::{page_down, page_up, uffd, Sys, TOP};
use core::ffi::c_int;

/// How often pages are tried to be mapped while the program changes its address
/// space; who waits for them then faults again.
const TRIES: u32 = 8;

impl Service {
    /// Faults on attachments, and changes that the program made to them.
    pub fn on_faults(&mut self) {
        while let Ok(event) = uffd::read(self.owner.program.faults) {
            match event.kind {
                uffd::EVENT_PAGEFAULT => {
                    let protected = event.a & uffd::FAULT_WP != 0;
                    let page = page_down(event.b as usize);
                    self.on_fault(page, event.c as u32 as i32, protected);
                }
                uffd::EVENT_UNMAP => self
                    .owner
                    .program
                    .on_unmapped(event.a as usize, event.b as usize),
                uffd::EVENT_REMAP => {
                    let (from, to) = (event.a as usize, event.b as usize);
                    self.owner
                        .program
                        .attachments
                        .moved(from, to, page_up(event.c as usize));
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
        let Some(piece) = self.owner.program.attachments.at(page).filter(still) else {
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
        let piece = self.owner.program.attachments.at(page);
        piece.is_some_and(|piece| self.permits[piece.permit].writable)
    }

    /// The owner has `[first, last)` ready: maps what of it is within the piece
    /// that holds `addr`, and lets those go on who wait for it. No owner shares
    /// more at a time than is looked at here: each page may cost a system call.
    pub fn publish(&mut self, addr: usize, first: usize, last: usize, read_only: bool) {
        let read_only = read_only || !self.may_write(addr);
        for _ in 0..TRIES {
            let Some(p) = self.owner.program.attachments.at(addr) else {
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
            let _ = uffd::wake(self.owner.program.faults, here, end - first);
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
            return match uffd::map_present(self.owner.program.faults, start, len, false)? {
                true => uffd::write_unprotect(self.owner.program.faults, start, len),
                false => Ok(()),
            };
        }
        if self.can_map_protected {
            return uffd::map_present(self.owner.program.faults, start, len, true).map(drop);
        }
        // If they cannot be stopped the pages can be written to for a moment.
        let stopped = self.owner.stop().is_ok();
        let mapped = uffd::map_present(self.owner.program.faults, start, len, false);
        let done = uffd::write_protect(self.owner.program.faults, start, len).and(mapped.map(drop));
        if stopped {
            self.owner.resume();
        }
        done
    }

    /// An owner is gone: threads that wait for its pages fault again, and get
    /// SIGBUS.
    pub fn wake_attachments_of(&mut self, i: usize) {
        for k in 0..self.owner.program.attachments.len() {
            let Some(p) = self.owner.program.attachments.get(k) else {
                break;
            };
            if self.permits[p.permit].connection == i {
                let _ = uffd::wake(self.owner.program.faults, p.start, p.end - p.start);
            }
        }
        // The program may have unmapped what a thread waits for.
        while let Some(page) = self.faulting.page_asked_on(i) {
            self.fault_again(page);
        }
    }
}
