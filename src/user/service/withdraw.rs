// SPDX-License-Identifier: MIT OR Apache-2.0
//! Withdrawal: attachers let go of memory that stays where it is.
//!
//! Removing pages from the memfd takes them from every attacher at once, and
//! from every device too: what an RDMA adapter or io_uring has pinned would no
//! longer be the program's memory, and what it writes would be lost without an
//! error. The kernel does not say which pages of a memfd are pinned. So pages
//! are only removed with the memory itself, by munmap or MADV_DONTNEED. Where
//! the memory lives on (its protection changes, its segment is withdrawn) and
//! where a lent file is taken back, attachers are asked, and the program waits
//! until they have let go.
//!
//! The wait has an end. Where an attacher does not answer, or cannot let go, it is
//! done by force: the content is copied into private memory and the pages are
//! removed.

#![forbid(unsafe_code)]

use super::pending::Reply;
use crate::debug_log;
use crate::errno::Errno;
use crate::user::arena::ranges::Origin;
use crate::user::arena::{self, Shared};
use crate::user::attacher::withdrawn::drop_pages;
use crate::user::attacher::{OwnersFile, Piece};
use crate::user::owner::revoke::outward;
use crate::user::peers::Side;
use crate::user::program::stop::Unstoppable;
use crate::user::protocol::ids::Kind;
use crate::user::protocol::message::Withdrawal;
use crate::user::service::state::Service;
use crate::user::sys::{Span, Sys, TOP};

/// Tries to stop the threads for a copy that nothing else can replace.
const TRIES: u32 = 100;

/// Tries of an attacher: within the time that it has for its answer.
const TRIES_IN_TIME: u32 = 20;

/// The owner's side.
impl Service {
    /// The calling thread is about to change `span`, under its guard: no attacher
    /// shows any of it when this returns, nor before the guard is released.
    pub fn withdraw(&mut self, shared: &Shared, span: Span) {
        let span = outward(span);
        if shared.promoted.first_in(span).is_none() {
            return;
        }
        self.forget_lent(shared, span);
        if crate::testing::nobody_lets_go() || !self.recall_range(shared, span) {
            self.take_by_force(span);
        }
    }

    /// Takes back what is lent in `span`, and waits until everybody has given it back.
    pub fn recall_lent(&mut self, shared: &Shared, span: Span) {
        if self.forget_lent(shared, span) {
            self.recall_range(shared, span);
        }
    }

    /// What is lent in `span` is watched no more; whether there was any.
    fn forget_lent(&mut self, shared: &Shared, span: Span) -> bool {
        let mut rest = span;
        let mut any = false;
        while let Some(r) = shared.promoted.first_in(rest) {
            if r.origin == Origin::Lent {
                let _ = self.owner.program.changes().unwatch(r.span());
                shared.promoted.remove(r.span());
                any = true;
            }
            rest = span.from(r.end);
        }
        any
    }

    /// Has every attacher let go of `span`; whether all have.
    pub fn recall_range(&mut self, shared: &Shared, span: Span) -> bool {
        self.ask_attachers(shared, Withdrawal::Range(span))
    }

    /// Makes private what attachers do not let go of.
    pub fn take_by_force(&mut self, span: Span) {
        let (start, end) = (span.start(), span.end());
        debug_log!("{start:#x}..{end:#x} is copied, since an attacher does not let go of it");
        let mut taken = || {
            let done = self.demote_stopped(span).is_ok();
            self.pay_debts();
            done
        };
        if !(0..TRIES).any(|_| taken()) {
            debug_log!("{start:#x}..{end:#x} is still shared");
        }
    }
}

/// Commands of the owner's program.
impl Service {
    /// The calling thread of the program is about to unmap `span`, or
    /// to put something else in its place. The addresses stay taken until it
    /// does, but nothing is behind them; or all of it, where that will be refused.
    pub fn retire(&mut self, span: Span) {
        let Some(shared) = arena::existing() else {
            return;
        };
        let span = outward(span);
        self.recall_lent(shared, span);
        if let Err(errno) = self.owner.retire_standing(shared, span) {
            let (start, end) = (span.start(), span.end());
            debug_log!("{start:#x}..{end:#x} may stay, it is only withdrawn: errno {errno}");
            self.withdraw(shared, span);
        }
    }

    /// Makes everything promoted in `span` private again, with all
    /// threads standing. EAGAIN where they cannot be stopped.
    pub fn demote_stopped(&mut self, span: Span) -> Sys<()> {
        let Some(shared) = arena::existing() else {
            return Ok(());
        };
        let span = outward(span);
        self.recall_lent(shared, span);
        if shared.promoted.first_in(span).is_none() {
            return Ok(());
        }
        let standing = match self.owner.stop() {
            Ok(standing) => standing,
            Err(Unstoppable::Busy) => return Err(Errno::EAGAIN),
            Err(Unstoppable::Forbidden) => return Err(Errno::EPERM),
            Err(Unstoppable::Ended) => return Err(Errno::ESRCH),
        };
        let done = self.owner.demote(&standing, shared, span);
        self.owner.resume(standing);
        done
    }

    /// The program is about to detach the segment at `address`: what stands as
    /// far from there as its offset says is part of it.
    pub fn recall_segment(&mut self, shared: &Shared, address: usize) {
        let mut from = 0;
        while let Some((place, span)) = self.owner.loans.next_of(address, from) {
            self.recall_lent(shared, span);
            from = place + 1;
        }
    }

    /// The program is about to let pages of the file in `span` change their places. A
    /// lent file is recalled for it. What has been promoted is of another file than the
    /// program knows: EINVAL, as for private memory.
    pub fn rearrange(&mut self, shared: &Shared, span: Span) -> Sys<u64> {
        self.recall_lent(shared, span);
        match shared.promoted.first_in(span) {
            Some(_) => Err(Errno::EINVAL),
            None => Ok(0),
        }
    }

    /// Withdraws a segment: every attachment of it is cut off before this is
    /// answered. Its pages stay where they are, see [`crate::user::service::withdraw`].
    pub fn remove(&mut self, shared: &Shared, slot: usize, id: i64) -> Reply {
        let Some(span) = self.owner.segments.withdraw(id) else {
            return self.ask_issuer(shared, slot, id, Kind::Segment);
        };
        if !self.ask_attachers(shared, Withdrawal::Segment(id)) {
            self.take_by_force(span);
        }
        Reply::Now(Ok(0))
    }

    /// Whether an id that this process issued is alive.
    pub fn is_alive(&self, id: i64) -> bool {
        self.owner.segments.range_of(id).is_some() || self.attacher.permits.find(id).is_some()
    }
}

/// The attacher's side.
impl Service {
    /// Owner `i` takes back a range or a segment; whether no attachment shows
    /// any of it now. What is touched from here on is asked for anew.
    pub fn on_withdrawn(&mut self, i: usize, what: Withdrawal) -> bool {
        let (segment, span) = match what {
            Withdrawal::Segment(segid) => (Some(segid), Span::new(0, TOP)),
            Withdrawal::Range(span) => (None, span),
        };
        if let Some(segid) = segment {
            self.attacher.permits.withdraw(i, segid);
        }
        let is_meant = |segid| segment.is_none_or(|meant| segid == meant);
        let permits = &self.attacher.permits;
        let is_of = |p: &Piece| {
            let permit = permits.get(p.permit);
            permit.connection == i && is_meant(permit.segid)
        };
        let space = &self.owner.program.space;
        let is_concerned = |p: &Piece| is_of(p) && p.cut_to(span).is_some_and(|p| p.is_seen(space));
        if !self.owner.program.attachments.any(is_concerned) {
            return true;
        }
        // What the program maps there meanwhile must not be taken for what it was.
        let standing = self.insist_on_stop(TRIES_IN_TIME);
        self.on_faults();
        let mut done = true;
        let mut at = 0;
        while let Some(p) = self.owner.program.attachments.next_from(at) {
            at = p.end;
            let permit = self.attacher.permits.get(p.permit);
            let mine = permit.connection == i && is_meant(permit.segid);
            let Some(part) = p.cut_to(span).filter(|_| mine) else {
                continue;
            };
            done &= if p.overlay {
                self.uncover(i, p)
            } else {
                drop_pages(&self.owner.program, part)
            };
        }
        self.owner.resume(standing);
        done
    }

    /// Puts the owner's memfd back in the place of a file of its.
    fn uncover(&mut self, i: usize, p: Piece) -> bool {
        let c = self.peers.connection(i);
        let (memfd, identity) = (c.owners_file(), c.identity);
        let file = OwnersFile { memfd, identity };
        let program = &mut self.owner.program;
        c.side != Side::Attacher || self.attacher.uncover(program, p, &file)
    }
}
