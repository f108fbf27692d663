// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands where in the program's address space.

#![forbid(unsafe_code)]

use super::pieces::Piece;
use super::scratch::Place;
use super::Program;
use crate::fd::Fd;
use crate::user::sys::{held, hugetlb, uffd, Span, Sys, HUGE, PAGE};
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
        self.scratch.unmap(Span::of(addr, len));
        found.map(|m| (m.device, m.inode))
    }

    /// Takes `span` from every userfaultfd that tells of changes, mapping by
    /// mapping. To be called before the service changes what is mapped there: it
    /// would wait for itself to read the event of that. Where this fails, it must
    /// leave everything as it is.
    pub fn unwatch(&self, span: Span) -> Sys<()> {
        let mut rest = span;
        while let Some(m) = self.space.find(rest.start())? {
            let part = m.span().cut_to(rest);
            if part.is_empty() {
                break;
            }
            for userfaultfd in [self.changes().fd(), self.touches().fd()] {
                uffd::ensure_unregistered(userfaultfd, part.start(), part.len())?;
            }
            rest = span.from(part.end());
        }
        Ok(())
    }

    /// Whether a userfaultfd of the program's own watches a part of one mapping.
    pub fn is_watched_by_others(&self, part: Span) -> bool {
        // One page tells it of all, and each page that is asked for takes time. But a
        // huge page would be split for it.
        let start = part.start();
        let around = Span::of(start & !(HUGE - 1), HUGE);
        let small = self.space.has_scan() && !self.space.is_huge(around);
        self.changes()
            .find_others_at(if small { Span::of(start, PAGE) } else { part })
    }

    /// Maps `source` of an owner's file without access: where pages of size `page` can
    /// stand, if it is long enough to have one.
    pub fn place_window(&mut self, source: Span, page: usize, memfd: Fd) -> Sys<usize> {
        const NONE: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let file = libc::MAP_SHARED | libc::MAP_NORESERVE;
        let (source, len) = (source.start(), source.len());
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
    pub fn for_mapped_parts(&self, piece: Piece, body: &mut dyn FnMut(&Self, Span)) {
        let mut rest = piece.span();
        while !rest.is_empty() {
            let Ok(Some(m)) = self.space.find(rest.start()) else {
                break;
            };
            let part = m.span().cut_to(rest);
            if part.is_empty() {
                break;
            }
            if piece.is_shown_by(&m, part.start()) {
                body(self, part);
            }
            rest = rest.from(part.end());
        }
    }

    /// The program has unmapped `span`: so its attachments there are gone, but for
    /// one that has been made there since.
    pub fn on_unmapped(&mut self, span: Span) {
        let mut rest = span;
        while !rest.is_empty() {
            let found = self.space.find(rest.start()).ok().flatten();
            let Some(m) = found.filter(|m| m.start < rest.end()) else {
                return self.attachments.cut(rest);
            };
            if m.start > rest.start() {
                self.attachments.cut(Span::new(rest.start(), m.start));
            }
            let part = m.span().cut_to(rest);
            let there = self.attachments.at(part.start());
            if !there.is_some_and(|p| p.is_shown_by(&m, part.start())) {
                self.attachments.cut(part);
            }
            rest = rest.from(part.end());
        }
    }
}
