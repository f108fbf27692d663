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
//! replaced by private copies, and then both go on.

use super::alarm::Alarm;
use crate::debug::{count, COUNTERS};
use crate::debug_log;
use crate::user::arena::ranges::Origin;
use crate::user::arena::{self, Op, Shared};
use crate::user::owner::settings::{advice_for, Bits, ABSENT, WIPED};
use crate::user::program::restart;
use crate::user::service::Service;
use crate::user::sys::clone;
use crate::user::sys::regs;
use crate::user::sys::trace::{self, Waited};
use crate::user::sys::{mem, task, Sys};
use core::sync::atomic::Ordering;

/// What the watch of a forking thread is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ForkPhase {
    None = 0,
    /// On its way to the system call.
    Watching,
}

const OPTIONS: usize = trace::O_SYSGOOD | trace::O_FORK | trace::O_CLONE;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// How long a fork waits for another one, in nanoseconds.
const PATIENCE: u64 = 60_000_000_000;

/// Tries to stop the other threads, each as long as a stop is patient. Without
/// the child's copy is not of one moment.
const TRIES: u32 = 500;

/// How many other system calls, entries and exits, a thread may make between
/// telling of a fork and the fork, where it does not tell of its end.
const DETOURS: u32 = 1000;

/// Answer to [`Op::ForkBegin`]: another thread is in a fork, come again.
const ANOTHER: u64 = 1;

/// Two forks at once wait for each other here: handlers run in the same order in
/// every thread, so who waits holds no lock that the other still needs.
extern "C" fn prepare() {
    if let Some(shared) = arena::existing().filter(|s| s.is_running()) {
        announce(shared, task::gettid(), false);
    }
}

/// Tells the service that a thread is about to fork.
fn announce(shared: &Shared, tid: i32, alone: bool) {
    let args = [tid as u64, alone.into(), 0, 0, 0];
    let patience = task::now() + PATIENCE;
    while shared.call(Op::ForkBegin, args) == Ok(ANOTHER) {
        if task::now() > patience {
            debug_log!("a fork that was begun does not end: this one is not watched");
            break;
        }
        crate::rawsys::sleep(core::time::Duration::from_micros(200));
    }
}

/// Whether a system call may make a child.
pub fn may_fork(number: u64) -> bool {
    #[cfg(target_arch = "x86_64")]
    if number == libc::SYS_fork as u64 {
        return true;
    }
    number == libc::SYS_clone as u64 || number == CLONE3
}

/// A thread is about to make such a call, in libc's `_Fork`, `clone` or `syscall`.
/// libc's fork has told of it already.
pub fn before_call(number: u64, args: [u64; 6]) {
    let Some(shared) = arena::existing().filter(|s| s.is_running()) else {
        return;
    };
    if shared.promoted.is_empty() || !forks(crate::rawsys::getpid(), number, &args) {
        return;
    }
    let tid = task::gettid();
    if shared.forking.load(Ordering::Acquire) as i32 != tid {
        announce(shared, tid, true);
    }
}

extern "C" fn parent() {
    if let Some(shared) = arena::existing().filter(|s| s.is_running()) {
        let _ = shared.call(Op::ForkEnd, [0; 5]);
    }
}

/// Nothing to do: the kernel has wiped the arena.
extern "C" fn child() {}

/// Has fork() call us, from now on.
pub fn install() {
    clone::at_fork(prepare, parent, child);
}

impl Service {
    /// Thread `tid` is in fork(), before its system call, and waits for us.
    /// `alone`: it will not tell when it is over.
    pub fn fork_begin(&mut self, shared: &Shared, tid: i32, alone: bool) -> u64 {
        if self.fork_phase != ForkPhase::None {
            // A signal handler may have led the watched thread out of its fork.
            return if self.fork_tid == tid { 0 } else { ANOTHER };
        }
        if !alone {
            self.forks_under_way += 1;
        }
        if shared.promoted.is_empty() {
            return 0;
        }
        self.release_stray(tid);
        let mut alarm = Alarm::default();
        alarm.set();
        let seized = trace::seize(tid, OPTIONS).and_then(|()| trace::interrupt(tid));
        if let Err(errno) = seized {
            debug_log!("fork of thread {tid} cannot be watched: errno {errno}");
            return 0;
        }
        drop(alarm);
        match self.wait_soon(tid) {
            Waited::Stopped { .. } => {
                self.fork_tid = tid;
                self.fork_phase = ForkPhase::Watching;
                (self.fork_alone, self.fork_detours) = (alone, 0);
                self.forks_under_way += u32::from(alone);
                shared.forking.store(tid as u32, Ordering::Release);
                let _ = trace::to_syscall(tid, 0);
            }
            waited => debug_log!("fork of thread {tid} cannot be watched: {waited:?}"),
        }
        0
    }

    /// A stop that was given up may have left the thread traced, its own stop
    /// still to come.
    fn release_stray(&mut self, tid: i32) {
        let traced = &self.traced[..self.traced_count];
        if let Some(i) = traced.iter().position(|t| t.tid == tid) {
            if let Waited::Stopped { signal, .. } = self.wait_soon(tid) {
                let _ = restart::release(tid, signal, &self.traced[i].sleep);
            }
            self.forget_traced(i);
        }
    }

    /// fork() is over, in the parent.
    pub fn fork_end(&mut self) {
        self.forks_under_way = self.forks_under_way.saturating_sub(1);
        if self.fork_phase == ForkPhase::Watching && self.forks_under_way == 0 {
            // It never came to a fork that we saw.
            let tid = self.fork_tid;
            let _ = trace::interrupt(tid);
            if let Waited::Stopped { signal, .. } = self.wait_soon(tid) {
                let _ = trace::detach(tid, signal);
            } else {
                let _ = trace::detach(tid, 0);
            }
            self.fork_over();
        }
    }

    fn fork_over(&mut self) {
        if let Some(shared) = arena::existing() {
            shared.forking.store(0, Ordering::Release);
        }
        if core::mem::take(&mut self.fork_alone) {
            self.forks_under_way = self.forks_under_way.saturating_sub(1);
        }
        self.fork_tid = 0;
        self.fork_phase = ForkPhase::None;
    }

    /// The watched thread may have stopped.
    pub fn on_fork_stop(&mut self) {
        while self.fork_phase == ForkPhase::Watching {
            let tid = self.fork_tid;
            match trace::wait(tid) {
                Waited::Nothing => return,
                Waited::Gone => return self.fork_over(),
                Waited::Stopped { signal, .. } => {
                    let _ = trace::to_syscall(tid, signal);
                }
                Waited::Syscall => match trace::syscall_entry(tid) {
                    Ok(Some((number, args))) if forks(tid, number, &args) => {
                        return self.through_fork(tid, number, &args);
                    }
                    Ok(Some(_)) if self.fork_alone && self.fork_detours == DETOURS => {
                        // A signal handler has led it away for good.
                        let _ = trace::detach(tid, 0);
                        return self.fork_over();
                    }
                    _ => {
                        self.fork_detours = self.fork_detours.saturating_add(1);
                        let _ = trace::to_syscall(tid, 0);
                    }
                },
            }
        }
    }

    /// The watched thread is about to enter the system call that forks.
    fn through_fork(&mut self, tid: i32, number: u64, args: &[u64; 6]) {
        let stopped = (0..TRIES).any(|_| self.stop().is_ok());
        if !stopped {
            debug_log!("a fork is not a snapshot: the other threads could not be stopped");
        }
        self.note_growth();
        let tid_word = child_tid_address(tid, number, args);
        let mut before = [0u8; 4];
        let saved =
            tid_word.and_then(|at| mem::peek_process(tid, at, &mut before).ok().map(|()| at));
        self.for_children(libc::MADV_DOFORK);
        let made = self.make_child(tid);
        let child = match made {
            Made::Child(child) => Some(child),
            _ => None,
        };
        if let Some(child) = child {
            match self.privatize(child) {
                Ok(()) => count(&COUNTERS.forks_privatized),
                Err(errno) => {
                    // It has its parent's memory before it: it must not run.
                    debug_log!("child {child} of a fork is lost: errno {errno}");
                    let _ = task::signal_task(child, child, libc::SIGKILL);
                }
            }
        }
        self.for_children(libc::MADV_DONTFORK);
        if let (Some(at), Some(_)) = (saved, child) {
            // The kernel has written the child's tid there while the page was
            // still shared: it belongs to the parent again.
            let _ = mem::poke_word(tid, at, u32::from_le_bytes(before));
        }
        if made == Made::Again {
            let _ = trace::to_syscall(tid, 0);
        } else {
            let _ = trace::detach(tid, 0);
            self.fork_over();
        }
        if stopped {
            self.resume();
        }
        if let Some(child) = child {
            let _ = trace::detach(child, 0);
        }
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
                let _ = self.for_each_setting(r, |_, lo, hi, bits| {
                    if bits & (ABSENT | WIPED) == 0 {
                        let _ = mem::advise(lo, hi - lo, advice);
                    }
                    Ok(())
                });
            }
            i += 1;
        }
    }

    /// Lets the thread through its fork.
    fn make_child(&mut self, tid: i32) -> Made {
        if trace::to_syscall(tid, 0).is_err() {
            return Made::Nothing;
        }
        loop {
            match self.wait_soon(tid) {
                Waited::Stopped { event, .. }
                    if event == trace::EVENT_FORK || event == trace::EVENT_CLONE =>
                {
                    let Ok(child) = trace::event_message(tid) else {
                        return Made::Nothing;
                    };
                    let child = child as i32;
                    let stands =
                        matches!(trace::wait_soon(child, || false), Waited::Stopped { .. });
                    if stands {
                        return Made::Child(child);
                    }
                    debug_log!("child {child} of a fork is lost: it does not stop");
                    let _ = task::signal_task(child, child, libc::SIGKILL);
                    return Made::Nothing;
                }
                Waited::Stopped { signal: _, event } if event == trace::EVENT_STOP => {
                    if trace::to_syscall(tid, 0).is_err() {
                        return Made::Nothing;
                    }
                }
                Waited::Syscall if is_to_restart(tid) => return Made::Again,
                // The fork has failed.
                _ => return Made::Nothing,
            }
        }
    }

    /// Gives the standing child private copies.
    fn privatize(&mut self, child: i32) -> Sys<()> {
        let Some(shared) = arena::existing() else {
            return Ok(());
        };
        let original = regs::registers(child)?;
        let mut done = Ok(());
        let mut i = 0;
        while let (Some(r), Ok(())) = (shared.promoted.get(i), done) {
            i += 1;
            if r.origin == Origin::Private {
                done = self.for_each_setting(r, |service, lo, hi, bits| {
                    service.privatize_range(child, &original, (lo, hi), bits)
                });
            }
        }
        regs::set_registers(child, &original)?;
        done
    }

    fn privatize_range(
        &mut self,
        child: i32,
        original: &regs::Registers,
        (start, end): (usize, usize),
        bits: Bits,
    ) -> Sys<()> {
        if bits & ABSENT != 0 {
            return Ok(());
        }
        let mut lo = start;
        while lo < end {
            let Some(m) = self.space.at(lo)? else {
                return Err(libc::EFAULT);
            };
            let hi = m.end.min(end);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            let flags = flags | libc::MAP_NORESERVE;
            let none = u64::MAX;
            let map = [
                lo as u64,
                (hi - lo) as u64,
                RW as u64,
                flags as u64,
                none,
                0,
            ];
            in_child(child, original, libc::SYS_mmap, map)?;
            for advice in advice_for(bits) {
                let advise = [lo as u64, (hi - lo) as u64, advice as u64, 0, 0, 0];
                in_child(child, original, libc::SYS_madvise, advise)?;
            }
            if bits & WIPED == 0 {
                let mut at = lo;
                while let Some((a, b)) = mem::next_data(self.memfd, at, hi) {
                    mem::copy_file_to_process(self.memfd, child, a, b - a)?;
                    at = b;
                }
            }
            if m.prot() != RW {
                let protect = [lo as u64, (hi - lo) as u64, m.prot() as u64, 0, 0, 0];
                in_child(child, original, libc::SYS_mprotect, protect)?;
            }
            lo = hi;
        }
        Ok(())
    }
}

/// What became of a fork that was let through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    /// A child, which stands.
    Child(i32),
    /// None: a signal waits for the thread, which takes it and comes again.
    Again,
    Nothing,
}

/// Whether the system call at whose exit the thread stands is going to be made
/// anew: the kernel forks nobody while a signal is pending.
fn is_to_restart(tid: i32) -> bool {
    const ERESTARTNOINTR: i64 = 513;
    regs::registers(tid).is_ok_and(|regs| regs.answer() == -ERESTARTNOINTR)
}

/// Has a standing thread make one system call, and leaves it at its exit.
fn in_child(
    child: i32,
    original: &regs::Registers,
    number: libc::c_long,
    args: [u64; 6],
) -> Sys<()> {
    let mut regs = *original;
    regs.prepare_syscall(number, args);
    regs::set_registers(child, &regs)?;
    for _ in 0..2 {
        trace::to_syscall(child, 0)?;
        loop {
            match trace::wait_soon(child, || false) {
                Waited::Syscall => break,
                // A signal on its way: it comes again when the child runs.
                Waited::Stopped { signal, .. } => trace::to_syscall(child, signal)?,
                _ => return Err(libc::ESRCH),
            }
        }
    }
    match regs::registers(child)?.answer() {
        answer if (-4095..0).contains(&answer) => Err(-answer as i32),
        _ => Ok(()),
    }
}

const CLONE3: u64 = 435;

/// Flags of the clone that a system call is, if it is one.
fn clone_flags(tid: i32, number: u64, args: &[u64; 6]) -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    if number == libc::SYS_fork as u64 {
        return Some(0);
    }
    if number == libc::SYS_clone as u64 {
        return Some(args[0]);
    }
    if number == CLONE3 {
        let mut flags = [0u8; 8];
        mem::peek_process(tid, args[0] as usize, &mut flags).ok()?;
        return Some(u64::from_le_bytes(flags));
    }
    None
}

/// Whether a system call makes a process with memory of its own, which can be met.
fn forks(tid: i32, number: u64, args: &[u64; 6]) -> bool {
    // Of one that is made untraced, or whose parent waits for it, nothing is told.
    const UNMET: i32 = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_UNTRACED;
    clone_flags(tid, number, args).is_some_and(|flags| flags & UNMET as u64 == 0)
}

/// Where the kernel will write the child's tid in the child's memory.
fn child_tid_address(tid: i32, number: u64, args: &[u64; 6]) -> Option<usize> {
    let flags = clone_flags(tid, number, args)?;
    if flags & libc::CLONE_CHILD_SETTID as u64 == 0 {
        return None;
    }
    if number == CLONE3 {
        let mut at = [0u8; 8];
        mem::peek_process(tid, args[0] as usize + 16, &mut at).ok()?;
        return Some(u64::from_le_bytes(at) as usize);
    }
    // clone(flags, stack, parent_tid, child_tid, tls), the last two swapped
    // on some.
    Some(args[if cfg!(target_arch = "x86_64") { 3 } else { 4 }] as usize)
}
