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

use super::service::Service;
use super::stop::Unstoppable;
use super::sys::trace::{self, Waited};
use super::sys::{mem, page_down, task, uffd, PAGE};
use crate::debug_log;

/// A thread that waits for a page.
#[derive(Clone, Copy)]
struct Faulting {
    page: usize,
    tid: i32,
    /// The page is there, write-protected, and the thread wants to write.
    protected: bool,
    /// Number of the question that was asked for it.
    question: u64,
}

/// Most threads whose faults are told apart at a time. One that finds no room
/// faults again and again until there is.
const FAULTING: usize = 1024;

/// After so many stops in a row that came to nothing, a thread takes its SIGBUS
/// untraced.
const BUSY: u32 = 50;

/// The threads whose pages have been asked for.
pub struct FaultingThreads {
    len: usize,
    /// How often in a row the threads could not be stopped for a SIGBUS.
    busy: u32,
    questions: u64,
    threads: [Faulting; FAULTING],
}

impl FaultingThreads {
    /// Takes note of a fault; answers the cookie of the question to ask, `None`
    /// where there is no room. A thread waits for one page at a time: what it
    /// waited for before is over.
    pub fn ask(&mut self, page: usize, tid: i32, protected: bool) -> Option<u64> {
        let len = self.len;
        let at = self.threads[..len].iter().position(|f| f.tid == tid);
        let at = at.or((len < FAULTING).then_some(len))?;
        self.questions += 1;
        self.threads[at] = Faulting {
            page,
            tid,
            protected,
            question: self.questions,
        };
        self.len = len.max(at + 1);
        Some(cookie(page, self.questions))
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
    fn last(&self, page: usize) -> Option<&Faulting> {
        self.threads[..self.len]
            .iter()
            .filter(|f| f.page == page)
            .max_by_key(|f| f.question)
    }

    /// Whether the last that asked for a page has it and wants to write to it.
    /// Then an older answer that does not allow it is not used either.
    pub fn is_refused_write(&self, page: usize) -> bool {
        self.last(page).is_some_and(|f| f.protected)
    }

    /// The thread that asked last for the page of `answer`, if this is the
    /// answer to its question.
    fn last_asker(&self, answer: u64) -> Option<i32> {
        let page = page_down(answer as usize);
        self.last(page)
            .filter(|f| cookie(page, f.question) == answer)
            .map(|f| f.tid)
    }
}

/// What a question carries and its answer brings back: the page, and in the bits
/// below it which question it was.
fn cookie(page: usize, question: u64) -> u64 {
    page as u64 | (question % PAGE as u64)
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
    /// There is nothing at the page of question `answer`: whoever waits for it
    /// gets SIGBUS.
    pub fn answer_sigbus(&mut self, answer: u64) {
        let page = page_down(answer as usize);
        let Some(tid) = self.faulting.last_asker(answer) else {
            return;
        };
        self.faulting.forget(page, page + PAGE);
        if self.abilities.poison {
            match self.deliver(page, tid) {
                Ok(()) => {
                    self.faulting.busy = 0;
                    return;
                }
                // The thread faults again, and asks again. But one that is in a
                // system call can not be stopped before it has its answer.
                Err(Unstoppable::Busy) if self.faulting.busy < BUSY => {
                    self.faulting.busy += 1;
                    let _ = uffd::wake(self.faults, page, PAGE);
                    return;
                }
                Err(_) => self.faulting.busy = 0,
            }
        }
        let can = self.abilities.poison && self.poisoned.has_room();
        let poisoned = can.then(|| uffd::poison(self.faults, page, PAGE));
        if let Some(Ok(())) = poisoned {
            self.poisoned.push(page);
        } else {
            if !self.abilities.poison || poisoned == Some(Err(libc::EEXIST)) {
                // Linux before 6.6 cannot poison; or what is there cannot be
                // taken away while the threads run. The signal comes without its
                // address.
                let _ = task::signal_task(self.tgid, tid, libc::SIGBUS);
            }
            // The thread faults again, when there is room for its page.
            let _ = uffd::wake(self.faults, page, PAGE);
        }
    }

    /// Has thread `tid` take its SIGBUS, if the threads can be stopped. Others
    /// that wait for the page fault again.
    fn deliver(&mut self, page: usize, tid: i32) -> Result<(), Unstoppable> {
        if tid == self.fork_tid {
            return Err(Unstoppable::Forbidden);
        }
        self.stop()?;
        let known = self.traced[..self.traced_count]
            .iter()
            .position(|t| t.tid == tid);
        // One that is about to take another signal takes that, and faults again.
        if let Some(i) = known.filter(|&i| self.traced[i].signal == 0) {
            // A page that may not be written to is there; one that was there
            // leaves its write protection behind. Neither can be poisoned.
            self.make_touchable(page);
            let _ = uffd::write_unprotect(self.faults, page, PAGE);
            if uffd::poison(self.faults, page, PAGE).is_ok() {
                let came = match trace::go_on(tid, 0) {
                    Ok(()) => wait_for_stop(tid),
                    Err(_) => Waited::Gone,
                };
                self.make_touchable(page);
                match came {
                    Waited::Stopped { signal, .. } => self.traced[i].signal = signal,
                    Waited::Syscall => {}
                    Waited::Gone => {
                        self.traced_count -= 1;
                        self.traced[i] = self.traced[self.traced_count];
                    }
                    Waited::Nothing => {
                        debug_log!("thread {tid} does not come to its SIGBUS");
                        self.traced[i].stopped = false;
                    }
                }
            }
        }
        self.resume();
        Ok(())
    }

    /// Removes the poison of a page, if it is still of an attachment.
    fn make_touchable(&mut self, page: usize) {
        if let Some(p) = self.attachments.at(page) {
            let identity = self.connections[self.permits[p.permit].connection].identity;
            let still = self.space.at(page).ok().flatten();
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
        let stopped = self.stop().is_ok();
        self.on_faults();
        for i in 0..self.poisoned.len {
            self.make_touchable(self.poisoned.pages[i].0);
        }
        self.poisoned.len = 0;
        if stopped {
            self.resume();
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
        let mut t = FaultingThreads {
            len: 0,
            busy: 0,
            questions: 0,
            threads: [Faulting {
                page: 0,
                tid: 0,
                protected: false,
                question: 0,
            }; FAULTING],
        };
        let first = t.ask(PAGE, 1, false).unwrap_or(0);
        let other = t.ask(2 * PAGE, 2, false).unwrap_or(0);
        assert_eq!(t.last_asker(first), Some(1));
        let second = t.ask(PAGE, 3, false).unwrap_or(0);
        assert_eq!((t.last_asker(first), t.last_asker(second)), (None, Some(3)));
        assert_eq!(t.last_asker(other), Some(2));
        // A thread that asks for another page waits for the first no more.
        let third = t.ask(2 * PAGE, 3, false).unwrap_or(0);
        assert_eq!(
            (t.last_asker(first), t.last_asker(third)),
            (Some(1), Some(3))
        );
        t.forget(PAGE, 2 * PAGE);
        assert_eq!((t.last_asker(first), t.len), (None, 2));
    }
}
