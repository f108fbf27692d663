// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two userfaultfds that watch the program's memory: one tells of changes of what
//! is exported, one of touches of what is attached.

#![forbid(unsafe_code)]

use super::Program;
use crate::fd::Fd;
use crate::user::sys::uffd::{self, Event};
use crate::user::sys::{net, Span, Sys};

/// Tells of changes of promoted and lent memory. No fault comes here.
#[derive(Clone, Copy)]
pub struct Changes(Fd);

impl Changes {
    /// Tells from now on when the program unmaps, moves or drops `span`.
    pub fn watch(self, span: Span) -> Sys<()> {
        uffd::register(self.0, span.start(), span.len(), uffd::MODE_WP)
    }

    /// Tells of them no more. EINVAL where something stands there that cannot be watched.
    pub fn unwatch(self, span: Span) -> Sys<()> {
        uffd::unregister(self.0, span.start(), span.len())
    }

    /// Whether a userfaultfd of the program's own watches memory that this one does not.
    pub fn find_others_at(self, span: Span) -> bool {
        uffd::is_watched_by_others(self.0, span.start(), span.len())
    }

    /// The next change. Who has made it goes on when this is read.
    pub fn next(self) -> Sys<Event> {
        uffd::read(self.0)
    }

    /// Whether a change is waiting to be read.
    pub fn has_next(self) -> bool {
        net::has_input(self.0)
    }

    /// What becomes readable when there is one.
    pub fn fd(self) -> Fd {
        self.0
    }
}

/// Tells of touches of attachments, whose pages are mapped through it.
#[derive(Clone, Copy)]
pub struct Touches(Fd);

impl Touches {
    /// Tells from now on of touches of `span`, of the kinds in `mode`.
    pub fn watch(self, span: Span, mode: u64) -> Sys<()> {
        uffd::register(self.0, span.start(), span.len(), mode)
    }

    /// Tells of them no more, whatever stands there now. Where this fails nothing may be
    /// changed there.
    pub fn ensure_unwatched(self, span: Span) -> Sys<()> {
        uffd::ensure_unregistered(self.0, span.start(), span.len())
    }

    /// The next touch.
    pub fn next(self) -> Sys<Event> {
        uffd::read(self.0)
    }

    /// Wakes who waits for a page; it is touched again.
    pub fn wake(self, span: Span) {
        let _ = uffd::wake(self.0, span.start(), span.len());
    }

    /// Makes a touch SIGBUS from now on, and wakes who waits for the page.
    pub fn poison(self, span: Span) -> Sys<()> {
        uffd::poison(self.0, span.start(), span.len())
    }

    /// Maps the pages that the file has, on huge pages where it has those and `huge`
    /// is asked for; whether some may have been protected before.
    pub fn map(self, span: Span, huge: bool) -> Sys<bool> {
        uffd::map_present_huge(self.0, span.start(), span.len(), huge)
    }

    /// Maps the pages that the file has; with `protect` a write to them is told.
    pub fn map_small(self, span: Span, protect: bool) -> Sys<()> {
        uffd::map_present(self.0, span.start(), span.len(), protect).map(drop)
    }

    /// Whether this kernel maps pages write-protected, asked with any `page`.
    pub fn can_map_protected(self, page: usize) -> bool {
        uffd::can_map_protected(self.0, page)
    }

    /// Tells of writes to pages that are mapped.
    pub fn protect(self, span: Span) -> Sys<()> {
        uffd::write_protect(self.0, span.start(), span.len())
    }

    /// Tells of writes no more, and wakes who waits to write.
    pub fn unprotect(self, span: Span) -> Sys<()> {
        uffd::write_unprotect(self.0, span.start(), span.len())
    }

    /// What becomes readable when there is a touch.
    pub fn fd(self) -> Fd {
        self.0
    }
}

impl Program {
    /// Opens both, each with its features of userfaultfd, for as long as the service
    /// lives.
    pub fn open_watches(&mut self, on_changes: u64, on_touches: u64) -> Sys<()> {
        self.changes = Changes(uffd::open(on_changes)?.keep());
        self.touches = Touches(uffd::open(on_touches)?.keep());
        Ok(())
    }

    /// What tells of changes of exported memory.
    pub fn changes(&self) -> Changes {
        self.changes
    }

    /// What tells of touches of attachments.
    pub fn touches(&self) -> Touches {
        self.touches
    }
}
