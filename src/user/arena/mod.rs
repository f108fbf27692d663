// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the program's threads and the service task both touch.
//!
//! The program's threads hand commands over in slots and ring a bell: a futex,
//! which asks no permission of anybody, or a signal where there is permission. No
//! lock is shared with the service: a thread may be stopped at any instruction, by
//! the service itself, which must never wait for it.

pub mod born;
pub mod closing;
pub mod command;
pub mod copying;
pub mod mapping;
pub mod ranges;
mod slots;
mod soon;

use super::sys::{rights, task, Span, Sys};
use crate::errno::Errno;
use born::Born;
use closing::Closing;
pub use command::Command;
use copying::Copying;
use core::sync::atomic::{fence, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use mapping::Zeroable;
use ranges::Ranges;
use slots::{Claim, Progress, Slot};

/// How far the service is. A fork child starts at `NONE`: its arena is wiped.
pub mod status {
    pub const NONE: u32 = 0;
    pub const STARTING: u32 = 1;
    pub const RUNNING: u32 = 2;
    /// It did not come up, or must not again.
    pub const FAILED: u32 = 3;
    /// It has ended. The next call may start another one.
    pub const DEAD: u32 = 4;
    /// It gives back what it has.
    pub const ENDING: u32 = 5;
}

/// Why a service ends before its program does.
pub mod ending {
    pub const NONE: u32 = 0;
    /// The program's rights have changed: another one begins with the new ones.
    pub const AGAIN: u32 = 1;
    /// System calls have been forbidden to the program: nothing is begun that
    /// might be forbidden, too.
    pub const NEVER: u32 = 2;
    /// The program is about to end.
    pub const EXIT: u32 = 3;
}

/// Answer to a command that came too late for this service.
pub const OVER: Errno = Errno::ERESTART;

/// How many commands can be on their way at a time.
pub const SLOTS: usize = 128;

/// A thread that is inside a memory call of libc on this range: the range is
/// not promoted meanwhile.
pub struct Guard {
    pub taken: AtomicU32,
    pub start: AtomicUsize,
    pub end: AtomicUsize,
}

/// How many threads can be inside such calls at a time; more are served by the
/// events of the kernel alone.
pub const GUARDS: usize = 256;

/// Longest path of the folder of folders, terminator included.
pub const BASE: usize = 512;

/// What the program's threads and the service share, all zero at first. Behind it
/// stands what only the service knows.
#[repr(C)]
pub struct Shared {
    pub status: AtomicU32,
    /// Why the service failed to start.
    pub failure: AtomicU32,
    pub service_pid: AtomicU32,
    pub anchor_tid: AtomicU32,
    /// The anchor has allowed the service to trace this process.
    pub traceable: AtomicU32,
    /// The bell: odd while the service lives. The program's threads add 2, and
    /// the anchor sleeps on it. At the end of the service the kernel makes it 0.
    pub bell: AtomicU32,
    /// Where the anchor passes the bell on to the service: a descriptor of theirs.
    pub bell_counter: AtomicI32,
    /// The program, as it counts itself.
    pub program: AtomicU32,
    /// One of [`ending`].
    pub ending: AtomicU32,
    /// The service has given back what it had.
    pub settled: AtomicU32,
    /// What the thread that started the service may do.
    pub rights: AtomicU64,
    /// Whether [`rights::may_inspect`] tells anything here.
    pub inspects: AtomicU32,
    /// What the user has asked for as the folder of folders, a C string.
    pub base: [AtomicU64; BASE / 8],
    /// How long what is in the way of sharing is waited for, in nanoseconds.
    pub wait: AtomicU64,
    pub slots: [Slot; SLOTS],
    pub guards: [Guard; GUARDS],
    pub promoted: Ranges,
    /// The thread that is watched on its way into a fork.
    pub forking: AtomicU32,
    /// What new mappings are to be shared from the start.
    pub born: Born,
    pub copying: Copying,
    pub closing: Closing,
}

// SAFETY: atomics alone; the arena's layout begins with it.
unsafe impl Zeroable for Shared {}

/// The state, if this process ever started the back end.
#[inline]
pub fn existing() -> Option<&'static Shared> {
    mapping::existing()
}

impl Shared {
    /// Whether the service serves this process.
    #[inline]
    pub fn is_running(&self) -> bool {
        self.status.load(Ordering::Acquire) == status::RUNNING
    }

    /// Hands a command to the service and waits for its answer: as long as the
    /// service lives, which the anchor sees to ([`super::service::anchor`]).
    pub fn call(&self, command: Command) -> Sys<u64> {
        self.call_by(Self::ring, command)
    }

    /// As [`Self::call`], for a thread that [has the same rights](Self::has_same_rights):
    /// the bell need not be passed on.
    pub fn call_with_same_rights(&self, command: Command) -> Sys<u64> {
        self.call_by(Self::signal, command)
    }

    fn call_by(&self, ring: impl Fn(&Self), command: Command) -> Sys<u64> {
        let claim = self.claim()?;
        claim.fill(command);
        ring(self);
        loop {
            match claim.progress() {
                Progress::Answered(answer) => return answer,
                Progress::Lost => return Err(OVER),
                _ if self.is_over() => {
                    claim.leave();
                    return Err(OVER);
                }
                Progress::Ready(word) | Progress::Busy(word) => claim.wait(word, 1000),
            }
        }
    }

    fn claim(&self) -> Sys<Claim<'_>> {
        // Naps, and how many there are between two looks for abandoned places.
        const NAP: u64 = 50;
        const LOOK: u64 = 1000;
        let mut naps = 0;
        loop {
            if let Some(claim) = self.slots.iter().find_map(Slot::claim) {
                return Ok(claim);
            }
            if self.is_over() {
                return Err(OVER);
            }
            crate::rawsys::sleep(core::time::Duration::from_micros(NAP));
            naps += 1;
            if naps % LOOK == 0 {
                if let Some(claim) = self.slots.iter().find_map(Slot::claim_abandoned) {
                    return Ok(claim);
                }
            }
        }
    }

    /// Wakes the service. It needs no right to signal anybody, which a program
    /// can lose or give away.
    pub fn ring(&self) {
        self.bell.fetch_add(2, Ordering::Release);
        task::futex_wake(&self.bell);
    }

    /// Wakes the service by a signal where that is known to be allowed.
    fn signal(&self) {
        let pid = self.service_pid.load(Ordering::Acquire) as i32;
        let known = self.inspects.load(Ordering::Acquire) != 0 && pid > 0;
        if !known || task::signal_task(pid, pid, task::BELL).is_err() {
            self.ring();
        }
    }

    /// Whether nobody will answer a command any more.
    fn is_over(&self) -> bool {
        matches!(
            self.status.load(Ordering::Acquire),
            status::DEAD | status::FAILED
        )
    }

    /// The next command that nobody has taken yet. For the service task.
    pub fn take(&self, from: usize) -> Option<(usize, Option<Command>)> {
        let mut slots = self.slots.iter().enumerate().skip(from);
        slots.find_map(|(i, slot)| Some((i, slot.take()?)))
    }

    /// Leaves command `slot` to be taken once more. For the service task.
    pub fn put_back(&self, slot: usize) {
        if let Some(slot) = self.slots.get(slot) {
            slot.put_back();
        }
    }

    /// Answers command `slot`. For the service task.
    pub fn finish(&self, slot: usize, answer: Sys<u64>) {
        if let Some(slot) = self.slots.get(slot) {
            slot.finish(answer);
        }
    }

    /// The service is gone: nobody waits for it any more.
    pub fn end(&self) {
        // What did not come up once does not the next time.
        let seen = self.status.load(Ordering::Acquire);
        let never = self.ending.load(Ordering::Acquire) >= ending::NEVER
            || matches!(seen, status::FAILED | status::STARTING);
        let last = if never { status::FAILED } else { status::DEAD };
        self.status.store(last, Ordering::Release);
        task::futex_wake(&self.status);
        for slot in &self.slots {
            slot.wake();
        }
    }

    /// Takes note of what the calling thread may do, who starts the service.
    pub fn note_rights(&self) {
        self.rights.store(rights::own(), Ordering::Release);
    }

    /// Whether the calling thread may do what the service may.
    pub fn has_same_rights(&self) -> bool {
        rights::own() == self.rights.load(Ordering::Acquire)
            && (self.inspects.load(Ordering::Acquire) == 0 || self.may_inspect())
    }

    /// Rights that are shown nowhere (Landlock's) keep a thread from a look at a
    /// service that has more.
    pub fn may_inspect(&self) -> bool {
        let pid = self.service_pid.load(Ordering::Acquire) as i32;
        rights::may_inspect(pid)
    }

    /// Takes note that the calling thread is about to change `span`.
    /// `None` where there is no room for the note. A guard that is never
    /// released (a signal handler may jump out of a memory call) keeps its range
    /// from being promoted, and nothing worse.
    pub fn guard(&self, span: Span) -> Option<&Guard> {
        for guard in &self.guards[..crate::testing::places(GUARDS)] {
            let (free, taken) = (0, 1);
            if guard.taken.load(Ordering::Relaxed) == free
                && guard
                    .taken
                    .compare_exchange(free, taken, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
            {
                guard.start.store(span.start(), Ordering::SeqCst);
                guard.end.store(span.end(), Ordering::SeqCst);
                fence(Ordering::SeqCst);
                return Some(guard);
            }
        }
        None
    }

    /// The guard at an address that [`Self::guard`] gave out.
    pub fn guard_at(&self, address: usize) -> Option<&Guard> {
        let first = self.guards.as_ptr().expose_provenance();
        self.guards
            .get(address.checked_sub(first)? / core::mem::size_of::<Guard>())
    }

    /// Whether a thread is inside a memory call on part of `span`. For the service
    /// task, while it has all threads stopped.
    pub fn guarded(&self, span: Span) -> bool {
        self.guards.iter().any(|guard| {
            guard.taken.load(Ordering::SeqCst) != 0
                && guard.start.load(Ordering::SeqCst) < span.end()
                && guard.end.load(Ordering::SeqCst) > span.start()
        })
    }
}

impl Guard {
    /// The change is done.
    pub fn release(&self) {
        self.end.store(0, Ordering::SeqCst);
        self.taken.store(0, Ordering::SeqCst);
    }
}
