// SPDX-License-Identifier: MIT OR Apache-2.0
//! The places through which commands go to the service, one a call.
//!
//! A signal's handler may jump out of a call, and a thread may be ended in one: then
//! nobody fetches the answer, and the place is not given back. Where no place is left,
//! such a one is taken. A word counts who has had a place beside saying how far its
//! command is, so that a thread that comes for its answer after all finds that the place
//! is another's.

#![forbid(unsafe_code)]

use super::command::{self, Command};
use crate::errno::Errno;
use crate::user::sys::{task, Sys};
use core::ffi::c_int;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

/// How far a command is: the lowest bits of the word. Above them is the ticket of the
/// one whose place it is.
const STATE: u32 = 7;
const TICKET: u32 = STATE + 1;

const FREE: u32 = 0;
const FILLING: u32 = 1;
const READY: u32 = 2;
const BUSY: u32 = 3;
const DONE: u32 = 4;

/// After so many nanoseconds nobody will fetch an answer whose thread has ended, or asks
/// for another place.
const OWN_ANSWER: u64 = 1_000_000_000;
/// The same, of a thread of which neither is known.
const ANY_ANSWER: u64 = 60 * OWN_ANSWER;

/// One command on its way. All zero is a free place.
pub struct Slot {
    word: AtomicU32,
    /// The thread whose command it is.
    tid: AtomicU32,
    /// When it was answered.
    answered: AtomicU64,
    command: [AtomicU64; command::WORDS],
    /// A value, or a negated errno.
    answer: AtomicI64,
}

/// A place that the calling thread has.
pub struct Claim<'a> {
    slot: &'a Slot,
    ticket: u32,
}

/// How far the command is.
pub enum Progress {
    /// The service has not begun with it. The word is to be [waited](Claim::wait) on.
    Ready(u32),
    /// It has.
    Busy(u32),
    /// The place is free again.
    Answered(Sys<u64>),
    /// The place was given to another, since the answer was not fetched.
    Lost,
}

impl Slot {
    fn change(&self, next: impl FnMut(u32) -> Option<u32>) -> Option<u32> {
        let (done, seen) = (Ordering::AcqRel, Ordering::Acquire);
        self.word.fetch_update(done, seen, next).ok()
    }

    /// Takes the place as it was seen: nobody else has had it since.
    fn claim_seen(&self, word: u32) -> Option<Claim<'_>> {
        let ticket = (word & !STATE).wrapping_add(TICKET);
        let (done, not) = (Ordering::AcqRel, Ordering::Relaxed);
        let taken = self
            .word
            .compare_exchange(word, ticket | FILLING, done, not);
        taken.ok()?;
        self.tid.store(task::gettid() as u32, Ordering::Relaxed);
        Some(Claim { slot: self, ticket })
    }

    /// A free place.
    pub fn claim(&self) -> Option<Claim<'_>> {
        let word = self.word.load(Ordering::Relaxed);
        if word & STATE != FREE {
            return None;
        }
        self.claim_seen(word)
    }

    /// A place whose answer is fetched by nobody.
    pub fn claim_abandoned(&self) -> Option<Claim<'_>> {
        let word = self.word.load(Ordering::Acquire);
        if word & STATE != DONE {
            return None;
        }
        let tid = self.tid.load(Ordering::Relaxed) as i32;
        let since = task::now().saturating_sub(self.answered.load(Ordering::Relaxed));
        let is_gone = || task::signal_task(crate::rawsys::getpid(), tid, 0) == Err(Errno::ESRCH);
        let abandoned =
            since > ANY_ANSWER || since > OWN_ANSWER && (tid == task::gettid() || is_gone());
        if abandoned {
            self.claim_seen(word)
        } else {
            None
        }
    }

    /// Takes a command that nobody has taken yet. For the service task.
    pub fn take(&self) -> Option<Option<Command>> {
        // Who has handed it over may just be giving it up.
        self.change(|word| (word & STATE == READY).then_some(word & !STATE | BUSY))?;
        let words = core::array::from_fn(|k| self.command[k].load(Ordering::Relaxed));
        Some(Command::from_words(words))
    }

    /// The command is to be taken once more. For the service task.
    pub fn put_back(&self) {
        self.change(|word| (word & STATE == BUSY).then_some(word & !STATE | READY));
    }

    /// Answers the command. For the service task.
    pub fn finish(&self, answer: Sys<u64>) {
        let answer = match answer {
            Ok(value) => value as i64,
            Err(errno) => errno.negated() as i64,
        };
        self.answer.store(answer, Ordering::Relaxed);
        self.answered.store(task::now(), Ordering::Relaxed);
        self.change(|word| (word & STATE == BUSY).then_some(word & !STATE | DONE));
        self.wake();
    }

    /// Has who waits look again.
    pub fn wake(&self) {
        task::futex_wake(&self.word);
    }
}

impl Claim<'_> {
    /// Hands a command over.
    pub fn fill(&self, command: Command) {
        for (to, from) in self.slot.command.iter().zip(command.words()) {
            to.store(from, Ordering::Relaxed);
        }
        self.slot.word.store(self.ticket | READY, Ordering::Release);
    }

    /// Looks how far it is, and fetches the answer if there is one.
    pub fn progress(&self) -> Progress {
        let word = self.slot.word.load(Ordering::Acquire);
        match word & STATE {
            _ if word & !STATE != self.ticket => Progress::Lost,
            READY => Progress::Ready(word),
            DONE => {
                let answer = self.slot.answer.load(Ordering::Relaxed);
                if self.free_from(DONE) {
                    let value = u64::try_from(answer);
                    Progress::Answered(value.map_err(|_| Errno::new(-answer as c_int)))
                } else {
                    Progress::Lost
                }
            }
            _ => Progress::Busy(word),
        }
    }

    fn free_from(&self, state: u32) -> bool {
        let (from, to) = (self.ticket | state, self.ticket | FREE);
        let (done, not) = (Ordering::AcqRel, Ordering::Relaxed);
        self.slot.word.compare_exchange(from, to, done, not).is_ok()
    }

    /// Waits until the word may be another than `word`, for so many milliseconds.
    pub fn wait(&self, word: u32, milliseconds: u64) {
        task::futex_wait(&self.slot.word, word, milliseconds);
    }

    /// Gives the command up, if the service has not begun with it. Answers whether it is
    /// given up.
    pub fn give_up(&self) -> bool {
        self.free_from(READY)
    }

    /// The service is gone: nobody else has the place.
    pub fn leave(self) {
        let mine = |word: u32| (word & !STATE == self.ticket).then_some(self.ticket | FREE);
        self.slot.change(mine);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> Slot {
        Slot {
            word: AtomicU32::new(0),
            tid: AtomicU32::new(0),
            answered: AtomicU64::new(0),
            command: [const { AtomicU64::new(0) }; command::WORDS],
            answer: AtomicI64::new(0),
        }
    }

    fn answered(slot: &Slot, value: u64) -> Claim<'_> {
        let claim = slot.claim().expect("free");
        assert!(slot.claim().is_none());
        claim.fill(Command::ForkEnd {});
        assert!(matches!(claim.progress(), Progress::Ready(_)));
        assert!(matches!(slot.take(), Some(Some(Command::ForkEnd {}))));
        assert!(matches!(claim.progress(), Progress::Busy(_)) && !claim.give_up());
        slot.finish(Ok(value));
        claim
    }

    #[test]
    fn an_answer_is_fetched_once() {
        let slot = new();
        for value in [7, 8] {
            let claim = answered(&slot, value);
            assert!(slot.claim().is_none() && slot.claim_abandoned().is_none());
            assert!(matches!(claim.progress(), Progress::Answered(Ok(v)) if v == value));
        }
        let claim = slot.claim().expect("free");
        claim.fill(Command::ForkEnd {});
        assert!(claim.give_up() && slot.take().is_none());
    }

    #[test]
    fn a_place_is_taken_as_it_was_seen() {
        let slot = new();
        let claim = answered(&slot, 7);
        let seen = slot.word.load(Ordering::Relaxed);
        assert!(matches!(claim.progress(), Progress::Answered(Ok(7))));
        // The next one's answer stands where the old one was seen.
        let next = answered(&slot, 8);
        assert!(slot.claim_seen(seen).is_none());
        assert!(matches!(next.progress(), Progress::Answered(Ok(8))));
    }

    #[test]
    fn a_place_that_nobody_comes_back_to_is_anothers() {
        let slot = new();
        let lost = answered(&slot, 7);
        let past = task::now() - 2 * OWN_ANSWER;
        slot.answered.store(past, Ordering::Relaxed);
        let next = slot.claim_abandoned().expect("abandoned");
        assert!(matches!(lost.progress(), Progress::Lost));
        next.fill(Command::ForkEnd {});
        assert!(matches!(lost.progress(), Progress::Lost) && !lost.give_up());
        assert!(slot.take().is_some());
        slot.finish(Err(Errno::ENOENT));
        assert!(matches!(lost.progress(), Progress::Lost));
        lost.leave();
        assert!(matches!(
            next.progress(),
            Progress::Answered(Err(Errno::ENOENT))
        ));
        // Another thread's is waited for longer.
        let _other = answered(&slot, 9);
        slot.answered.store(past, Ordering::Relaxed);
        slot.tid
            .store(crate::rawsys::getpid() as u32, Ordering::Relaxed);
        let is_main = task::gettid() == crate::rawsys::getpid();
        assert!(is_main || slot.claim_abandoned().is_none());
    }
}
