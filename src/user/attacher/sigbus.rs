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

use super::Attacher;
use crate::user::program::threads::Standing;
use crate::user::program::Program;
use crate::user::sys::{held, task, Span, PAGE};

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

    /// A stop for a SIGBUS has failed; whether it is to be tried again.
    pub fn tries_again(&mut self) -> bool {
        let again = self.busy < BUSY;
        self.busy += u32::from(again);
        again
    }

    /// A stop for a SIGBUS was successful, or is not tried again.
    pub fn stopped(&mut self) {
        self.busy = 0;
    }

    /// Whether there is room again for those who found none; once.
    fn takes_in(&mut self) -> bool {
        let room = self.len < crate::testing::places(FAULTING);
        room && core::mem::take(&mut self.crowded)
    }

    /// Forgets the threads that wait for pages of `span`.
    pub fn forget(&mut self, span: Span) {
        let mut kept = 0;
        for i in 0..self.len {
            let f = self.threads[i];
            if !span.contains(f.page) {
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
    pub fn last_asker(&self, page: usize, question: u64) -> Option<i32> {
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

    pub fn has_room(&self) -> bool {
        self.len < self.pages.len()
    }

    pub fn push(&mut self, page: usize) {
        self.pages[self.len] = (page, task::now());
        self.len += 1;
    }
}

/// Time for an untraced thread to take its SIGBUS before its page is made
/// touchable again. If it was too short the thread faults again.
const SIGBUS_NS: u64 = 500_000;

impl Attacher {
    /// Has those who found no room touch their pages again, where there is some. Not
    /// before: while they did nothing else there would always be another fault to
    /// look at, and never an answer.
    pub fn take_in(&mut self, program: &Program) {
        if !self.faulting.takes_in() {
            return;
        }
        let mut at = 0;
        while let Some(piece) = program.attachments.next_from(at) {
            at = piece.end;
            program.touches().wake(piece.span());
        }
    }

    /// Has thread `tid` take its SIGBUS, while all others stand. Others that wait for
    /// the page fault again.
    pub fn deliver(&self, standing: &Standing, program: &mut Program, page: usize, tid: i32) {
        // One that is about to take another signal takes that, and faults again.
        if !program.threads.has_no_signal(tid) {
            return;
        }
        // A page that may not be written to is there; one that was there
        // leaves its write protection behind. Neither can be poisoned.
        self.make_touchable(program, page);
        let _ = program.touches().unprotect(Span::of(page, PAGE));
        if program.touches().poison(Span::of(page, PAGE)).is_ok() {
            let came = program.threads.run_to_signal(standing, tid);
            self.make_touchable(program, page);
            program.threads.note_run(tid, came);
        }
    }

    /// Removes the poison of a page, if it is still of an attachment.
    fn make_touchable(&self, program: &Program, page: usize) {
        if let Some(p) = program.attachments.at(page) {
            let identity = self.permits.get(p.permit).identity;
            let still = program.space.at(page).ok().flatten();
            if still.is_some_and(|m| m.shared && (m.device, m.inode) == identity) {
                let _ = held::advise(page, PAGE, libc::MADV_DONTNEED);
            }
        }
    }

    /// Whether pages that have been poisoned are to be made touchable again.
    pub fn has_poison_to_clear(&self) -> bool {
        let now = task::now();
        let due = |page: &(usize, u64)| now.saturating_sub(page.1) > SIGBUS_NS;
        self.poisoned.pages[..self.poisoned.len].iter().any(due)
    }

    /// Makes them touchable, while all threads stand, if that can be.
    pub fn clear_poison(&mut self, program: &Program) {
        for (page, _) in &self.poisoned.pages[..self.poisoned.len] {
            self.make_touchable(program, *page);
        }
        self.poisoned.len = 0;
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
        t.forget(Span::of(PAGE, PAGE));
        assert_eq!((t.last_asker(PAGE, first), t.len), (None, 2));
    }
}
