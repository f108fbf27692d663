// SPDX-License-Identifier: MIT OR Apache-2.0
//! The threads of the program that are traced: for a stop, or since they are late
//! for one.

#![forbid(unsafe_code)]

use super::alarm::Alarm;
use super::Program;
use crate::debug::{count, COUNTERS};
use crate::debug_log;
use crate::errno::Errno;
use crate::user::program::restart;
use crate::user::sys::procfs::Numbers;
use crate::user::sys::trace::{self, Waited};
use crate::user::sys::{sched, task};
use core::sync::atomic::Ordering;

/// No thread of the program runs. Made by a stop alone, and given back to
/// [`Program::resume`]: whoever is lent it may change what they would see.
#[must_use]
pub struct Standing(());

/// Most threads that can be stopped.
pub const THREADS: usize = 4096;

/// Why the threads could not be stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unstoppable {
    /// A thread sleeps where it cannot be interrupted, in vfork() or in I/O.
    Busy,
    /// Somebody else traces a thread, or tracing is forbidden.
    Forbidden,
    /// The program has ended: there is nothing left to wait for. The kernel does not
    /// report the end of the first thread before all others have been waited for.
    Ended,
}

/// A thread that this service traces.
#[derive(Clone, Copy)]
struct Traced {
    tid: i32,
    /// It has stopped; else the stop is still to come.
    stopped: bool,
    /// The signal it was about to take.
    signal: i32,
    /// What it slept in before it was asked to stop.
    sleep: restart::Sleep,
}

/// After this time a thread that was woken and has not come to its signal is
/// asked to stop wherever it is; after the second it is left to come later.
const SOON: u64 = 50_000_000;
const LATE: u64 = 500_000_000;

/// The threads that are traced, and how they stand. All zero: none is.
pub struct Threads {
    traced: [Traced; THREADS],
    count: usize,
    stop_began: u64,
    /// How many stops are ahead of [`Program::resume`].
    standing: u32,
    /// Those that have stopped are let go when what is owed has been paid.
    held: bool,
}

impl Threads {
    /// A stop begins.
    pub(super) fn begin(&mut self, now: u64) {
        self.stop_began = now;
    }

    /// Whether they stand.
    pub fn stand(&self) -> bool {
        self.standing > 0
    }

    /// Whether some are held until what is owed has been paid.
    pub fn are_held(&self) -> bool {
        self.held
    }

    /// The task that traced them is gone, and the kernel has let them go.
    pub fn forget(&mut self) {
        (self.count, self.standing, self.held) = (0, 0, false);
    }

    fn place_of(&self, tid: i32) -> Option<usize> {
        self.traced[..self.count].iter().position(|t| t.tid == tid)
    }

    /// Whether a thread stands, and is about to take no signal.
    pub fn has_no_signal(&self, tid: i32) -> bool {
        self.place_of(tid)
            .is_some_and(|i| self.traced[i].signal == 0)
    }

    /// Lets one thread run until it stops for a signal, while all others stand.
    pub fn run_to_signal(&self, _: &Standing, tid: i32) -> Waited {
        match trace::go_on(tid, 0) {
            Ok(()) => wait_for_stop(tid),
            Err(_) => Waited::Gone,
        }
    }

    /// Takes note of what came of that.
    pub fn note_run(&mut self, tid: i32, came: Waited) {
        let Some(i) = self.place_of(tid) else { return };
        match came {
            Waited::Stopped { signal, .. } => self.traced[i].signal = signal,
            Waited::Syscall => {}
            Waited::Gone => self.remove(i),
            Waited::Nothing => {
                debug_log!("thread {tid} does not come to its SIGBUS");
                self.traced[i].stopped = false;
            }
        }
    }

    /// The thread in place `i` is traced no more; the last takes its place.
    fn remove(&mut self, i: usize) {
        self.count -= 1;
        self.traced[i] = self.traced[self.count];
    }
}

impl Program {
    /// All threads have stopped.
    pub(super) fn stand(&mut self) -> Standing {
        self.threads.standing = 1;
        self.hold(true);
        Standing(())
    }

    /// Where the threads stand already, they do so once more.
    pub fn stands_again(&mut self) -> Option<Standing> {
        if self.threads.standing == 0 {
            return None;
        }
        self.threads.standing += 1;
        Some(Standing(()))
    }

    /// Lets every stopped thread go. One that has not stopped yet is let go
    /// when it does, see [`Self::release_strays`]. `owing`: they are held until
    /// [`Self::release_held`].
    pub fn resume(&mut self, _: Standing, owing: bool) {
        self.resume_once(owing);
    }

    fn resume_once(&mut self, owing: bool) {
        if self.threads.standing == 1 && owing {
            self.threads.held = true;
            return;
        }
        self.threads.standing = self.threads.standing.saturating_sub(1);
        if self.threads.standing == 0 {
            self.hold(false);
            self.let_go();
        }
    }

    /// A thread that stands; 0: none does.
    pub fn standing_thread(&self, _: &Standing) -> i32 {
        let traced = &self.threads.traced[..self.threads.count];
        traced.iter().find(|t| t.stopped).map_or(0, |t| t.tid)
    }

    /// Lets those go who have stopped in a stop that has failed.
    pub fn give_up(&mut self, owing: bool) {
        if owing {
            self.threads.held = true;
        } else {
            self.let_go();
        }
    }

    /// What was owed has been paid: lets those go who were held for it.
    pub fn release_held(&mut self) {
        if !core::mem::take(&mut self.threads.held) {
            return;
        }
        if self.threads.standing > 0 {
            self.resume_once(false);
        } else {
            self.let_go();
        }
    }

    /// Traces and interrupts every thread that is not traced yet; answers how
    /// many there were.
    pub(super) fn seize_new_threads(&mut self) -> Result<usize, Unstoppable> {
        let mut fresh = 0;
        let mut alarm = Alarm::default();
        let mut tasks = Numbers::from_start(self.task_dir);
        for tid in tasks.by_ref() {
            // A thread in fork() is watched, and stands at its system call when
            // it matters.
            let left_alone = tid == self.anchor || self.forks.watched() == Some(tid);
            if left_alone || self.threads.place_of(tid).is_some() {
                continue;
            }
            if self.threads.count >= crate::testing::places(THREADS) {
                debug_log!("more than {THREADS} threads: cannot stop them");
                return Err(Unstoppable::Forbidden);
            }
            // One that is traced already: an exec waits until it is waited for.
            if self.threads.count > 0 || self.forks.watched().is_some() {
                alarm.set();
            }
            match trace::seize(tid, 0) {
                Ok(()) => {
                    let sleep = restart::Sleep::of(tid);
                    let _ = trace::interrupt(tid);
                    self.threads.traced[self.threads.count] = Traced {
                        tid,
                        stopped: false,
                        signal: 0,
                        sleep,
                    };
                    self.threads.count += 1;
                    fresh += 1;
                }
                // Past the point where an ending thread writes to memory.
                Err(_) if self.thread_has_ended(tid) => {}
                Err(errno) => {
                    debug_log!("thread {tid} cannot be traced: errno {errno}");
                    return Err(Unstoppable::Forbidden);
                }
            }
        }
        if tasks.is_cut() {
            debug_log!("the list of threads cannot be read");
            return Err(Unstoppable::Busy);
        }
        Ok(fresh)
    }

    /// Looks at every thread that was asked to stop; how many have not.
    pub(super) fn still_running(&mut self) -> usize {
        let mut pending = 0;
        let mut i = 0;
        while i < self.threads.count {
            if !self.threads.traced[i].stopped {
                match trace::wait(self.threads.traced[i].tid) {
                    Waited::Nothing => pending += 1,
                    Waited::Stopped { signal, .. } => {
                        self.threads.traced[i].signal = signal;
                        self.threads.traced[i].stopped = true;
                    }
                    Waited::Syscall => self.threads.traced[i].stopped = true,
                    Waited::Gone => {
                        self.threads.remove(i);
                        continue;
                    }
                }
            }
            i += 1;
        }
        pending
    }

    fn let_go(&mut self) {
        let mut kept = 0;
        for i in 0..self.threads.count {
            let mut t = self.threads.traced[i];
            if t.stopped && restart::release(t.tid, t.signal, &t.sleep).is_err() {
                // Killed where it stood. Until its tracer has waited for it,
                // neither the program's parent nor an exec sees the end of it.
                t.stopped = false;
                if trace::wait(t.tid) == Waited::Gone {
                    continue;
                }
            }
            if !t.stopped {
                self.threads.traced[kept] = t;
                kept += 1;
            }
        }
        self.threads.count = kept;
        let us = (task::now() - self.threads.stop_began) / 1000;
        count(&COUNTERS.stops);
        COUNTERS.longest_stop_us.fetch_max(us, Ordering::Relaxed);
    }

    /// A thread that is traced, and has not stopped as it should have, is let go
    /// when it does.
    pub fn leave_stray(&mut self, tid: i32) {
        let _ = trace::interrupt(tid);
        if let Some(place) = self.threads.traced.get_mut(self.threads.count) {
            *place = Traced {
                tid,
                stopped: false,
                signal: 0,
                sleep: restart::Sleep::of(tid),
            };
            self.threads.count += 1;
        }
    }

    /// Lets threads go that stopped after their stop had been given up.
    pub fn release_strays(&mut self) {
        let mut i = 0;
        while i < self.threads.count {
            match trace::wait(self.threads.traced[i].tid) {
                Waited::Nothing => i += 1,
                waited => {
                    let signal = match waited {
                        Waited::Stopped { signal, .. } => Some(signal),
                        Waited::Syscall => Some(0),
                        _ => None,
                    };
                    if let Some(signal) = signal {
                        let t = &self.threads.traced[i];
                        if restart::release(t.tid, signal, &t.sleep).is_err() {
                            // Killed meanwhile: its end is yet to come.
                            i += 1;
                            continue;
                        }
                    }
                    self.threads.remove(i);
                }
            }
        }
    }

    /// Whether the program has ended, or is about to become another by exec.
    pub fn has_ended(&self) -> bool {
        task::signal_task(self.tgid, self.anchor, 0) == Err(Errno::ESRCH)
    }

    /// Waits for a thread of the program that is sure to stop soon.
    pub fn wait_soon(&self, tid: i32) -> Waited {
        trace::wait_soon(tid, || self.has_ended())
    }

    /// Whether a thread is a zombie or not there any more.
    fn thread_has_ended(&self, tid: i32) -> bool {
        match sched::state(tid) {
            Ok(state) => matches!(state, Some(b'Z' | b'X') | None),
            // There may be no descriptor left to see it by.
            Err(errno) => matches!(errno, Errno::ENOENT | Errno::ESRCH),
        }
    }

    /// A stop that was given up may have left the thread traced, its own stop
    /// still to come.
    pub fn release_stray(&mut self, tid: i32) {
        let traced = &self.threads.traced[..self.threads.count];
        if let Some(i) = traced.iter().position(|t| t.tid == tid) {
            if let Waited::Stopped { signal, .. } = self.wait_soon(tid) {
                let _ = restart::release(tid, signal, &self.threads.traced[i].sleep);
            }
            self.threads.remove(i);
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
