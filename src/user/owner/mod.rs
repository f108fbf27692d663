// SPDX-License-Identifier: MIT OR Apache-2.0
//! The owner's side: segments, who may attach them, and requests for pages.

#![forbid(unsafe_code)]

pub mod changes;
pub mod children;
pub mod copier;
pub mod copies;
pub mod debts;
pub mod demote;
pub mod exchange;
pub mod journal;
pub mod lend;
pub mod locked;
pub mod pins;
pub mod promote;
pub mod refusal;
pub mod remap;
pub mod rescue;
pub mod revoke;
pub mod segments;
pub mod settings;
pub mod sysv;
pub mod thrift;
pub mod unmapped;

use super::arena::Shared;
use super::peers::requests::Effort;
use super::protocol::limits::{CHUNK_MAX, EAGER};
use super::protocol::wire::{Message, Status, Verb, READ_ONLY, WHOLE};
use super::service::state::Service;
use super::sys::{mem, page_down, PAGE, TOP};
use crate::debug::{count, COUNTERS};
use crate::debug_log;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use lend::Loan;
use refusal::Refusal;

/// Smallest and largest chunk that one lazy request shares. Requests that go
/// on where the last one ended take four times as much.
const CHUNK_MIN: usize = 64 * 1024;

/// Tries before the answer is that there is nothing: a millisecond apart, or
/// longer where a thread cannot be stopped, which can be a quarter of an hour in all.
const TRIES: u32 = 5000;

/// What became of a request.
pub enum Outcome {
    Answered,
    /// There is no room for the answer.
    Unsent,
    /// It cannot be served yet; how much is to be added to its tries.
    Later(u32),
    /// What is in the way passes: it is to be looked at again.
    Wait,
}

/// How long an attach waits for what passes, in nanoseconds: who attaches can
/// mostly take another way.
const ATTACH_WAIT: u64 = 250_000_000;

/// Where an attacher finds the pages it asked for.
enum Shareable {
    /// In the memfd.
    Here(usize, usize),
    /// In a file that the owner has mapped shared.
    Elsewhere(Loan),
}

impl Service {
    /// Answers a request for which `effort` has been made in vain.
    pub fn answer(
        &mut self,
        shared: &Shared,
        i: usize,
        m: &Message,
        effort: &mut Effort,
    ) -> Outcome {
        match m.verb {
            Verb::Share => self.try_share(shared, i, m, effort),
            Verb::Hello => {
                let fds = [self.handed_out, self.program.pidfd];
                self.send_answer(i, &m.answer(Status::Done), Some(fds))
            }
            Verb::Get => self.send_answer(i, &self.on_get(m), None),
            _ => {
                let alive = self.is_alive(m.id);
                let status = if alive { Status::Done } else { Status::Gone };
                self.send_answer(i, &m.answer(status), None)
            }
        }
    }

    fn send_answer(&mut self, i: usize, answer: &Message, fds: Option<[c_int; 2]>) -> Outcome {
        match self.peers.try_post(i, answer, fds) {
            Err(libc::EAGAIN) => Outcome::Unsent,
            // As many descriptors are under way to others as may be.
            Err(libc::ETOOMANYREFS) => Outcome::Later(0),
            // Or it is gone, which is about to be noticed.
            _ => Outcome::Answered,
        }
    }

    /// An attacher needs pages.
    fn try_share(
        &mut self,
        shared: &Shared,
        i: usize,
        m: &Message,
        effort: &mut Effort,
    ) -> Outcome {
        let mut file = None;
        let answer = match self.share(shared, i, m) {
            Ok(Shareable::Here(lo, hi)) => {
                count(&COUNTERS.faults_served);
                let mut answer = m.answer(Status::Done);
                (answer.lo, answer.hi) = (lo as u64, hi as u64);
                if self.any_read_only(lo, hi) {
                    answer.flags |= READ_ONLY;
                }
                answer
            }
            Ok(Shareable::Elsewhere(loan)) => {
                count(&COUNTERS.faults_served);
                file = (loan.fd >= 0).then_some(loan.fd);
                let mut answer = m.answer(Status::Elsewhere);
                (answer.lo, answer.hi) = (loan.lo as u64, loan.hi as u64);
                answer.addr = loan.offset as u64;
                answer.id = loan.kind();
                answer
            }
            Err(Refusal::Gone) => m.answer(Status::Gone),
            Err(why @ (Refusal::Later | Refusal::Relatives)) if effort.tries < TRIES => {
                // A relative mostly ends or execs at once; to look for it takes long.
                return Outcome::Later(if why == Refusal::Later { 1 } else { 10 });
            }
            Err(Refusal::Hole) => m.answer(Status::Hole),
            Err(why) if why.passes() && self.waits(shared, m, effort) => return Outcome::Wait,
            Err(why) => {
                count(&COUNTERS.refusals);
                self.tell_refusal(m, why);
                m.answer(if m.flags & WHOLE != 0 && why.fails_an_attach() {
                    Status::Refused
                } else {
                    Status::Hole
                })
            }
        };
        let fds = file.map(|fd| [fd, self.program.pidfd]);
        let outcome = self.send_answer(i, &answer, fds);
        if matches!(outcome, Outcome::Answered) {
            let c = &mut self.peers.connections[i];
            c.served = true;
            c.unnoted += 1;
            self.peers.unnoted += 1;
        }
        self.empty_trash();
        if let Some(fd) = file {
            crate::rawsys::close(fd);
        }
        outcome
    }

    /// Whether what is in the way of a request is waited for any longer.
    fn waits(&self, shared: &Shared, m: &Message, effort: &mut Effort) -> bool {
        let limit = shared.wait.load(Ordering::Relaxed);
        let limit = if m.flags & WHOLE != 0 {
            limit.min(ATTACH_WAIT)
        } else {
            limit
        };
        limit > 0 && !effort.patience.is_over(limit)
    }

    fn tell_refusal(&self, m: &Message, why: Refusal) {
        let lo = page_down(m.addr as usize);
        let hi = if m.flags & WHOLE != 0 {
            m.hi as usize
        } else {
            lo + PAGE
        };
        let remedy = why.remedy();
        debug_log!(
            "{lo:#x}-{hi:#x} cannot be shared: {}; {remedy}",
            why.reason()
        );
    }

    /// Whether a promotion may fill pages while the program runs: every answer so
    /// far has been acted upon. Else an old one could make an attacher map pages
    /// that are being filled; those that are filled while the program stands are
    /// there at once.
    pub fn may_precopy(&self) -> bool {
        self.abilities.precopy && self.peers.is_quiet()
    }

    /// Whether the program may read and not write some of `[lo, hi)`. What
    /// changes that makes the memory private again first, so that an answer
    /// that is given now holds until its pages are revoked.
    fn any_read_only(&self, lo: usize, hi: usize) -> bool {
        let mut at = lo;
        while at < hi {
            match self.program.space.find(at) {
                Ok(Some(m)) if m.start >= hi => break,
                Ok(Some(m)) if m.read && !m.write => return true,
                Ok(Some(m)) => at = m.end,
                Ok(None) => break,
                // Cannot be seen: the attacher may ask again.
                Err(_) => return true,
            }
        }
        false
    }

    /// Makes pages sharable; answers which.
    fn share(&mut self, shared: &Shared, i: usize, m: &Message) -> Result<Shareable, Refusal> {
        let s = self.segment(m.id).ok_or(Refusal::Gone)?;
        let s = self.segments[s];
        let lo = page_down(m.lo as usize).max(s.start).min(TOP);
        let hi = page_down((m.hi as usize).min(TOP)).min(s.end);
        let addr = page_down(m.addr as usize);
        if addr < lo || addr >= hi {
            return Err(Refusal::Hole);
        }
        if self.program.forks_under_way > 0 || self.recalling {
            return Err(Refusal::Later);
        }
        if let Some(loan) = self.lend(shared, addr, lo, hi)? {
            return Ok(Shareable::Elsewhere(loan));
        }
        if m.flags & WHOLE != 0 {
            // No attacher asks for more at a time.
            let hi = hi.min(addr.saturating_add(EAGER));
            let (lo, hi) = self.share_whole(shared, addr, hi)?;
            return Ok(Shareable::Here(lo, hi));
        }
        let c = &mut self.peers.connections[i];
        let goes_on = addr == c.next_expected && c.chunk != 0;
        c.chunk = if goes_on {
            (c.chunk * 4).min(CHUNK_MAX)
        } else {
            CHUNK_MIN
        };
        let block = c.chunk;
        let done = match self.share_chunk(shared, addr, lo, hi, block) {
            // One pinned page need not keep its neighbours back.
            Err(Refusal::Pinned) => self.share_chunk(shared, addr, lo, hi, PAGE)?,
            done => done?,
        };
        self.peers.connections[i].next_expected = done.1;
        Ok(Shareable::Here(done.0, done.1))
    }

    /// Shares everything in `[lo, hi)` that is there. Where some of it cannot be
    /// shared the rest is, and the answer is why not.
    fn share_whole(
        &mut self,
        shared: &Shared,
        lo: usize,
        hi: usize,
    ) -> Result<(usize, usize), Refusal> {
        let mut at = lo;
        let mut refused = None;
        while at < hi {
            match self.program.space.find(at) {
                Ok(Some(mapping)) if mapping.start < hi => {
                    at = at.max(mapping.start);
                    match self.share_chunk(shared, at, at, hi, CHUNK_MAX) {
                        Ok((from, end)) => {
                            // Pages that the owner never touched are wanted too.
                            if let Err(errno) = mem::populate(from, end - from) {
                                return Err(Refusal::of_changed(errno));
                            }
                            at = end.max(at + PAGE);
                        }
                        Err(Refusal::Later) => return Err(Refusal::Later),
                        Err(Refusal::Hole) => at = mapping.end,
                        // One pinned page need not keep its neighbours back.
                        Err(Refusal::Pinned) => {
                            refused = refused.or(Some(Refusal::Pinned));
                            at += PAGE;
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
        refused.map_or(Ok((lo, hi)), Err)
    }
}
