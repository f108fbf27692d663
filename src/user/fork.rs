// SPDX-License-Identifier: MIT OR Apache-2.0
//! fork(): the child gets private copies of what is promoted.
//!
//! Promoted private memory is a shared mapping, and must not be shared with a
//! child. It is therefore marked "not for children": whoever forks past libc
//! has a child without these pages, which ends it at the first touch, and
//! never one that writes into its parent.
//!
//! fork() of libc tells us before. The forking thread is watched to the entry
//! of its system call: by then it holds every lock that it will need, so the
//! other threads can be stopped without fear. The child inherits the shared
//! mappings for a moment, is stopped before its first instruction, has them
//! replaced by private copies, and then both go on.

use super::ranges::Origin;
use super::service::Service;
use super::shared::{self, Op, Shared};
use super::sys::trace::{self, Waited};
use super::sys::{mem, task, Sys};
use crate::debug::{count, COUNTERS};
use crate::debug_log;

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

/// Longest wait for a thread that is about to stop, in nanoseconds.
const SOON: u64 = 2_000_000_000;

extern "C" fn prepare() {
    if let Some(shared) = shared::existing().filter(|s| s.is_running()) {
        let _ = shared.call(Op::ForkBegin, [task::gettid() as u64, 0, 0, 0, 0]);
    }
}

extern "C" fn parent() {
    if let Some(shared) = shared::existing().filter(|s| s.is_running()) {
        let _ = shared.call(Op::ForkEnd, [0; 5]);
    }
}

/// Nothing to do: the kernel has wiped the arena.
extern "C" fn child() {}

/// Has fork() call us, from now on.
pub fn install() {
    task::at_fork(prepare, parent, child);
}

impl Service {
    /// Thread `tid` is in fork(), before its system call, and waits for us.
    pub fn fork_begin(&mut self, shared: &Shared, tid: i32) {
        self.forks_under_way += 1;
        if shared.promoted.is_empty() || self.fork_phase != ForkPhase::None {
            return;
        }
        let seized = trace::seize(tid, OPTIONS).and_then(|()| trace::interrupt(tid));
        if let Err(errno) = seized {
            debug_log!("fork of thread {tid} cannot be watched: errno {errno}");
            return;
        }
        if !matches!(wait_soon(tid), Waited::Stopped { .. }) {
            return;
        }
        self.fork_tid = tid;
        self.fork_phase = ForkPhase::Watching;
        let _ = trace::to_syscall(tid, 0);
    }

    /// fork() is over, in the parent.
    pub fn fork_end(&mut self) {
        self.forks_under_way = self.forks_under_way.saturating_sub(1);
        if self.fork_phase == ForkPhase::Watching && self.forks_under_way == 0 {
            // It never came to a fork that we saw.
            let tid = self.fork_tid;
            let _ = trace::interrupt(tid);
            if let Waited::Stopped { signal, .. } = wait_soon(tid) {
                let _ = trace::detach(tid, signal);
            } else {
                let _ = trace::detach(tid, 0);
            }
            self.fork_over();
        }
    }

    fn fork_over(&mut self) {
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
                    _ => {
                        let _ = trace::to_syscall(tid, 0);
                    }
                },
            }
        }
    }

    /// The watched thread is about to enter the system call that forks.
    fn through_fork(&mut self, tid: i32, number: u64, args: &[u64; 6]) {
        let stopped = (0..50).any(|_| self.stop().is_ok());
        if !stopped {
            debug_log!("a fork is not a snapshot: the other threads could not be stopped");
        }
        self.note_growth();
        let tid_word = child_tid_address(tid, number, args);
        let mut before = [0u8; 4];
        let saved =
            tid_word.and_then(|at| mem::peek_process(tid, at, &mut before).ok().map(|()| at));
        self.for_children(libc::MADV_DOFORK);
        let child = self.make_child(tid);
        if let Some(child) = child {
            match self.privatize(child) {
                Ok(()) => count(&COUNTERS.forks_privatized),
                Err(errno) => debug_log!("child {child} of a fork is lost: errno {errno}"),
            }
        }
        self.for_children(libc::MADV_DONTFORK);
        if let (Some(at), Some(_)) = (saved, child) {
            // The kernel has written the child's tid there while the page was
            // still shared: it belongs to the parent again.
            let _ = mem::poke_word(tid, at, u32::from_le_bytes(before));
        }
        let _ = trace::detach(tid, 0);
        self.fork_over();
        if stopped {
            self.resume();
        }
        if let Some(child) = child {
            let _ = trace::detach(child, 0);
        }
    }

    /// Sets whether children inherit what was private before its promotion.
    fn for_children(&self, advice: i32) {
        let Some(shared) = shared::existing() else {
            return;
        };
        let mut i = 0;
        while let Some(r) = shared.promoted.get(i) {
            if r.origin == Origin::Private {
                let _ = mem::advise(r.start, r.end - r.start, advice);
            }
            i += 1;
        }
    }

    /// Lets the thread through its fork; answers the child, which stands.
    fn make_child(&mut self, tid: i32) -> Option<i32> {
        trace::to_syscall(tid, 0).ok()?;
        loop {
            match wait_soon(tid) {
                Waited::Stopped { event, .. }
                    if event == trace::EVENT_FORK || event == trace::EVENT_CLONE =>
                {
                    let child = trace::event_message(tid).ok()? as i32;
                    return matches!(wait_soon(child), Waited::Stopped { .. }).then_some(child);
                }
                Waited::Stopped { signal: _, event } if event == trace::EVENT_STOP => {
                    trace::to_syscall(tid, 0).ok()?;
                }
                // The fork has failed.
                _ => return None,
            }
        }
    }

    /// Gives the standing child private copies.
    fn privatize(&mut self, child: i32) -> Sys<()> {
        let Some(shared) = shared::existing() else {
            return Ok(());
        };
        let original = trace::registers(child)?;
        let mut done = Ok(());
        let mut i = 0;
        while let (Some(r), Ok(())) = (shared.promoted.get(i), done) {
            i += 1;
            if r.origin == Origin::Private {
                done = self.privatize_range(child, &original, r.start, r.end);
            }
        }
        trace::set_registers(child, &original)?;
        done
    }

    fn privatize_range(
        &mut self,
        child: i32,
        original: &trace::Registers,
        start: usize,
        end: usize,
    ) -> Sys<()> {
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
            let mut at = lo;
            while let Some((a, b)) = mem::next_data(self.memfd, at, hi) {
                mem::copy_file_to_process(self.memfd, child, a, b - a)?;
                at = b;
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

/// Has a standing thread make one system call, and leaves it at its exit.
fn in_child(
    child: i32,
    original: &trace::Registers,
    number: libc::c_long,
    args: [u64; 6],
) -> Sys<()> {
    let mut regs = *original;
    regs.prepare_syscall(number, args);
    trace::set_registers(child, &regs)?;
    for _ in 0..2 {
        trace::to_syscall(child, 0)?;
        loop {
            match wait_soon(child) {
                Waited::Syscall => break,
                // A signal on its way: it comes again when the child runs.
                Waited::Stopped { signal, .. } => trace::to_syscall(child, signal)?,
                _ => return Err(libc::ESRCH),
            }
        }
    }
    match trace::registers(child)?.answer() {
        answer if (-4095..0).contains(&answer) => Err(-answer as i32),
        _ => Ok(()),
    }
}

/// Waits for a thread that is sure to stop soon.
fn wait_soon(tid: i32) -> Waited {
    let deadline = task::now() + SOON;
    loop {
        match trace::wait(tid) {
            Waited::Nothing if task::now() < deadline => task::await_child_stop(500),
            waited => return waited,
        }
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

/// Whether a system call makes a process with memory of its own.
fn forks(tid: i32, number: u64, args: &[u64; 6]) -> bool {
    clone_flags(tid, number, args).is_some_and(|flags| flags & libc::CLONE_VM as u64 == 0)
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
