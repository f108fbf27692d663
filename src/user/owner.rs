// SPDX-License-Identifier: MIT OR Apache-2.0
//! The owner's side: segments, who may attach them, and requests for pages.

use super::ids::{Id, Kind, SLOTS as IDS};
use super::lend::Loan;
use super::peers::{Side, CONNECTIONS};
use super::promote::Refusal;
use super::service::Service;
use super::shared::Shared;
use super::sys::{mem, page_down, Sys, PAGE, TOP};
use super::wire::{Message, Status, Verb, READ_ONLY, WHOLE};
use crate::debug::{count, COUNTERS};
use crate::debug_log;

/// One segment of this process. All zero is a free one.
#[derive(Clone, Copy)]
pub struct Segment {
    pub used: bool,
    pub generation: u32,
    pub start: usize,
    pub end: usize,
    pub mode: u32,
}

/// Smallest and largest chunk that one lazy request shares. Requests that go
/// on where the last one ended take four times as much.
const CHUNK_MIN: usize = 64 * 1024;
/// The larger it is the longer the owner stands still (benches/README.md).
pub const CHUNK_MAX: usize = 4 * 1024 * 1024;

/// A request that could not be served yet, since the threads could not be
/// stopped or one of them is changing the range.
#[derive(Clone, Copy)]
struct Request {
    connection: usize,
    message: Message,
    tries: u32,
}

const REQUESTS: usize = 512;
/// Tries before the answer is that there is nothing: a millisecond apart, or
/// longer where a thread cannot be stopped, which can be a quarter of an hour in all.
const TRIES: u32 = 5000;

/// The requests that wait.
pub struct Deferred {
    len: usize,
    requests: [Request; REQUESTS],
}

impl Deferred {
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn push(&mut self, request: Request) -> bool {
        let room = self.len < REQUESTS;
        if room {
            self.requests[self.len] = request;
            self.len += 1;
        }
        room
    }

    /// The request that has waited longest.
    fn pop(&mut self) -> Option<Request> {
        let first = *self.requests[..self.len].first()?;
        self.requests.copy_within(1..self.len, 0);
        self.len -= 1;
        Some(first)
    }

    /// A peer is gone: so are its requests.
    pub fn forget(&mut self, connection: usize) {
        let mut kept = 0;
        for i in 0..self.len {
            if self.requests[i].connection != connection {
                self.requests[kept] = self.requests[i];
                kept += 1;
            }
        }
        self.len = kept;
    }
}

/// Where an attacher finds the pages it asked for.
enum Shareable {
    /// In the memfd.
    Here(usize, usize),
    /// In a file that the owner has mapped shared.
    Elsewhere(Loan),
}

impl Service {
    /// Exports `[start, start + size)`; the arguments have been checked.
    pub fn make(&mut self, start: usize, size: usize, mode: u32) -> Sys<u64> {
        let slot = (0..IDS)
            .map(|k| (self.next_segment + k) % IDS)
            .find(|&i| !self.segments[i].used)
            .ok_or(libc::ENOMEM)?;
        self.next_segment = slot + 1;
        let s = &mut self.segments[slot];
        s.used = true;
        s.generation = Id::next_generation(s.generation);
        (s.start, s.end, s.mode) = (start, start.saturating_add(size).min(TOP), mode);
        let (token, generation) = (self.token, s.generation);
        Ok(Id {
            token,
            kind: Kind::Segment,
            slot,
            generation,
        }
        .encode() as u64)
    }

    /// The slot of a live segment of this process.
    fn segment(&self, id: i64) -> Option<usize> {
        let id = self.own_id(id).filter(|id| id.kind == Kind::Segment)?;
        let s = &self.segments[id.slot];
        (s.used && s.generation == id.generation).then_some(id.slot)
    }

    /// Whether an id that this process issued is alive.
    pub fn is_alive(&self, id: i64) -> bool {
        self.segment(id).is_some() || self.permit(id).is_some()
    }

    /// Withdraws a segment. Its pages go back to private memory where somebody
    /// may have them mapped, so that every attachment of it is cut off before
    /// this is answered; other segments share them anew when they are touched.
    pub fn remove(&mut self, shared: &Shared, slot: usize, id: i64) -> Option<Sys<u64>> {
        let Some(s) = self.segment(id) else {
            return if self.own_id(id).is_some() {
                Some(Err(libc::ENOENT))
            } else {
                self.ask_issuer(shared, slot, id, Kind::Segment)
            };
        };
        let (start, end) = (self.segments[s].start, self.segments[s].end);
        self.segments[s].used = false;
        let mut watched = false;
        for i in 0..CONNECTIONS {
            if self.connections[i].side == Side::Owner {
                let mut m = Message::new(Verb::Removed);
                m.id = id;
                watched |= self.post(i, &m, None);
            }
        }
        if watched {
            for _ in 0..100 {
                if self.demote_stopped(start, end).is_ok() {
                    break;
                }
            }
        }
        Some(Ok(0))
    }

    /// May this attacher?
    pub fn on_get(&mut self, i: usize, m: &Message) {
        let mut answer = m.answer(Status::Gone);
        if let Some(s) = self.segment(m.id) {
            let s = self.segments[s];
            let wanted = if m.addr as i32 == crate::uapi::RDWR {
                0o600
            } else {
                0o400
            };
            // Root passes, as CAP_IPC_OWNER does with the module.
            answer.status = if s.mode & wanted == wanted || self.uid == 0 {
                Status::Done
            } else {
                Status::Denied
            };
            (answer.lo, answer.hi) = (s.start as u64, s.end as u64);
        }
        self.post(i, &answer, None);
    }

    /// An attacher needs pages.
    pub fn on_share(&mut self, shared: &Shared, i: usize, m: &Message) {
        self.try_share(
            shared,
            Request {
                connection: i,
                message: *m,
                tries: 0,
            },
        );
    }

    /// Serves what was put off.
    pub fn retry_deferred(&mut self, shared: &Shared) {
        if self.pause.left() > 0 {
            return;
        }
        // Each once: while one is tried peers may be heard, and more put off.
        for _ in 0..self.deferred.len {
            let Some(request) = self.deferred.pop() else {
                break;
            };
            if self.connections[request.connection].side == Side::Owner {
                self.try_share(shared, request);
            }
        }
    }

    fn try_share(&mut self, shared: &Shared, mut request: Request) {
        let m = request.message;
        let mut file = None;
        let answer = match self.share(shared, request.connection, &m) {
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
            Err(why @ (Refusal::Later | Refusal::Relatives)) if request.tries < TRIES => {
                // A relative mostly ends or execs at once; to look for it takes long.
                request.tries += if why == Refusal::Later { 1 } else { 10 };
                if self.deferred.push(request) {
                    return;
                }
                m.answer(Status::Hole)
            }
            Err(why) => {
                if why != Refusal::Hole {
                    debug_log!("{:#x} cannot be shared: {why:?}", m.addr);
                    count(&COUNTERS.refusals);
                }
                m.answer(Status::Hole)
            }
        };
        if self.post(request.connection, &answer, file.map(|fd| [fd, self.pidfd])) {
            self.connections[request.connection].unnoted += 1;
        }
        self.empty_trash();
        if let Some(fd) = file {
            crate::rawsys::close(fd);
        }
    }

    /// Whether every answer so far has been acted upon. Else an old one could
    /// make an attacher map pages that are being filled.
    fn all_noted(&self) -> bool {
        self.connections
            .iter()
            .all(|c| c.side != Side::Owner || c.unnoted == 0)
    }

    /// Whether a promotion may fill pages while the program runs.
    pub fn may_precopy(&self) -> bool {
        self.abilities.precopy && self.all_noted()
    }

    /// Whether the program may read and not write some of `[lo, hi)`. What
    /// changes that makes the memory private again first, so that an answer
    /// that is given now holds until its pages are revoked.
    fn any_read_only(&self, lo: usize, hi: usize) -> bool {
        let mut at = lo;
        while at < hi {
            match self.space.find(at) {
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
        if self.forks_under_way > 0 || self.recalling {
            return Err(Refusal::Later);
        }
        if let Some(loan) = self.lend(shared, addr, lo, hi)? {
            return Ok(Shareable::Elsewhere(loan));
        }
        if m.flags & WHOLE != 0 {
            let (lo, hi) = self.share_whole(shared, lo, hi)?;
            return Ok(Shareable::Here(lo, hi));
        }
        let c = &mut self.connections[i];
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
        self.connections[i].next_expected = done.1;
        Ok(Shareable::Here(done.0, done.1))
    }

    /// Shares everything in `[lo, hi)` that can be; what cannot is met when it
    /// is touched.
    fn share_whole(
        &mut self,
        shared: &Shared,
        lo: usize,
        hi: usize,
    ) -> Result<(usize, usize), Refusal> {
        let mut at = lo;
        while at < hi {
            match self.space.find(at) {
                Ok(Some(mapping)) if mapping.start < hi => {
                    at = at.max(mapping.start);
                    match self.share_chunk(shared, at, lo, hi, CHUNK_MAX) {
                        Ok((from, end)) => {
                            // Pages that the owner never touched are wanted too.
                            if let Err(errno) = mem::populate(from, end - from) {
                                return Err(Refusal::of_changed(errno));
                            }
                            at = end.max(at + PAGE);
                        }
                        Err(Refusal::Later) => return Err(Refusal::Later),
                        // One pinned page need not keep its neighbours back.
                        Err(Refusal::Pinned) => match self.share_chunk(shared, at, lo, hi, PAGE) {
                            Err(Refusal::Later) => return Err(Refusal::Later),
                            _ => at += PAGE,
                        },
                        Err(_) => at = mapping.end,
                    }
                }
                _ => break,
            }
        }
        Ok((lo, hi))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cookie: u64) -> Request {
        let mut message = Message::new(Verb::Share);
        message.cookie = cookie;
        Request {
            connection: 0,
            message,
            tries: 0,
        }
    }

    #[test]
    fn requests_that_come_during_a_retry_push_none_out() {
        let mut deferred = Deferred {
            len: 0,
            requests: [request(0); REQUESTS],
        };
        for cookie in 1..=3 {
            assert!(deferred.push(request(cookie)));
        }
        // The first is tried again; meanwhile another arrives, and it is put back.
        let first = deferred.pop().expect("there are three");
        assert!(deferred.push(request(4)) && deferred.push(first));
        let rest = core::iter::from_fn(|| deferred.pop()).map(|r| r.message.cookie);
        assert!(rest.eq([2, 3, 4, 1]));
        assert!(deferred.is_empty());
    }
}
