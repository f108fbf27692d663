// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an exchange has under way, for whoever comes after a service that is killed.
//!
//! Between two steps of an exchange the only pages of a piece are aside. All threads
//! stand then, but the kernel lets them go when their tracer is killed. What they
//! touch of the piece they wait for: the place is watched for missing pages, by a
//! descriptor that the anchor has, too. So the task that follows
//! ([`crate::user::service::rites`]) first moves back what it finds aside.
//!
//! Where a mapping has been moved as a whole there is a hole meanwhile, and a touch
//! of it is the program's end.

#![forbid(unsafe_code)]

use super::exchange::Exchange;
use super::Owner;
use crate::debug_log;
use crate::errno::Errno;
use crate::user::arena::ranges::{Origin, Range};
use crate::user::arena::Shared;
use crate::user::sys::{held, mem, task, uffd, Span, PAGE};

/// How often a page is tried that does not move back just now.
const TRIES: u32 = 100_000;

/// The exchange that is under way. All zero is none.
pub struct Journal {
    lo: usize,
    len: usize,
    stage: usize,
    /// 0: nothing has been moved.
    aside: usize,
    by_page: bool,
    unlocked: bool,
    shared: bool,
}

impl Journal {
    /// Takes note of what is about to be done, before it is.
    pub fn note(&mut self, x: &Exchange, origin: Origin) {
        *self = Journal {
            lo: x.lo,
            len: x.len,
            stage: x.stage,
            aside: x.aside,
            by_page: x.by_page,
            unlocked: x.locked,
            shared: origin == Origin::Shared,
        };
    }

    /// The exchange is done, or undone.
    pub fn close(&mut self) {
        self.len = 0;
    }
}

impl Owner {
    /// Ends the exchange in which a service was killed: what is in place stays, and
    /// all else is where it was before.
    pub fn end_exchange(&mut self, shared: &Shared) {
        let (lo, hi) = (self.journal.lo, self.journal.lo + self.journal.len);
        if lo == hi {
            return;
        }
        debug_log!("pages of {lo:#x}-{hi:#x} were changing places");
        let origin = if self.journal.shared {
            Origin::Shared
        } else {
            Origin::Private
        };
        let mut at = lo;
        while let Ok(Some(m)) = self.program.space.find(at) {
            let (start, end) = (m.start.max(at), m.end.min(hi));
            self.put_mapping_back(Span::new(at, start.min(hi)));
            if start >= hi {
                break;
            }
            let part = Span::new(start, end);
            if self.is_own(&m) {
                shared.promoted.insert(Range::new(part, origin));
            } else {
                self.put_pages_back(part, m.prot());
            }
            at = end;
            if at == hi {
                break;
            }
        }
        if self.journal.unlocked {
            let _ = mem::lock(lo, hi - lo);
        }
        if self.journal.by_page && self.journal.aside != 0 {
            let _ = held::unmap(self.journal.aside, hi - lo);
        }
        self.unmap_stage();
        // There may be holes in it, and mappings of the program in them.
        self.program.scratch.leave();
        self.journal.close();
    }

    /// The pages of `span` that are aside come back, and who waits for one goes on. What
    /// the program has put there since is not watched: nothing moves there.
    fn put_pages_back(&mut self, span: Span, prot: i32) {
        let (start, len) = (span.start(), span.len());
        let aside = self.journal.aside + (start - self.journal.lo);
        if self.journal.by_page && self.journal.aside != 0 {
            // It moves between mappings that may be used in the same way.
            let _ = held::protect(aside, len, prot);
            let (mut done, mut tries) = (0, 0);
            while done < len && tries < TRIES {
                let left = len - done;
                match uffd::move_pages(self.precopy, start + done, aside + done, left) {
                    Ok(moved) => done += moved,
                    // It is in its place.
                    Err(Errno::EEXIST) => done += PAGE,
                    Err(Errno::EINVAL | Errno::ENOENT) => break,
                    Err(_) => tries += 1,
                }
            }
            if tries == TRIES {
                debug_log!("{start:#x}-{:#x} cannot be put back", span.end());
                // It would go on with memory that is not its own.
                let _ = task::signal_task(self.program.tgid(), self.program.tgid(), libc::SIGKILL);
            }
        }
        let _ = uffd::ensure_unregistered(self.precopy, start, len);
    }

    /// A mapping that has left a hole at `span` comes back.
    fn put_mapping_back(&self, span: Span) {
        let aside = self.journal.aside + (span.start() - self.journal.lo);
        if !span.is_empty() && !self.journal.by_page && self.journal.aside != 0 {
            let _ = held::move_over(aside, span.len(), span.start());
        }
    }

    fn unmap_stage(&self) {
        let stage = Span::of(self.journal.stage, self.journal.len);
        let mut rest = stage;
        while let Ok(Some(m)) = self.program.space.find(rest.start()) {
            let part = m.span().cut_to(rest);
            if part.is_empty() {
                break;
            }
            if self.is_own(&m) {
                let _ = held::unmap(part.start(), part.len());
            }
            rest = stage.from(part.end());
        }
    }
}
