// SPDX-License-Identifier: MIT OR Apache-2.0
//! mremap(2) for the program: what is lent there is recalled, the threads are
//! stopped, and the caller has its answer while they stand.

#![forbid(unsafe_code)]

use super::pending::Reply;
use crate::errno::Errno;
use crate::user::arena::command::NOT_NEEDED;
use crate::user::arena::ranges::Origin;
use crate::user::arena::Shared;
use crate::user::owner::remap::Remap;
use crate::user::owner::revoke::outward;
use crate::user::program::stop::Unstoppable;
use crate::user::service::state::Service;
use crate::user::sys::{mem, page_up, Span, Sys, PAGE, TOP};

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
        if r.flags & mem::MREMAP_DONTUNMAP != 0 || r.old_len == 0 {
            return Reply::Now(self.before_second_place(shared, &r));
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
        if fixed || r.flags & libc::MREMAP_MAYMOVE != 0 && r.new_len > r.old_len {
            // What peers store while it is copied to its new place would be lost.
            self.withdraw(shared, r.old());
        } else {
            self.recall_lent(shared, r.old());
        }
        if let Some(target) = r.target() {
            self.recall_lent(shared, target);
        }
        let standing = match self.owner.stop() {
            Ok(standing) => standing,
            Err(Unstoppable::Busy) => return Reply::Now(Err(Errno::EAGAIN)),
            Err(Unstoppable::Forbidden | Unstoppable::Ended) => return Reply::Now(Ok(NOT_NEEDED)),
        };
        self.owner.note_growth_into(r.old());
        if let Some(target) = r.target() {
            self.owner.note_growth_into(target);
            self.on_faults();
        }
        let done = self.owner.remap_standing(&standing, shared, &r);
        shared.finish(slot, done.map(|addr| addr as u64));
        self.owner.resume(standing);
        Reply::Later
    }

    /// Two places have a mapping then: of shared memory, of the same pages. The kernel does
    /// that, and of shared anonymous memory as if it had never been promoted. Of private
    /// memory the pages move, as an event tells, and from no length it is refused.
    fn before_second_place(&mut self, shared: &Shared, r: &Remap) -> Sys<u64> {
        let span = outward(if r.old_len > 0 {
            Span::of(r.old, r.old_len)
        } else {
            Span::of(r.old, r.new_len)
        });
        let has = |origin| shared.promoted.has(span, origin);
        if r.old_len == 0 && has(Origin::Private) {
            return Err(Errno::EINVAL);
        }
        // What peers store while it is copied would be lost.
        self.withdraw(shared, span);
        if has(Origin::Shared) && self.demote_stopped(span) == Err(Errno::EAGAIN) {
            return Err(Errno::EAGAIN);
        }
        if let Some(target) = r.target() {
            self.withdraw(shared, target);
        }
        Ok(NOT_NEEDED)
    }
}
