// SPDX-License-Identifier: MIT OR Apache-2.0
//! The answer to a touch of what is not there: SIGBUS, and nothing after it.
//!
//! The kernel's means is to poison the page: whoever touches it gets SIGBUS.
//! But the owner may map memory there a moment later, and who learns of that
//! has to reach it. So nobody may run while the page is poisoned but the thread
//! that waits for it: all threads are stopped, that one alone goes on until it
//! stops for the signal, the page is made touchable again, and all go on.
//!
//! And the answer must be newer than the touch. A thread that touches a page for
//! which another already waits has asked again, and the first answer says nothing
//! about its touch: it is not used at all, and both wait for the second.
//!
//! Threads that cannot be stopped (a debugger has one, or one is in a system call
//! that waits for a page) take the signal by themselves, and the page is made
//! touchable a little later.

#![forbid(unsafe_code)]

use crate::debug_log;
use crate::user::program::stop::Unstoppable;
use crate::user::service::state::Service;
use crate::user::sys::trace::{self, Waited};
use crate::user::sys::{mem, task, uffd, PAGE};

/// A thread that waits for a page.
#[derive(Clone, Copy)]
pub struct Faulting {
    pub page: usize,
    pub tid: i32,
    /// The page is there, write-protected, and the thread wants to write.
    pub protected: bool,
    /// Serial number of the question that was asked for it, the connection on
    /// which it was, and the attachment that the page was of.
    pub question: u64,
    pub connection: usize,
    pub attachment: u64,
    /// It is still to be sent.
    pub unsent: bool,
}

/// Most threads whose faults are told apart at a time. One that finds no room
/// sleeps, and faults again when there is.
const FAULTING: usize = 4096;

/// After so many stops in a row that came to nothing, a thread takes its SIGBUS
/// untraced.
const BUSY: u32 = 50;

/// The threads whose pages have been asked for.
pub struct FaultingThreads {
    len: usize,
    /// Somebody has found no room.
    crowded: bool,
    /// How often in a row the threads could not be stopped for a SIGBUS.
    busy: u32,
    threads: [Faulting; FAULTING],
}

#[cfg(any(test, feature = "fuzzing"))]
impl Faulting {
    const NEW: Self = Self {
        page: 0,
        tid: 0,
        protected: false,
        question: 0,
        connection: 0,
        attachment: 0,
        unsent: false,
    };
}

impl FaultingThreads {
    /// For tests: a service finds zeros.
    #[cfg(any(test, feature = "fuzzing"))]
    pub const NEW: Self = Self {
        len: 0,
        crowded: false,
        busy: 0,
        threads: [Faulting::NEW; FAULTING],
    };

    /// Takes note of a fault; whether there was room. A thread waits for one page
    /// at a time: what it waited for before is over.
    pub fn ask(&mut self, fault: Faulting) -> bool {
        let len = self.len;
        let at = self.threads[..len].iter().position(|f| f.tid == fault.tid);
        let room = len < crate::testing::places(FAULTING);
        let Some(at) = at.or(room.then_some(len)) else {
            self.crowded = true;
            return false;
        };
        self.threads[at] = fault;
        self.len = len.max(at + 1);
        true
    }

    /// Whether there is room again for those who found none; once.
    fn takes_in(&mut self) -> bool {
        let room = self.len < crate::testing::places(FAULTING);
        room && core::mem::take(&mut self.crowded)
    }

    /// Forgets the threads that wait for pages of `[lo, hi)`.
    pub fn forget(&mut self, lo: usize, hi: usize) {
        let mut kept = 0;
        for i in 0..self.len {
            let f = self.threads[i];
            if f.page < lo || f.page >= hi {
                self.threads[kept] = f;
                kept += 1;
            }
        }
        self.len = kept;
    }

    /// The last question for a page.
    pub fn last(&self, page: usize) -> Option<&Faulting> {
        self.threads[..self.len]
            .iter()
            .filter(|f| f.page == page)
            .max_by_key(|f| f.question)
    }

    /// A question that is still to be sent on a connection.
    pub fn next_unsent(&self, connection: usize) -> Option<Faulting> {
        let waits = |f: &&Faulting| f.unsent && f.connection == connection;
        self.threads[..self.len].iter().find(waits).copied()
    }

    /// A question has been sent.
    pub fn is_sent(&mut self, question: u64) {
        for f in &mut self.threads[..self.len] {
            f.unsent &= f.question != question;
        }
    }

    /// A page for which somebody waits who has asked on a connection.
    pub fn page_asked_on(&self, connection: usize) -> Option<usize> {
        let asked = |f: &&Faulting| f.connection == connection;
        self.threads[..self.len].iter().find(asked).map(|f| f.page)
    }

    /// Whether the last that asked for a page has it and wants to write to it.
    /// Then an older answer that does not allow it is not used either.
    pub fn is_refused_write(&self, page: usize) -> bool {
        self.last(page).is_some_and(|f| f.protected)
    }

    /// The thread that asked last for a page, if this was its question.
    fn last_asker(&self, page: usize, question: u64) -> Option<i32> {
        self.last(page)
            .filter(|f| f.question == question)
            .map(|f| f.tid)
    }
}

/// Pages that were poisoned for threads that are not traced.
pub struct Poisoned {
    len: usize,
    pages: [(usize, u64); 256],
}

impl Poisoned {
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn has_room(&self) -> bool {
        self.len < self.pages.len()
    }

    fn push(&mut self, page: usize) {
        self.pages[self.len] = (page, task::now());
        self.len += 1;
    }
}

/// Time for an untraced thread to take its SIGBUS before its page is made
/// touchable again. If it was too short the thread faults again.
const SIGBUS_NS: u64 = 500_000;

/// After this time a thread that was woken and has not come to its signal is
/// asked to stop wherever it is; after the second it is left to come later.
const SOON: u64 = 50_000_000;
const LATE: u64 = 500_000_000;

impl Service {
    /// Has those who found no room touch their pages again, where there is some. Not
    /// before: while they did nothing else there would always be another fault to
    /// look at, and never an answer.
    pub fn take_in(&mut self) {
        if !self.faulting.takes_in() {
            return;
        }
        let mut at = 0;
        while let Some(piece) = self.owner.program.attachments.next_from(at) {
            at = piece.end;
            let _ = uffd::wake(
                self.owner.program.faults,
                piece.start,
                piece.end - piece.start,
            );
        }
    }

    /// There is nothing at `page`, says the answer to `question`: whoever waits
    /// for it gets SIGBUS.
    pub fn answer_sigbus(&mut self, page: usize, question: u64) {
        let Some(tid) = self.faulting.last_asker(page, question) else {
            return;
        };
        self.faulting.forget(page, page + PAGE);
        if self.can_poison {
            match self.deliver(page, tid) {
                Ok(()) => {
                    self.faulting.busy = 0;
                    return;
                }
                // The thread faults again, and asks again. But one that is in a
                // system call can not be stopped before it has its answer.
                Err(Unstoppable::Busy) if self.faulting.busy < BUSY => {
                    self.faulting.busy += 1;
                    let _ = uffd::wake(self.owner.program.faults, page, PAGE);
                    return;
                }
                Err(_) => self.faulting.busy = 0,
            }
        }
        let can = self.can_poison && self.poisoned.has_room();
        let poisoned = can.then(|| uffd::poison(self.owner.program.faults, page, PAGE));
        if let Some(Ok(())) = poisoned {
            self.poisoned.push(page);
        } else {
            if !self.can_poison || poisoned == Some(Err(libc::EEXIST)) {
                // Linux before 6.6 cannot poison; or what is there cannot be
                // taken away while the threads run. The signal comes without its
                // address.
                let _ = task::signal_task(self.owner.program.tgid, tid, libc::SIGBUS);
            }
            // The thread faults again, when there is room for its page.
            let _ = uffd::wake(self.owner.program.faults, page, PAGE);
        }
    }

    /// Has thread `tid` take its SIGBUS, if the threads can be stopped. Others
    /// that wait for the page fault again.
    fn deliver(&mut self, page: usize, tid: i32) -> Result<(), Unstoppable> {
        if tid == self.owner.program.fork_tid {
            return Err(Unstoppable::Forbidden);
        }
        self.owner.stop()?;
        let known = self.owner.program.traced[..self.owner.program.traced_count]
            .iter()
            .position(|t| t.tid == tid);
        // One that is about to take another signal takes that, and faults again.
        if let Some(i) = known.filter(|&i| self.owner.program.traced[i].signal == 0) {
            // A page that may not be written to is there; one that was there
            // leaves its write protection behind. Neither can be poisoned.
            self.make_touchable(page);
            let _ = uffd::write_unprotect(self.owner.program.faults, page, PAGE);
            if uffd::poison(self.owner.program.faults, page, PAGE).is_ok() {
                let came = match trace::go_on(tid, 0) {
                    Ok(()) => wait_for_stop(tid),
                    Err(_) => Waited::Gone,
                };
                self.make_touchable(page);
                match came {
                    Waited::Stopped { signal, .. } => self.owner.program.traced[i].signal = signal,
                    Waited::Syscall => {}
                    Waited::Gone => {
                        self.owner.program.traced_count -= 1;
                        self.owner.program.traced[i] =
                            self.owner.program.traced[self.owner.program.traced_count];
                    }
                    Waited::Nothing => {
                        debug_log!("thread {tid} does not come to its SIGBUS");
                        self.owner.program.traced[i].stopped = false;
                    }
                }
            }
        }
        self.owner.resume();
        Ok(())
    }

    /// Removes the poison of a page, if it is still of an attachment.
    fn make_touchable(&mut self, page: usize) {
        if let Some(p) = self.owner.program.attachments.at(page) {
            let identity = self.peers.connections[self.permits[p.permit].connection].identity;
            let still = self.owner.program.space.at(page).ok().flatten();
            if still.is_some_and(|m| m.shared && (m.device, m.inode) == identity) {
                let _ = mem::advise(page, PAGE, libc::MADV_DONTNEED);
            }
        }
    }

    /// Makes pages touchable again whose SIGBUS has been taken by threads that
    /// are not traced. All others stand meanwhile, so that nobody can have put
    /// other memory there between the look and the deed.
    pub fn clear_poison(&mut self) {
        if self.poisoned.is_empty() {
            return;
        }
        let now = task::now();
        let due = |page: &(usize, u64)| now.saturating_sub(page.1) > SIGBUS_NS;
        if !self.poisoned.pages[..self.poisoned.len].iter().any(due) {
            return;
        }
        let stopped = self.owner.stop().is_ok();
        self.on_faults();
        for i in 0..self.poisoned.len {
            self.make_touchable(self.poisoned.pages[i].0);
        }
        self.poisoned.len = 0;
        if stopped {
            self.owner.resume();
        }
    }
}

/// Waits for a woken thread to stop.
fn wait_for_stop(tid: i32) -> Waited {
    let began = task::now();
    let mut asked = false;
    loop {
        match trace::wait(tid) {
            Waited::Nothing => {}
            came => return came,
        }
        let waited = task::now() - began;
        if waited > LATE {
            return Waited::Nothing;
        }
        if waited > SOON && !asked {
            let _ = trace::interrupt(tid);
            asked = true;
        }
        task::await_child_stop(200);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_the_last_question_counts() {
        let nobody = Faulting::NEW;
        let mut t = FaultingThreads::NEW;
        let mut ask = |page, tid, question| {
            let fault = Faulting {
                page,
                tid,
                question,
                ..nobody
            };
            assert!(t.ask(fault));
            t.len
        };
        let (first, other, second, third) = (1, 2, 3, 4);
        ask(PAGE, 1, first);
        ask(2 * PAGE, 2, other);
        ask(PAGE, 3, second);
        assert_eq!(t.last_asker(PAGE, first), None);
        assert_eq!(t.last_asker(PAGE, second), Some(3));
        assert_eq!(t.last_asker(2 * PAGE, other), Some(2));
        // A thread that asks for another page waits for the first no more.
        assert!(t.ask(Faulting {
            page: 2 * PAGE,
            tid: 3,
            question: third,
            ..nobody
        }));
        assert_eq!(t.last_asker(PAGE, first), Some(1));
        assert_eq!(t.last_asker(2 * PAGE, third), Some(3));
        t.forget(PAGE, 2 * PAGE);
        assert_eq!((t.last_asker(PAGE, first), t.len), (None, 2));
    }
}
