// SPDX-License-Identifier: MIT OR Apache-2.0
//! The owner's side: answers what attachers ask for, pages above all.

#![forbid(unsafe_code)]

use crate::debug::{count, COUNTERS};
use crate::debug_log;
use crate::errno::Errno;
use crate::fd::Fd;
use crate::user::arena::Shared;
use crate::user::owner::lend::Loan;
use crate::user::owner::refusal::Refusal;
use crate::user::peers::requests::Effort;
use crate::user::protocol::limits::{CHUNK_MAX, EAGER};
use crate::user::protocol::message::{
    About, Answer, Body, Denial, Extent, Message, Pages, Question, Wish,
};
use crate::user::service::state::Service;
use crate::user::sys::{page_down, Span, Sys, PAGE, TOP};
use core::sync::atomic::Ordering;

/// Tries before the answer is that there is nothing: a millisecond apart, or
/// longer where a thread cannot be stopped, which can be a quarter of an hour in all.
const TRIES: u32 = 5000;

/// Tries to send an address space, a millisecond apart.
const GREETINGS: u32 = 1000;

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
    Here(Span),
    /// In a file that the owner has mapped shared.
    Elsewhere(Loan),
    /// What is asked for is only where pages begin and end, and their size.
    Layout { span: Span, page: usize },
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
        let Body::Question(asked) = m.body else {
            return Outcome::Answered;
        };
        let said = match asked {
            Question::Share(wish) => return self.try_share(shared, i, (m, &wish), effort),
            Question::Hello => return self.greet(i, m, effort),
            // Without an address space it could do nothing with the answer.
            _ if self.peers.connection(i).greeting => return Outcome::Later(0),
            Question::Get { segid, writable } => {
                let uid = self.peers.uid();
                Answer::Get(self.owner.segments.admit(segid, writable, uid))
            }
            Question::Query { id } => Answer::Query {
                alive: self.is_alive(id),
            },
            // They are no requests.
            Question::Noted { .. } | Question::Withdraw(_) => return Outcome::Answered,
        };
        self.send_answer(i, &m.answer(said), None)
    }

    /// An attacher gets the address space, or is told that it cannot.
    fn greet(&mut self, i: usize, m: &Message, effort: &Effort) -> Outcome {
        let fds = [self.owner.file_for_peers(), self.owner.program.pidfd()];
        let taken = m.answer(Answer::Hello(Ok(())));
        let full = m.answer(Answer::Hello(Err(Denial::Full)));
        let outcome = match self.send_answer(i, &taken, Some(fds)) {
            Outcome::Later(_) if effort.tries < GREETINGS => Outcome::Later(1),
            Outcome::Later(_) => self.send_answer(i, &full, None),
            outcome => outcome,
        };
        self.peers.connection_mut(i).greeting = !matches!(outcome, Outcome::Answered);
        outcome
    }

    fn send_answer(&mut self, i: usize, answer: &Message, fds: Option<[Fd; 2]>) -> Outcome {
        match self.peers.try_post(i, answer, fds) {
            Err(Errno::EAGAIN) => Outcome::Unsent,
            // As many descriptors are under way to others as may be.
            Err(Errno::ETOOMANYREFS) => Outcome::Later(0),
            // Or it is gone, which is about to be noticed.
            _ => Outcome::Answered,
        }
    }

    /// An attacher needs pages.
    fn try_share(
        &mut self,
        shared: &Shared,
        i: usize,
        (m, wish): (&Message, &Wish),
        effort: &mut Effort,
    ) -> Outcome {
        let mut file = None;
        let pages = match self.share(shared, i, wish) {
            Ok(Shareable::Here(span)) => {
                count(&COUNTERS.faults_served);
                let about = self.about(span);
                Pages::Here { span, about }
            }
            Ok(Shareable::Elsewhere(loan)) => {
                count(&COUNTERS.faults_served);
                let told = loan.told();
                file = loan.file;
                Pages::Elsewhere(told)
            }
            Ok(Shareable::Layout { span, page }) => Pages::Layout { span, page },
            Err(Refusal::Gone) => Pages::Gone,
            Err(why @ (Refusal::Later | Refusal::Relatives)) if effort.tries < TRIES => {
                // A relative mostly ends or execs at once; to look for it takes long.
                return Outcome::Later(if why == Refusal::Later { 1 } else { 10 });
            }
            Err(Refusal::Hole) => Pages::Hole,
            Err(why) if why.passes() && self.waits(shared, wish, effort) => return Outcome::Wait,
            Err(why) => self.refuse(wish, why),
        };
        let answer = m.answer(Answer::Share(pages));
        let pidfd = self.owner.program.pidfd();
        let fds = file.as_ref().map(|file| [file.fd(), pidfd]);
        let outcome = self.send_answer(i, &answer, fds);
        if matches!(outcome, Outcome::Answered) {
            self.peers.answered(i);
        }
        self.owner.empty_trash();
        outcome
    }

    /// What an attacher has to know of pages in the memfd.
    fn about(&self, span: Span) -> About {
        if self.owner.any_read_only(span) {
            About::ReadOnly
        } else if self.owner.all_huge(span) {
            About::Huge
        } else {
            About::Ordinary
        }
    }

    /// What an attacher is told where pages cannot be shared.
    fn refuse(&self, wish: &Wish, why: Refusal) -> Pages {
        count(&COUNTERS.refusals);
        self.tell_refusal(wish, why);
        if wish.extent == Extent::Whole && why.fails_an_attach() {
            Pages::Refused
        } else {
            Pages::Hole
        }
    }

    /// Whether what is in the way of a request is waited for any longer.
    fn waits(&self, shared: &Shared, wish: &Wish, effort: &mut Effort) -> bool {
        let limit = shared.wait.load(Ordering::Relaxed);
        let limit = if wish.extent == Extent::Whole {
            limit.min(ATTACH_WAIT)
        } else {
            limit
        };
        limit > 0 && !effort.patience.is_over(limit)
    }

    fn tell_refusal(&self, wish: &Wish, why: Refusal) {
        let lo = page_down(wish.addr);
        let hi = if wish.extent == Extent::Whole {
            wish.span.end()
        } else {
            lo + PAGE
        };
        let remedy = why.remedy();
        debug_log!(
            "{lo:#x}-{hi:#x} cannot be shared: {}; {remedy}",
            why.reason()
        );
    }

    /// Makes pages sharable; answers which.
    fn share(&mut self, shared: &Shared, i: usize, wish: &Wish) -> Result<Shareable, Refusal> {
        let segment = self
            .owner
            .segments
            .range_of(wish.segid)
            .ok_or(Refusal::Gone)?;
        let lo = page_down(wish.span.start()).max(segment.start()).min(TOP);
        let hi = page_down(wish.span.end().min(TOP)).min(segment.end());
        let within = Span::new(lo, hi);
        let addr = page_down(wish.addr);
        if !within.contains(addr) {
            return Err(Refusal::Hole);
        }
        if wish.extent == Extent::Layout {
            let (span, page) = self.owner.whole_pages(within);
            return Ok(Shareable::Layout { span, page });
        }
        if self.owner.program.forks.are_under_way() || self.recalling {
            return Err(Refusal::Later);
        }
        let is_attachment = |identity| self.peers.show(identity);
        let loan = self.owner.lend(shared, i, addr, within, &is_attachment)?;
        if let Some(loan) = loan {
            return Ok(Shareable::Elsewhere(loan));
        }
        self.owner.set_quiet(self.peers.is_quiet());
        self.owner.look_at_nodes();
        if wish.extent == Extent::Whole {
            // No attacher asks for more at a time.
            let part = Span::of(addr, EAGER).cut_to(within);
            let mut peers_lag = || self.peers.await_acknowledgements();
            let done = self.owner.share_whole(shared, part, &mut peers_lag)?;
            return Ok(Shareable::Here(done));
        }
        let streams = &mut self.peers.connection_mut(i).streams;
        let block = streams.block_at(addr, within.len());
        let mut peers_lag = || self.peers.await_acknowledgements();
        let mut share = |block| {
            self.owner
                .share_chunk(shared, addr, within, block, &mut peers_lag)
        };
        let done = match share(block) {
            // One pinned page need not keep its neighbours back, nor one that lies
            // beyond the end of its file.
            Err(Refusal::Pinned | Refusal::Os(Errno::EFAULT)) => share(PAGE)?,
            done => done?,
        };
        let c = self.peers.connection_mut(i);
        c.streams.answered(addr, done, block);
        Ok(Shareable::Here(done))
    }

    /// A device is about to pin `span`: promotes what of it a peer may attach, or
    /// a first part of that. Answers up to where nothing more can be done, or what is in
    /// the way there and may pass: another pin (`EBUSY`), a tracer (`EPERM`), another process
    /// that has it, too (`ECHILD`), or anything
    /// that is looked at again at once (`EAGAIN`).
    pub fn before_pin(&mut self, shared: &Shared, span: Span) -> Sys<u64> {
        let Some(part) = self.owner.segments.first_in(span) else {
            return Ok(span.end() as u64);
        };
        let at = part.start();
        if self.owner.program.forks.are_under_way() || self.recalling {
            return Err(Errno::EAGAIN);
        }
        self.owner.set_quiet(self.peers.is_quiet());
        let mut peers_lag = || self.peers.await_acknowledgements();
        let next = match (self.owner).share_chunk(shared, at, part, CHUNK_MAX, &mut peers_lag) {
            Ok(done) => done.end(),
            Err(Refusal::Later) => return Err(Errno::EAGAIN),
            Err(Refusal::Pinned) => return Err(Errno::EBUSY),
            Err(Refusal::Traced) => return Err(Errno::EPERM),
            Err(Refusal::Relatives) => return Err(Errno::ECHILD),
            Err(_) => match self.owner.program.space.find(at)? {
                Some(m) if m.start > at => m.start,
                Some(m) => {
                    self.owner.keep(Span::of(at, PAGE));
                    m.end
                }
                None => span.end(),
            },
        };
        Ok(next.max(at + PAGE) as u64)
    }
}
