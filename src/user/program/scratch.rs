// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address space of the service's own, where mappings are made ready while the
//! program runs.
//!
//! Anywhere else they could stand in a hole that the program has made, knows to
//! be empty, and is about to fill with `MAP_FIXED`: its memory would then be
//! moved, or unmapped, in place of ours.

#![forbid(unsafe_code)]

use crate::fd::Fd;
use crate::user::sys::{held, insist, mem, Span, Sys, HUGE, PAGE};
use core::cell::Cell;
use core::ffi::c_int;

/// What each place is for.
#[derive(Clone, Copy)]
pub enum Place {
    /// The file's pages that are going to replace memory of the program.
    Stage,
    /// The memory that they have replaced.
    Aside,
    /// Something to be looked at for a moment.
    Glance,
}

/// Size of a place, in bytes; what is larger goes wherever there is room.
const SIZE: usize = 64 << 20;

/// From one place to the next: there is room to begin at any part of a huge page.
const STRIDE: usize = SIZE + HUGE;

/// Pages of the ballast; each is a mapping of its own.
const BALLAST: usize = 24;

const NONE: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// The reserved range. All zero: there is none, and the kernel chooses.
pub struct Scratch {
    start: usize,
    len: Cell<usize>,
    /// Mappings that are held only to be given up, see [`Self::give_room`]; 0: none.
    ballast: usize,
    laden: Cell<bool>,
}

impl Scratch {
    /// Reserves the range; none where address space is limited, or where all
    /// new memory is locked.
    pub fn reserve() -> Self {
        let places = 2 * STRIDE + PAGE;
        let len = places + BALLAST * PAGE;
        let none = Scratch {
            start: 0,
            len: Cell::new(0),
            ballast: 0,
            laden: Cell::new(false),
        };
        let Ok(start) = held::map(0, len, libc::PROT_NONE, NONE, Fd::NONE, 0) else {
            return none;
        };
        let fit = held::advise(start, len, libc::MADV_DONTFORK).is_ok() && !mem::is_locked(start);
        if !fit {
            let _ = held::unmap(start, len);
            return none;
        }
        Scratch {
            start,
            len: Cell::new(len),
            ballast: start + places,
            ..none
        }
    }

    /// Whether there are mappings to give up where something has to be undone for
    /// which the kernel must make one, but the program has as many as it may have.
    pub fn has_room_to_give(&self) -> bool {
        if self.ballast == 0 || self.laden.get() {
            return true;
        }
        // Neighbours of one kind would be one mapping.
        let laden = (0..BALLAST).step_by(2).all(|i| {
            let page = self.ballast + i * PAGE;
            held::advise(page, PAGE, libc::MADV_DONTDUMP).is_ok()
        });
        if laden {
            self.laden.set(true);
        } else {
            self.give_room();
        }
        laden
    }

    /// Whether a mapping can be cut in three; ENOMEM where the program has as many as
    /// it may have.
    pub fn try_to_split(&self) -> Sys<()> {
        if self.len.get() == 0 {
            return Ok(());
        }
        let at = self.map(Place::Glance, PAGE, libc::PROT_READ, NONE, Fd::NONE, 0)?;
        self.close(Span::of(at, PAGE));
        Ok(())
    }

    /// Gives up some mappings: one can be made now that could not be made before.
    pub fn give_room(&self) {
        if self.ballast != 0 {
            let _ = held::advise(self.ballast, BALLAST * PAGE, libc::MADV_DODUMP);
            self.laden.set(false);
        }
    }

    /// The reserved range, never to be promoted.
    pub fn range(&self) -> Span {
        Span::of(self.start, self.len.get())
    }

    /// The range is used no longer.
    pub fn leave(&self) {
        self.len.set(0);
    }

    /// mmap(2) at a place that is not in use. It begins at the same part of a huge
    /// page as `off`.
    pub fn map(
        &self,
        place: Place,
        len: usize,
        prot: c_int,
        flags: c_int,
        fd: Fd,
        off: usize,
    ) -> Sys<usize> {
        let (at, size) = match place {
            Place::Stage => (0, SIZE),
            Place::Aside => (STRIDE, SIZE),
            Place::Glance => (2 * STRIDE, PAGE),
        };
        if self.len.get() == 0 || len > size {
            return held::map(0, len, prot, flags, fd, off);
        }
        let fixed = flags | libc::MAP_FIXED;
        let mut at = self.start + at;
        if size > PAGE {
            at += off.wrapping_sub(at) % HUGE;
        }
        held::map(at, len, prot, fixed, fd, off)
    }

    /// Takes away what [`Self::map`] made.
    pub fn unmap(&self, span: Span) {
        if !self.close(span) {
            let _ = held::unmap(span.start(), span.len());
        }
    }

    /// What [`Self::map`] made has been moved away, with no thread running since:
    /// closes the hole, if it is one of the reserved range. Whether it is.
    pub fn close(&self, span: Span) -> bool {
        let (addr, len) = (span.start(), span.len());
        if !self.range().contains(addr) {
            return false;
        }
        let flags = NONE | libc::MAP_FIXED;
        let map = || held::map(addr, len, libc::PROT_NONE, flags, Fd::NONE, 0);
        let closed = map().or_else(|_| {
            self.give_room();
            map()
        });
        if closed.is_err() {
            // A hole that is not ours any more: the range is used no longer.
            let _ = held::unmap(addr, len);
            self.leave();
        } else {
            // Else it would be a mapping apart from the rest.
            let _ = insist(|| held::advise(addr, len, libc::MADV_DONTFORK));
        }
        true
    }
}
