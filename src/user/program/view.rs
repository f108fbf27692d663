// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands where in the program's address space.

#![forbid(unsafe_code)]

use super::pieces::Piece;
use super::scratch::Place;
use super::Program;
use crate::fd::Fd;
use crate::user::sys::{held, hugetlb, uffd, Sys};
use core::ffi::c_int;

impl Program {
    /// Device and inode of a file as they appear in a mapping of it.
    pub fn identity_as_mapped(&self, fd: Fd) -> Option<(u64, u64)> {
        self.identity_as_mapped_for(fd, false)
    }

    /// As [`Self::identity_as_mapped`]; `None` where it cannot be mapped for
    /// stores, if that is asked.
    pub fn identity_as_mapped_for(&self, fd: Fd, write: bool) -> Option<(u64, u64)> {
        let prot = libc::PROT_READ | if write { libc::PROT_WRITE } else { 0 };
        let len = crate::user::sys::PAGE;
        if hugetlb::page_of_file(fd) > len {
            // More would be mapped than there is room for.
            return None;
        }
        let addr = self
            .scratch
            .map(Place::Glance, len, prot, libc::MAP_SHARED, fd, 0)
            .ok()?;
        let found = self.space.at(addr).ok().flatten();
        self.scratch.unmap(addr, len);
        found.map(|m| (m.device, m.inode))
    }

    /// Takes `[lo, hi)` from every userfaultfd that tells of changes, mapping by
    /// mapping. To be called before the service changes what is mapped there: it
    /// would wait for itself to read the event of that. Where this fails, it must
    /// leave everything as it is.
    pub fn unwatch(&self, lo: usize, hi: usize) -> Sys<()> {
        let mut at = lo;
        while let Some(m) = self.space.find(at)?.filter(|m| m.start < hi && at < hi) {
            let (start, end) = (m.start.max(at), m.end.min(hi));
            for userfaultfd in [self.changes().fd(), self.touches().fd()] {
                uffd::unwatch(userfaultfd, start, end - start)?;
            }
            at = end;
        }
        Ok(())
    }

    /// Maps `len` bytes of an owner's file, from `source` on, without access: where pages
    /// of size `page` can stand, if it is long enough to have one.
    pub fn place_window(
        &mut self,
        (source, len): (usize, usize),
        page: usize,
        memfd: Fd,
    ) -> Sys<usize> {
        const NONE: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let file = libc::MAP_SHARED | libc::MAP_NORESERVE;
        let map = |at, flags| held::map(at, len, libc::PROT_NONE, flags, memfd, source);
        if len < page {
            return map(0, file);
        }
        let fits = |addr: usize| addr % page == source % page;
        // Where the last one was, if that is free.
        let last = if fits(self.last_window) {
            self.last_window
        } else {
            0
        };
        let addr = map(last, file)?;
        if fits(addr) {
            self.last_window = addr;
            return Ok(addr);
        }
        let Ok(room) = held::map(0, len + page, libc::PROT_NONE, NONE, Fd::NONE, 0) else {
            return Ok(addr);
        };
        let _ = held::unmap(addr, len);
        let to = room + source.wrapping_sub(room) % page;
        let rest = room + page - to;
        let mapped = map(to, file | libc::MAP_FIXED);
        if mapped.is_err() {
            let _ = held::unmap(room, len + page);
            return mapped;
        }
        if to > room {
            let _ = held::unmap(room, to - room);
        }
        if rest > 0 {
            let _ = held::unmap(to + len, rest);
        }
        self.last_window = to;
        Ok(to)
    }

    /// Calls `body` with what of a piece is still mapped as it was made: the
    /// program may have put something else there.
    pub fn for_mapped_parts(&self, piece: Piece, body: &mut dyn FnMut(&Self, usize, usize)) {
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
}
