// SPDX-License-Identifier: MIT OR Apache-2.0
//! mremap(2) for the program: what is lent there is recalled, the threads are
//! stopped, and the caller has its answer while they stand.

#![forbid(unsafe_code)]

use super::pending::Reply;
use crate::errno::Errno;
use crate::user::arena::command::NOT_NEEDED;
use crate::user::arena::Shared;
use crate::user::owner::remap::Remap;
use crate::user::program::stop::Unstoppable;
use crate::user::service::state::Service;
use crate::user::sys::{mem, page_up, Span, PAGE, TOP};

impl Service {
    /// Does what mremap would do; answers the address, or [`NOT_NEEDED`].
    /// EAGAIN where the threads cannot be stopped. [`Reply::Later`]: the command in `slot` has
    /// been answered while they stood: a service that is killed afterwards must leave
    /// nothing to be done again.
    pub fn remap(&mut self, shared: &Shared, slot: usize, r: Remap) -> Reply {
        let r = Remap {
            old_len: page_up(r.old_len),
            new_len: page_up(r.new_len),
            ..r
        };
        if r.flags & mem::MREMAP_DONTUNMAP != 0 {
            return self.before_dontunmap(shared, &r);
        }
        let known = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let fixed = r.flags & libc::MREMAP_FIXED != 0;
        let sane = (r.old | if fixed { r.target } else { 0 }) % PAGE == 0
            && r.old_len > 0
            && r.new_len > 0
            && r.flags & !known == 0
            && (!fixed || r.flags & libc::MREMAP_MAYMOVE != 0)
            && r.old.checked_add(r.old_len).is_some_and(|end| end <= TOP);
        if !sane || !self.owner.needs_help(shared, &r) {
            return Reply::Now(Ok(NOT_NEEDED));
        }
        let (end, over) = (r.old + r.old_len, r.target.saturating_add(r.new_len));
        if fixed || r.flags & libc::MREMAP_MAYMOVE != 0 && r.new_len > r.old_len {
            // What peers store while it is copied to its new place would be lost.
            self.withdraw(shared, Span::new(r.old, end));
        } else {
            self.recall(shared, r.old, end);
        }
        if fixed {
            self.recall(shared, r.target, over);
        }
        let standing = match self.owner.stop() {
            Ok(standing) => standing,
            Err(Unstoppable::Busy) => return Reply::Now(Err(Errno::EAGAIN)),
            Err(Unstoppable::Forbidden | Unstoppable::Ended) => return Reply::Now(Ok(NOT_NEEDED)),
        };
        self.owner.note_growth_into(r.old, end);
        if fixed {
            self.owner.note_growth_into(r.target, over);
            self.on_faults();
        }
        let done = self.owner.remap_standing(&standing, shared, &r);
        shared.finish(slot, done.map(|addr| addr as u64));
        self.owner.resume(standing);
        Reply::Later
    }

    /// Two places have the memory then, and the pages are at the new one: the kernel
    /// does that, and its event tells of it. What peers store while they are copied
    /// would be lost.
    fn before_dontunmap(&mut self, shared: &Shared, r: &Remap) -> Reply {
        self.withdraw(shared, Span::of(r.old, r.old_len));
        if r.flags & libc::MREMAP_FIXED != 0 {
            self.withdraw(shared, Span::of(r.target, r.new_len));
        }
        Reply::Now(Ok(NOT_NEEDED))
    }
}
