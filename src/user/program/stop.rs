// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stopping all threads of the program, and letting them go.
//!
//! Between [`stop()`] and [`Program::resume`] no thread of the program
//! runs in user mode, none is inside a system call that can write to its
//! memory, and no event of its address space is left unread. The anchor thread
//! is not stopped: it sleeps in a wait and touches nothing. The two nest. Neither
//! waits for a peer.

#![forbid(unsafe_code)]

use super::alarm::Alarm;
use super::Program;
use crate::debug::{count, COUNTERS};
use crate::debug_log;
use crate::user::program::restart;
use crate::user::sys::procfs::Numbers;
use crate::user::sys::trace::{self, Waited};
use crate::user::sys::{net, task};
use core::sync::atomic::Ordering;

/// A thread that this service traces.
#[derive(Clone, Copy)]
pub struct Traced {
    pub tid: i32,
    /// It has stopped; else the stop is still to come.
    pub stopped: bool,
    /// The signal it was about to take.
    pub signal: i32,
    /// What it slept in before it was asked to stop.
    pub sleep: restart::Sleep,
}

/// Most threads that can be stopped.
pub const THREADS: usize = 4096;

/// Why the threads could not be stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unstoppable {
    /// A thread sleeps where it cannot be interrupted, in vfork() or in I/O.
    Busy,
    /// Somebody else traces a thread, or tracing is forbidden.
    Forbidden,
    /// The program has ended: there is nothing left to wait for. A first thread
    /// that has ended is not told as long as another one has not been waited for.
    Ended,
}

/// How long a stop may take before it is given up and tried again later.
const PATIENCE: u64 = 20_000_000;

/// How long a thread that is to stop is waited for at a time, in microseconds.
const LONG_NAP: u64 = 500;
/// The same after an event: the next may come at once, and does not wake us.
const SHORT_NAP: u64 = 4;

/// Pauses, in nanoseconds, between stops that are tried again for a peer: all
/// other threads stand while the one that sleeps is waited for, and it may
/// sleep for long.
const FIRST_PAUSE: u64 = 1_000_000;
const LAST_PAUSE: u64 = 200 * FIRST_PAUSE;

/// When a stop that failed may be tried again.
#[derive(Clone, Copy)]
pub struct Pause {
    until: u64,
    length: u64,
}

impl Pause {
    /// A stop has failed: the next pause is twice as long.
    pub fn begin(&mut self) {
        self.length = (self.length * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
        self.until = task::now() + self.length;
    }

    /// A stop has been successful.
    pub fn end(&mut self) {
        *self = Pause {
            until: 0,
            length: 0,
        };
    }

    /// What is left of it, in milliseconds.
    pub fn left(&self) -> u64 {
        if self.until == 0 {
            return 0;
        }
        self.until.saturating_sub(task::now()).div_ceil(1_000_000)
    }
}

/// The same once an event has been read in the stop: whoever dropped or moved
/// memory must not run on before that is put right, or what it writes next is
/// taken for the old content.
pub const LAST_PATIENCE: u64 = 10_000_000_000;

/// A queue of the kernel whose callers sleep until their event is read, so that a
/// stop has to read it; and the program that is stopped.
pub trait Events {
    fn program(&mut self) -> &mut Program;
    /// Reads one event. Its caller goes on, and must stand before it comes back to
    /// user mode.
    fn take(&mut self);
    /// Whether something has been read that must be put right before anybody runs on.
    fn is_urgent(&self) -> bool;
}

/// Stops all threads of the program, and reads what they wait for. Where that fails
/// those that have stopped still stand.
pub fn stop(events: &mut impl Events) -> Result<(), Unstoppable> {
    let began = task::now();
    let queue = events.program().events;
    events.program().stop_began = began;
    // When something last happened, and how many microseconds to wait for
    // more: one call can bring an event for each of many mappings.
    let (mut stirred, mut nap) = (began, LONG_NAP);
    loop {
        let mut fresh = events.program().seize_new_threads()?;
        loop {
            let running = events.program().still_running();
            if running == 0 {
                break;
            }
            let patience = if events.is_urgent() {
                LAST_PATIENCE
            } else {
                PATIENCE
            };
            if net::has_input(queue) {
                // A thread sleeps until its event is read, and then stops: it
                // must be one that has been asked to.
                if running > 1 || fresh > 0 {
                    fresh += events.program().seize_new_threads()?;
                }
                events.take();
                (stirred, nap) = (task::now(), SHORT_NAP);
            } else if events.program().has_ended() {
                return Err(Unstoppable::Ended);
            } else if task::now() > stirred + patience {
                return Err(Unstoppable::Busy);
            } else {
                task::await_child_stop(nap);
                nap = (nap * 2).min(LONG_NAP);
            }
        }
        if fresh == 0 {
            break;
        }
    }
    events.program().standing = 1;
    events.program().hold(true);
    while net::has_input(queue) {
        events.take();
    }
    Ok(())
}

impl Program {
    /// Whether the threads stand already: then they do so once more.
    pub fn stands_again(&mut self) -> bool {
        let stands = self.standing > 0;
        self.standing += u32::from(stands);
        stands
    }

    /// Lets every stopped thread go. One that has not stopped yet is let go
    /// when it does, see [`Self::release_strays`]. `owing`: they are held until
    /// [`Self::release_held`].
    pub fn resume(&mut self, owing: bool) {
        if self.standing == 1 && owing {
            self.held = true;
            return;
        }
        self.standing = self.standing.saturating_sub(1);
        if self.standing == 0 {
            self.hold(false);
            self.let_go();
        }
    }

    /// A thread that stands; 0: none does.
    pub fn standing_thread(&self) -> i32 {
        let traced = &self.traced[..self.traced_count];
        traced.iter().find(|t| t.stopped).map_or(0, |t| t.tid)
    }

    /// Lets those go who have stopped in a stop that has failed.
    pub fn give_up(&mut self, owing: bool) {
        if owing {
            self.held = true;
        } else {
            self.let_go();
        }
    }

    /// What was owed has been paid: lets those go who were held for it.
    pub fn release_held(&mut self) {
        if !core::mem::take(&mut self.held) {
            return;
        }
        if self.standing > 0 {
            self.resume(false);
        } else {
            self.let_go();
        }
    }

    /// Traces and interrupts every thread that is not traced yet; answers how
    /// many there were.
    fn seize_new_threads(&mut self) -> Result<usize, Unstoppable> {
        let mut fresh = 0;
        let mut alarm = Alarm::default();
        let mut tasks = Numbers::from_start(self.task_dir);
        for tid in tasks.by_ref() {
            // A thread in fork() is watched, and stands at its system call when
            // it matters.
            let left_alone = tid == self.anchor || tid == self.fork_tid;
            if left_alone
                || self.traced[..self.traced_count]
                    .iter()
                    .any(|t| t.tid == tid)
            {
                continue;
            }
            if self.traced_count >= crate::testing::places(THREADS) {
                debug_log!("more than {THREADS} threads: cannot stop them");
                return Err(Unstoppable::Forbidden);
            }
            // One that is traced already: an exec waits until it is waited for.
            if self.traced_count > 0 || self.fork_tid != 0 {
                alarm.set();
            }
            match trace::seize(tid, 0) {
                Ok(()) => {
                    let sleep = restart::Sleep::of(tid);
                    let _ = trace::interrupt(tid);
                    self.traced[self.traced_count] = Traced {
                        tid,
                        stopped: false,
                        signal: 0,
                        sleep,
                    };
                    self.traced_count += 1;
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
    fn still_running(&mut self) -> usize {
        let mut pending = 0;
        let mut i = 0;
        while i < self.traced_count {
            if !self.traced[i].stopped {
                match trace::wait(self.traced[i].tid) {
                    Waited::Nothing => pending += 1,
                    Waited::Stopped { signal, .. } => {
                        self.traced[i].signal = signal;
                        self.traced[i].stopped = true;
                    }
                    Waited::Syscall => self.traced[i].stopped = true,
                    Waited::Gone => {
                        self.forget_traced(i);
                        continue;
                    }
                }
            }
            i += 1;
        }
        pending
    }

    /// The thread in place `i` is traced no more; the last takes its place.
    pub fn forget_traced(&mut self, i: usize) {
        self.traced_count -= 1;
        self.traced[i] = self.traced[self.traced_count];
    }

    fn let_go(&mut self) {
        let mut kept = 0;
        for i in 0..self.traced_count {
            let mut t = self.traced[i];
            if t.stopped && restart::release(t.tid, t.signal, &t.sleep).is_err() {
                // Killed where it stood. Until its tracer has waited for it,
                // neither the program's parent nor an exec sees the end of it.
                t.stopped = false;
                if trace::wait(t.tid) == Waited::Gone {
                    continue;
                }
            }
            if !t.stopped {
                self.traced[kept] = t;
                kept += 1;
            }
        }
        self.traced_count = kept;
        let us = (task::now() - self.stop_began) / 1000;
        count(&COUNTERS.stops);
        COUNTERS.longest_stop_us.fetch_max(us, Ordering::Relaxed);
    }

    /// A thread that is traced, and has not stopped as it should have, is let go
    /// when it does.
    pub fn leave_stray(&mut self, tid: i32) {
        let _ = trace::interrupt(tid);
        if let Some(place) = self.traced.get_mut(self.traced_count) {
            *place = Traced {
                tid,
                stopped: false,
                signal: 0,
                sleep: restart::Sleep::of(tid),
            };
            self.traced_count += 1;
        }
    }

    /// Lets threads go that stopped after their stop had been given up.
    pub fn release_strays(&mut self) {
        let mut i = 0;
        while i < self.traced_count {
            match trace::wait(self.traced[i].tid) {
                Waited::Nothing => i += 1,
                waited => {
                    let signal = match waited {
                        Waited::Stopped { signal, .. } => Some(signal),
                        Waited::Syscall => Some(0),
                        _ => None,
                    };
                    if let Some(signal) = signal {
                        let t = &self.traced[i];
                        if restart::release(t.tid, signal, &t.sleep).is_err() {
                            // Killed meanwhile: its end is yet to come.
                            i += 1;
                            continue;
                        }
                    }
                    self.forget_traced(i);
                }
            }
        }
    }

    /// Whether the program has ended, or is about to become another by exec.
    pub fn has_ended(&self) -> bool {
        task::signal_task(self.tgid, self.anchor, 0) == Err(libc::ESRCH)
    }

    /// Waits for a thread of the program that is sure to stop soon.
    pub fn wait_soon(&self, tid: i32) -> Waited {
        trace::wait_soon(tid, || self.has_ended())
    }

    /// Whether a thread is a zombie or not there any more.
    fn thread_has_ended(&self, tid: i32) -> bool {
        let mut path = [0u8; 32];
        let path = crate::user::sys::procfs::proc_path(&mut path, tid, b"/stat");
        let fd = match crate::rawsys::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0) {
            Ok(fd) => fd,
            // There may be no descriptor left to see it by.
            Err(errno) => return matches!(errno, libc::ENOENT | libc::ESRCH),
        };
        let mut text = [0u8; 256];
        let n = crate::user::sys::task::read_text(fd, &mut text);
        crate::rawsys::close(fd);
        // `TID (name) STATE`, and the name may hold anything.
        let text = &text[..n];
        match text.iter().rposition(|&b| b == b')') {
            Some(at) => matches!(text.get(at + 2), Some(b'Z' | b'X') | None),
            None => true,
        }
    }

    /// A stop that was given up may have left the thread traced, its own stop
    /// still to come.
    pub fn release_stray(&mut self, tid: i32) {
        let traced = &self.traced[..self.traced_count];
        if let Some(i) = traced.iter().position(|t| t.tid == tid) {
            if let Waited::Stopped { signal, .. } = self.wait_soon(tid) {
                let _ = restart::release(tid, signal, &self.traced[i].sleep);
            }
            self.forget_traced(i);
        }
    }
}
