// SPDX-License-Identifier: MIT OR Apache-2.0
//! The owner's side: segments, who may attach them, and how their memory is shared.

#![forbid(unsafe_code)]

pub mod begin;
pub mod born;
pub mod changes;
pub mod child;
pub mod children;
pub mod copier;
pub mod copies;
pub mod debts;
pub mod demote;
pub mod exchange;
pub mod headroom;
pub mod huge;
pub mod hugetlb;
pub mod journal;
mod kept;
pub mod lend;
pub mod loans;
pub mod locked;
pub mod nodes;
pub mod pins;
pub mod promote;
pub mod ready;
pub mod refusal;
pub mod remap;
pub mod replaced;
pub mod rescue;
pub mod revoke;
pub mod segments;
pub mod settings;
pub mod sysv;
pub mod thrift;
pub mod unmapped;

use super::arena::Shared;
use super::hooks::Hooks;
use super::program::Program;
use super::protocol::limits::CHUNK_MAX;
use super::sys::{Span, HUGE, PAGE};
use crate::fd::Fd;
use born::Nursery;
use changes::{Change, CHANGES};
use debts::Debts;
use headroom::Headroom;
use journal::Journal;
use kept::Kept;
use loans::Loans;
use nodes::Nodes;
use pins::Stuck;
use refusal::Refusal;
use segments::Segments;
use settings::Settings;

/// What this process exports, and the program whose memory that is. All zero is
/// valid; the service gives the real values at its start.
pub struct Owner {
    pub program: Program,
    /// Writes to a range can be told afterwards: copy first, stop then.
    can_precopy: bool,
    /// Pinned pages can be told.
    can_move_pages: bool,
    /// Every answer that was given has been acted upon.
    quiet: bool,
    /// The exported address space: offset = address. Its identity on disk.
    memfd: Fd,
    /// The same file for peers: flags that one of them sets there are not ours.
    handed_out: Fd,
    memfd_identity: (u64, u64),
    /// userfaultfd that tells what was written during a copy; -1 without.
    precopy: Fd,
    pub segments: Segments,
    journal: Journal,
    stuck: Stuck,
    kept: Kept,
    /// Pages that a promotion has replaced, in the scratch range.
    trash: Span,
    /// Events that have been read and not been acted upon.
    changes: [Change; CHANGES],
    change_count: usize,
    /// Moved memory could not be made private again: it may still be in use
    /// somewhere.
    moved_astray: bool,
    /// What the program has unmapped and is still to be recalled: who did it must
    /// not go on before.
    pub debts: Debts,
    /// When the first stop failed that unread events wait for; 0: none waits.
    events_wait_since: u64,
    pub hooks: Hooks,
    /// What the program has said about memory that is promoted.
    settings: Settings,
    /// Memory nodes, where there are several.
    nodes: Nodes,
    /// What its memory cgroup has room for.
    headroom: Headroom,
    /// Some of the memfd may have a NUMA policy.
    has_policies: bool,
    pub loans: Loans,
    /// With so many ranges promoted no more come to stand alone.
    thrifty_from: usize,
    /// What was born shared.
    newborn: Nursery,
    /// Behind which range a gap was looked for last.
    gap_looked_at: usize,
}

impl Owner {
    /// Whether a promotion may fill pages while the program runs: every answer so
    /// far has been acted upon. Else an old one could make an attacher map pages
    /// that are being filled; those that are filled while the program stands are
    /// there at once.
    pub fn may_precopy(&self) -> bool {
        self.can_precopy && self.quiet
    }

    /// Whether the program may read and not write some of `span`. What
    /// changes that makes the memory private again first, so that an answer
    /// that is given now holds until its pages are revoked.
    pub fn any_read_only(&self, span: Span) -> bool {
        let mut at = span.start();
        while at < span.end() {
            match self.program.space.find(at) {
                Ok(Some(m)) if m.start >= span.end() => break,
                Ok(Some(m)) if m.read && !m.write => return true,
                Ok(Some(m)) => at = m.end,
                Ok(None) => break,
                // Cannot be seen: the attacher may ask again.
                Err(_) => return true,
            }
        }
        false
    }

    /// Shares everything in `span` that is there, and answers what of that may be
    /// mapped without more ado: not beyond memory that is shared and has been hidden
    /// since. Where some of it cannot be shared the rest is, and the answer is why not.
    pub fn share_whole(
        &mut self,
        shared: &Shared,
        span: Span,
        peers_lag: &mut dyn FnMut() -> bool,
    ) -> Result<Span, Refusal> {
        let (mut at, mut shown) = (span.start(), span.end());
        let mut refused = None;
        while at < span.end() {
            match self.program.space.find(at) {
                Ok(Some(mapping)) if mapping.start < span.end() => {
                    at = at.max(mapping.start);
                    match self.share_chunk(shared, at, span.from(at), CHUNK_MAX, peers_lag) {
                        Ok(done) => {
                            // Pages that the owner never touched are wanted too.
                            self.populate_as_owner(done).map_err(Refusal::of_changed)?;
                            at = done.end().max(at + PAGE);
                        }
                        Err(Refusal::Later) => return Err(Refusal::Later),
                        Err(Refusal::Hole) => {
                            if self.is_own(&mapping) {
                                shown = shown.min(at);
                            }
                            at = mapping.end;
                        }
                        // One pinned page need not keep its neighbours back.
                        Err(Refusal::Pinned) => {
                            refused = refused.or(Some(Refusal::Pinned));
                            at = if self.is_huge(&mapping, at) {
                                (at & !(HUGE - 1)) + HUGE
                            } else {
                                at + PAGE
                            };
                        }
                        Err(why) => {
                            // A shared file is lent when it is touched, and where
                            // this library stands the program has a hole.
                            if !mapping.shared && why != Refusal::Special {
                                refused = refused.or(Some(why));
                            }
                            at = mapping.end;
                        }
                    }
                }
                _ => break,
            }
        }
        match refused {
            Some(why) => Err(why),
            None if span.start() < shown => Ok(Span::new(span.start(), shown)),
            None => Err(Refusal::Hole),
        }
    }
}
