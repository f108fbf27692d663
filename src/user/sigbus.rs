// SPDX-License-Identifier: MIT OR Apache-2.0
//! The answer to a touch of what is not there: SIGBUS, and nothing after it.
//!
//! The kernel's means is to poison the page: whoever touches it gets SIGBUS.
//! But the owner may map memory there a moment later, and the next touch has to
//! reach it. So the page must not stay poisoned once the program can know that
//! its touch has failed. The faulting thread is traced before it is woken; it
//! stops when the signal is about to be delivered; the page is made touchable
//! again; then the thread goes on and takes its signal.
//!
//! A thread that cannot be traced (a debugger has it) takes the signal by
//! itself, and the page is made touchable a little later.

use super::service::Service;
use super::stop::{Traced, THREADS};
use super::sys::trace::{self, Waited};
use super::sys::{maps, mem, task, uffd, PAGE};
use crate::debug_log;

/// A thread that waits for a page.
#[derive(Clone, Copy)]
pub struct Faulting {
    page: usize,
    tid: i32,
}

/// Most threads whose faults are told apart at a time. One that finds no room
/// is woken with its page, and faults again.
const FAULTING: usize = 1024;

/// The threads whose pages have been asked for.
pub struct FaultingThreads {
    len: usize,
    threads: [Faulting; FAULTING],
}

impl FaultingThreads {
    pub fn push(&mut self, page: usize, tid: i32) {
        // A thread waits for one page at a time: what it waited for before is over.
        let len = self.len;
        if let Some(known) = self.threads[..len].iter_mut().find(|f| f.tid == tid) {
            known.page = page;
        } else if len < FAULTING {
            self.threads[len] = Faulting { page, tid };
            self.len += 1;
        }
    }

    /// Forgets the threads that wait for pages of `[lo, hi)`; answers one.
    pub fn take(&mut self, lo: usize, hi: usize) -> Option<i32> {
        let mut one = None;
        let mut kept = 0;
        for i in 0..self.len {
            let f = self.threads[i];
            if f.page >= lo && f.page < hi {
                one = Some(f.tid);
            } else {
                self.threads[kept] = f;
                kept += 1;
            }
        }
        self.len = kept;
        one
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
    /// The threads that touched `page` get SIGBUS.
    pub fn answer_sigbus(&mut self, page: usize) {
        let tid = self.faulting.take(page, page + PAGE);
        if self.abilities.poison && tid.is_some_and(|tid| self.deliver(page, tid)) {
            return;
        }
        let can = self.abilities.poison && self.poisoned.has_room();
        if can && uffd::poison(self.faults, page, PAGE).is_ok() {
            self.poisoned.push(page);
        } else {
            // The thread faults again, when there is room for its page.
            let _ = uffd::wake(self.faults, page, PAGE);
        }
    }

    /// Has thread `tid` take its SIGBUS; false if it cannot be traced. Other
    /// threads that wait for this page are woken too, and take the signal or
    /// fault again.
    fn deliver(&mut self, page: usize, tid: i32) -> bool {
        if tid == self.fork_tid || trace::seize(tid, 0).is_err() {
            return false;
        }
        // Inside a system call there is no signal: the call fails, if it has
        // come so far, and the thread stops on its way out.
        let silent = self.abilities.kernel_mode && is_in_system_call(tid);
        let poisoned = uffd::poison(self.faults, page, PAGE).is_ok();
        if !poisoned {
            let _ = uffd::wake(self.faults, page, PAGE);
        }
        if silent || !poisoned {
            let _ = trace::interrupt(tid);
        }
        let came = wait_for_stop(tid);
        if poisoned {
            self.make_touchable(page);
        }
        match came {
            Waited::Stopped { signal, .. } => {
                let _ = trace::detach(tid, signal);
            }
            Waited::Gone => {}
            Waited::Nothing | Waited::Syscall => {
                debug_log!("thread {tid} does not come to its SIGBUS");
                if self.traced_count < THREADS {
                    self.traced[self.traced_count] = Traced {
                        tid,
                        stopped: false,
                        signal: 0,
                    };
                    self.traced_count += 1;
                }
            }
        }
        true
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

/// Whether a thread that sleeps in a fault took it inside a system call.
fn is_in_system_call(tid: i32) -> bool {
    let mut path = [0u8; 32];
    let path = maps::proc_path(&mut path, tid, b"/syscall");
    let Ok(fd) = crate::rawsys::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0) else {
        return false;
    };
    let mut text = [0u8; 64];
    let n = task::read_text(fd, &mut text);
    crate::rawsys::close(fd);
    // "NUMBER arguments..." there, "-1 ..." or "running" elsewhere.
    n > 0 && text[0].is_ascii_digit()
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
    fn a_thread_waits_for_one_page() {
        let mut t = FaultingThreads {
            len: 0,
            threads: [Faulting { page: 0, tid: 0 }; FAULTING],
        };
        t.push(PAGE, 1);
        t.push(2 * PAGE, 2);
        t.push(3 * PAGE, 1);
        assert_eq!(t.take(PAGE, 2 * PAGE), None);
        assert_eq!(t.take(2 * PAGE, 4 * PAGE), Some(1));
        assert_eq!(t.len, 0);
    }
}
