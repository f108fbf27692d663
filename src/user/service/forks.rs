// SPDX-License-Identifier: MIT OR Apache-2.0
//! fork(): the child gets private copies of what is promoted.
//!
//! Promoted private memory is a shared mapping, and must not be shared with a
//! child. It is therefore marked "not for children": whoever forks past libc
//! has a child without these pages, which ends it at the first touch, and
//! never one that writes into its parent.
//!
//! fork() of libc tells us before, and so do its `_Fork`, `clone` and `syscall`
//! where they are met ([`crate::user::hooks`]). The forking thread is watched to the entry
//! of its system call: by then it holds every lock that it will need, so the
//! other threads can be stopped without fear. The child inherits the shared
//! mappings for a moment, is stopped before its first instruction, has them
//! replaced by private copies, and then both go on. A service that is killed in
//! that moment takes both with it: else the child would write into its parent.

#![forbid(unsafe_code)]

use crate::debug::{count, COUNTERS};
use crate::debug_log;
use crate::user::arena::command::ANOTHER_FORKS;
use crate::user::arena::ranges::Origin;
use crate::user::arena::{self, Shared};
use crate::user::owner::children::Heir;
use crate::user::program::alarm::Alarm;
use crate::user::program::fork::Made;
use crate::user::program::threads::Standing;
use crate::user::service::state::Service;
use crate::user::sys::advice::{ABSENT, WIPED};
use crate::user::sys::forking::{child_tid_address, forks};
use crate::user::sys::trace::{self, Waited};
use crate::user::sys::{mem, task, Sys};
use core::sync::atomic::Ordering;

const OPTIONS: usize = trace::O_SYSGOOD | trace::O_FORK | trace::O_CLONE;

/// Tries to stop the other threads, each as long as a stop is patient. Without
/// the child's copy is not of one moment.
const TRIES: u32 = 500;

impl Service {
    /// Thread `tid` is in fork(), before its system call, and waits for us.
    /// `alone`: it will not tell when it is over.
    pub fn fork_begin(&mut self, shared: &Shared, tid: i32, alone: bool) -> u64 {
        if let Some(watched) = self.owner.program.forks.watched() {
            // A signal handler may have led the watched thread out of its fork.
            return if watched == tid { 0 } else { ANOTHER_FORKS };
        }
        if !alone {
            self.owner.program.forks.begin();
        }
        if shared.promoted.is_empty() {
            return 0;
        }
        self.owner.program.release_stray(tid);
        let mut alarm = Alarm::default();
        alarm.set();
        if let Err(errno) = trace::seize(tid, OPTIONS) {
            debug_log!("fork of thread {tid} cannot be watched: errno {errno}");
            return 0;
        }
        let _ = trace::interrupt(tid);
        drop(alarm);
        match self.owner.program.wait_soon(tid) {
            Waited::Stopped { .. } => {
                self.owner.program.forks.watch(tid, alone);
                shared.forking.store(tid as u32, Ordering::Release);
                let _ = trace::to_syscall(tid, 0);
            }
            waited => {
                debug_log!("fork of thread {tid} cannot be watched: {waited:?}");
                if waited != Waited::Gone {
                    self.owner.program.leave_stray(tid);
                }
            }
        }
        0
    }

    /// fork() is over, in the parent.
    pub fn fork_end(&mut self) {
        self.owner.program.forks.end();
        if !self.owner.program.forks.are_under_way() {
            self.leave_fork();
        }
    }

    /// Watches nobody any more who never came to a fork that we saw.
    pub fn leave_fork(&mut self) {
        let Some(tid) = self.owner.program.forks.watched() else {
            return;
        };
        let _ = trace::interrupt(tid);
        let let_go = match self.owner.program.wait_soon(tid) {
            Waited::Stopped { signal, .. } => trace::detach(tid, signal),
            Waited::Gone => Ok(()),
            _ => trace::detach(tid, 0),
        };
        if let_go.is_err() {
            self.owner.program.leave_stray(tid);
        }
        self.fork_over();
    }

    fn fork_over(&mut self) {
        if let Some(shared) = arena::existing() {
            shared.forking.store(0, Ordering::Release);
        }
        self.owner.program.forks.unwatch();
    }

    /// The watched thread may have stopped.
    pub fn on_fork_stop(&mut self) {
        while let Some(tid) = self.owner.program.forks.watched() {
            match trace::wait(tid) {
                Waited::Nothing => return,
                Waited::Gone => return self.fork_over(),
                Waited::Stopped { signal, event } => {
                    if event == trace::EVENT_FORK || event == trace::EVENT_CLONE {
                        if let Ok(child) = trace::event_message(tid) {
                            self.on_missed_child(child as i32);
                        }
                    }
                    let _ = trace::to_syscall(tid, signal);
                }
                Waited::Syscall => match trace::syscall_entry(tid) {
                    Ok(Some((number, args))) if forks(tid, number, &args) => {
                        return self.through_fork(tid, number, &args);
                    }
                    Ok(Some(_)) if self.owner.program.forks.is_led_away() => {
                        // A signal handler has led it away for good.
                        let _ = trace::detach(tid, 0);
                        return self.fork_over();
                    }
                    _ => {
                        self.owner.program.forks.detour();
                        let _ = trace::to_syscall(tid, 0);
                    }
                },
            }
        }
    }

    /// The watched thread has made a thread or a process, which stands for us, and
    /// we have not seen it begin.
    fn on_missed_child(&mut self, child: i32) {
        if task::signal_task(child, child, 0).is_ok() {
            debug_log!("child {child} of a fork is lost: it lacks what is shared");
            trace::end(child);
        } else {
            self.owner.program.leave_stray(child);
        }
    }

    /// The watched thread is about to enter the system call that forks.
    fn through_fork(&mut self, tid: i32, number: u64, args: &[u64; 6]) {
        let standing = self.stop_for_fork();
        self.owner.note_growth();
        let tid_word = child_tid_address(tid, number, args);
        let mut before = [0u8; 4];
        let saved =
            tid_word.and_then(|at| mem::peek_process(tid, at, &mut before).ok().map(|()| at));
        // From here on a child would share its parent's memory, and write into it. So
        // nobody goes through the fork alone if this task is killed.
        trace::set_options(tid, OPTIONS | trace::O_EXITKILL);
        self.for_children(libc::MADV_DOFORK);
        let made = self.owner.program.make_child(tid);
        let child = match made {
            Made::Child(child) => Some(child),
            _ => None,
        };
        if let Some(child) = child {
            match self.give_copies(child) {
                Ok(()) => count(&COUNTERS.forks_privatized),
                Err(errno) => {
                    // It has its parent's memory before it: it must not run.
                    debug_log!("child {child} of a fork is lost: errno {errno}");
                    trace::end(child);
                }
            }
        }
        if !crate::testing::children_inherit() {
            self.for_children(libc::MADV_DONTFORK);
        }
        trace::set_options(tid, OPTIONS);
        if let (Some(at), Some(_)) = (saved, child) {
            // The kernel has written the child's tid there while the page was
            // still shared: it belongs to the parent again.
            let _ = mem::poke_word(tid, at, u32::from_le_bytes(before));
        }
        if made == Made::Again {
            let _ = trace::to_syscall(tid, 0);
        } else {
            if trace::detach(tid, 0).is_err() {
                self.owner.program.leave_stray(tid);
            }
            self.fork_over();
        }
        self.owner.resume(standing);
        if let Some(child) = child {
            if trace::detach(child, 0).is_err() {
                // Killed where it stood.
                trace::bury(child);
            }
        }
    }

    /// Stops the other threads for a fork; peers are heard between two tries.
    fn stop_for_fork(&mut self) -> Option<Standing> {
        for _ in 0..TRIES {
            let standing = self.insist_on_stop(1);
            if standing.is_some() {
                return standing;
            }
            if let Some(shared) = arena::existing() {
                self.hear_peers(shared);
            }
        }
        debug_log!("a fork is not a snapshot: the other threads could not be stopped");
        None
    }

    /// Gives a standing child private copies; peers are heard between two parts.
    fn give_copies(&mut self, child: i32) -> Sys<()> {
        let (Some(shared), Some(mut heir)) = (arena::existing(), Heir::of(child)?) else {
            return Ok(());
        };
        let mut given = self.owner.give_part(shared, &mut heir);
        while let Ok(true) = given {
            if crate::testing::forks_last() {
                crate::rawsys::sleep(core::time::Duration::from_millis(300));
            }
            task::beat();
            self.hear_peers(shared);
            given = self.owner.give_part(shared, &mut heir);
        }
        heir.release()?;
        given.map(drop)
    }

    /// Sets whether children inherit what was private before its promotion, but
    /// for what they are to have nothing of, or zeros.
    fn for_children(&mut self, advice: i32) {
        let Some(shared) = arena::existing() else {
            return;
        };
        let mut i = 0;
        while let Some(r) = shared.promoted.get(i) {
            if r.origin == Origin::Private {
                let _ = self.owner.for_each_setting(r, &mut |owner, part, bits| {
                    if bits & (ABSENT | WIPED) == 0 {
                        owner.advise_for_children(part, advice)?;
                    }
                    Ok(())
                });
            }
            i += 1;
        }
    }
}
