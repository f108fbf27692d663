// SPDX-License-Identifier: MIT OR Apache-2.0
//! What holds, and is at hand, before the first page of an exchange moves.
//!
//! All threads stand, and no page has moved yet: an exchange that is refused here has
//! only to be cleared away.

#![forbid(unsafe_code)]

use super::exchange::Exchange;
use super::refusal::Refusal;
use super::revoke::PRIVATE;
use super::Owner;
use crate::errno::Errno;
use crate::fd::Fd;
use crate::user::arena::ranges::Origin;
use crate::user::arena::Shared;
use crate::user::program::scratch::Place;
use crate::user::program::threads::Standing;
use crate::user::sys::{held, mem, uffd, Sys};

impl Owner {
    /// Sees to it that `x` can begin, and notes it in the journal.
    pub fn make_ready(
        &mut self,
        standing: &Standing,
        shared: &Shared,
        x: &mut Exchange,
        origin: Origin,
    ) -> Result<(), Refusal> {
        self.is_still_wanted(shared, x)?;
        if !x.copied {
            mem::punch(self.memfd, x.lo, x.len).map_err(Refusal::Os)?;
        }
        self.end_watches(x)?;
        self.hooks.write(self.program.standing_thread(standing));
        if !self.program.scratch.has_room_to_give() || !self.can_note_settings(shared) {
            return Err(Refusal::Os(Errno::ENOMEM));
        }
        x.locked = mem::is_locked(x.lo);
        let (prot, none) = (x.mapping.prot(), Fd::NONE);
        let scratch = &self.program.scratch;
        let aside = scratch.map(Place::Aside, x.len, prot, PRIVATE, none, x.lo);
        x.aside = aside.map_err(Refusal::Os)?;
        self.journal.note(x, origin);
        if x.by_page {
            self.prepare_move(x).map_err(Refusal::Os)?;
        }
        Ok(())
    }

    /// The program may have changed its mind about this memory before it stood.
    fn is_still_wanted(&self, shared: &Shared, x: &Exchange) -> Result<(), Refusal> {
        if shared.guarded(x.span()) || self.program.forks.are_under_way() {
            return Err(Refusal::Later);
        }
        match self.program.space.at(x.lo) {
            Ok(Some(now)) if now.end >= x.span().end() && now.is_still(&x.mapping) => Ok(()),
            _ => Err(Refusal::Later),
        }
    }

    /// Nothing tells of changes of this memory any more; what has been written since it
    /// was copied, where the kernel has noted that, is copied again.
    fn end_watches(&mut self, x: &Exchange) -> Result<(), Refusal> {
        if x.tracked {
            return self.copy_changed(x).map_err(|errno| match errno {
                Errno::EPERM => Refusal::Later,
                errno => Refusal::Os(errno),
            });
        }
        // Before Linux 6.17 it would be taken from any other that watches it.
        if self.program.is_watched_by_others(x.span()) {
            return Err(Refusal::Os(Errno::EBUSY));
        }
        self.program.unwatch(x.span()).map_err(Refusal::Os)
    }

    /// Makes both places ready for pages that move one by one.
    fn prepare_move(&mut self, x: &mut Exchange) -> Sys<()> {
        if mem::is_locked(x.aside) {
            // All new memory is (mlockall), and has pages already.
            mem::unlock(x.aside, x.len)?;
            held::advise(x.aside, x.len, libc::MADV_DONTNEED)?;
        }
        // Not for missing pages: the service reads there, and would wait for itself.
        uffd::register(self.precopy, x.aside, x.len, uffd::MODE_WP)?;
        // A page that another process reaches for meanwhile must not seem empty.
        uffd::register(self.precopy, x.lo, x.len, uffd::MODE_MISSING)?;
        x.watched = true;
        // Pages move between two places that are locked, or between two that are not.
        // What may be locked is limited: not both at a time.
        if x.locked {
            mem::unlock(x.lo, x.len)?;
            x.unlocked = true;
        }
        Ok(())
    }
}
