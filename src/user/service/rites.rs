// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a service before its program's.
//!
//! A task that shares the program's memory must not have rights that the program
//! has given away: who takes over the program could take over that task. So the
//! service compares, and ends where they differ; and it may be killed or get
//! stuck. Either way the program goes on, and nobody may go on with its memory:
//!
//! - as an attacher: what is attached is severed, before anything else. A touch
//!   of it is SIGBUS from then on. Unwatched, the pages of the file would be seen
//!   that the owner has not made ready, and stores to them would be lost;
//! - as an owner: what is promoted becomes private memory again, with its
//!   content, and peers are cut off.
//!
//! The service does that itself, or after it a task that the anchor starts in
//! its place, which has its descriptors and its state.

#![forbid(unsafe_code)]

use super::others;
use crate::debug_log;
use crate::errno::Errno;
use crate::user::arena::ranges::Origin;
use crate::user::arena::{ending, status, Shared};
use crate::user::program::alarm;
use crate::user::program::threads::Standing;
use crate::user::service::boot::{await_permission, take_over};
use crate::user::service::state::Service;
use crate::user::sys::maps::Mapping;
use crate::user::sys::rights::{Difference, Rights};
use crate::user::sys::{held, mem, task, Span, Sys, TOP};
use core::ffi::CStr;
use core::sync::atomic::Ordering;

/// Nanoseconds between two looks at the program's rights.
const BETWEEN_LOOKS: u64 = 100_000_000;

/// How many threads are looked at at a time, beside the first one.
const AT_A_TIME: usize = 8;

/// How often it is tried to stop the threads for the last time.
const TRIES: u32 = 250;

/// What is made private at a time: for a moment it is there twice.
const PART: usize = 64 << 20;

/// Name of the file in the place of what was attached, and its path.
pub const GONE: &CStr = c"xpmem-gone";
const GONE_PATH: &[u8] = b"/memfd:xpmem-gone";

/// Entry of the task that ends what a service has left.
pub extern "C" fn main(_argument: usize) -> ! {
    if let Some((shared, service)) = take_over() {
        let prepared = task::signal_on_parent_death(libc::SIGKILL);
        task::set_name(task::SERVICE);
        task::own_session();
        task::announce_child_stops();
        let _ = prepared.and_then(|()| alarm::prepare(service.owner.program.tgid()));
        await_permission(shared);
        service.peers.enter_folder();
        service.forget_stops();
        if let Err(errno) = service.owner.program.space.reopen() {
            debug_log!("what is mapped cannot be seen: errno {errno}");
        }
        service.owner.end_exchange(shared);
        service.last_rites(shared);
    }
    task::exit(0)
}

impl Service {
    /// Whether somebody has decided that this service ends.
    pub fn is_to_end(&self, shared: &Shared) -> bool {
        shared.ending.load(Ordering::Acquire) != ending::NONE
    }

    /// Compares the rights of the program's threads with this task's, if that was
    /// not done just now: of the first, and of some others in turn.
    pub fn look_at_rights(&mut self, shared: &Shared) {
        let now = task::now();
        if now - self.looked < BETWEEN_LOOKS {
            return;
        }
        self.looked = now;
        let first = self.look_from;
        let mut count = 0;
        let mut worst = self.difference(self.owner.program.tgid());
        for tid in self.owner.program.tids() {
            if (first..first + AT_A_TIME).contains(&count) {
                worst = worst.max(self.difference(tid));
            }
            count += 1;
        }
        let next = first + AT_A_TIME;
        self.look_from = if next < count { next } else { 0 };
        self.end_for(shared, worst);
    }

    /// Whether all threads may do what this task may.
    pub fn compare_all(&mut self) -> Sys<()> {
        self.rights = Some(Rights::of(task::own_pid()).ok_or(Errno::ENOSYS)?);
        let mut tasks = self.owner.program.tids();
        for tid in tasks.by_ref() {
            if self.difference(tid) != Difference::None {
                debug_log!("thread {tid} has rights of its own: nothing can be shared");
                return Err(Errno::EPERM);
            }
        }
        if tasks.is_cut() {
            return Err(Errno::EAGAIN);
        }
        let own = self.owner.program.anchor();
        if others::first_named(self.owner.program.task_dir(), own, own as u32).is_some() {
            debug_log!("another copy of this library serves this program");
            return Err(Errno::EBUSY);
        }
        Ok(())
    }

    fn difference(&self, tid: i32) -> Difference {
        match (&self.rights, Rights::of(tid)) {
            (Some(own), Some(theirs)) => own.difference(&theirs),
            _ => Difference::None,
        }
    }

    /// Thread `tid` says that its rights have changed.
    pub fn on_other_rights(&mut self, shared: &Shared, tid: i32) {
        // What is not shown has changed, too.
        let least = Difference::Credentials;
        self.end_for(shared, self.difference(tid).max(least));
    }

    fn end_for(&self, shared: &Shared, difference: Difference) {
        let ending = match difference {
            Difference::None => return,
            Difference::Credentials => ending::AGAIN,
            Difference::Filters => ending::NEVER,
        };
        debug_log!("the program's rights have changed: the service ends");
        shared.ending.fetch_max(ending, Ordering::AcqRel);
    }

    /// The task that was stopping threads is gone, and the kernel has let them go.
    fn forget_stops(&mut self) {
        self.owner.program.threads.forget();
        self.owner.program.forks.forget();
        self.owner.forget_unread();
        self.owner.debts.forget();
        self.paying = false;
        self.owner.program.hold(false);
    }

    /// Gives back what this process has and what it has given.
    pub fn last_rites(&mut self, shared: &Shared) {
        shared.status.store(status::ENDING, Ordering::Release);
        let exits = shared.ending.load(Ordering::Acquire) == ending::EXIT;
        if exits && !self.owner.program.attachments.any(|_| true) {
            // What is shared of this program's own goes with it.
            self.peers
                .unlink_socket(self.owner.program.knows_the_module());
            shared.settled.store(1, Ordering::Release);
            return;
        }
        self.leave_fork();
        let standing = self.insist_on_stop(TRIES);
        self.pay_debts();
        self.sever_all(standing.is_some());
        if let Some(standing) = standing {
            if !exits {
                self.take_all_back(&standing, shared);
            }
            self.owner.resume(standing);
        } else {
            debug_log!("the threads cannot be stopped: what was shared stays in place");
        }
        self.peers
            .unlink_socket(self.owner.program.knows_the_module());
        shared.settled.store(1, Ordering::Release);
    }

    /// Puts something whose touch is SIGBUS in the place of every attachment.
    fn sever_all(&mut self, stopped: bool) {
        self.on_faults();
        // No descriptor may be left but this.
        self.owner.program.spare.give_up();
        let mut at = 0;
        while let Some(piece) = self.owner.program.attachments.next_from(at) {
            at = piece.end;
            let Ok(empty) = mem::memfd(GONE) else {
                return;
            };
            self.owner
                .program
                .for_mapped_parts(piece, &mut |program, mapped| {
                    let (start, len) = (mapped.start(), mapped.len());
                    task::beat();
                    if !stopped {
                        // Else it could be touched between the two.
                        let _ = held::protect(start, len, libc::PROT_NONE);
                    }
                    let _ = program.touches().ensure_unwatched(mapped);
                    let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
                    // A store is SIGBUS too, and not SIGSEGV.
                    let prot = libc::PROT_READ | libc::PROT_WRITE;
                    let _ = held::map(start, len, prot, flags, empty.fd(), start - piece.start);
                });
        }
    }

    /// Unmaps what an earlier service of this process has left in the place of
    /// the attachment that held `addr`; whether there was any.
    pub fn unmap_severed(&mut self, addr: usize, found: &Mapping) -> bool {
        let mut name = [0u8; 4096];
        let path = self.owner.program.space.path_at(addr, &mut name);
        if !path.is_some_and(|path| path.to_bytes().starts_with(GONE_PATH)) {
            return false;
        }
        // Each has a file of its own, from its first page on.
        let mut at = found.start.saturating_sub(found.offset);
        while let Ok(Some(m)) = self.owner.program.space.find(at) {
            if (m.device, m.inode) != (found.device, found.inode) {
                break;
            }
            let _ = held::unmap(m.start, m.end - m.start);
            at = m.end;
        }
        true
    }

    /// Makes everything private again that has been promoted, with all threads
    /// standing.
    fn take_all_back(&mut self, standing: &Standing, shared: &Shared) {
        let (mut rest, mut all) = (Span::new(0, TOP), true);
        while let Some(range) = shared.promoted.first_in(rest) {
            let part = range.span().cut_to(Span::of(range.start, PART));
            task::beat();
            if range.origin != Origin::Lent {
                if let Err(errno) = self.owner.demote(standing, shared, part) {
                    let start = range.start;
                    all = false;
                    debug_log!("{start:#x} stays in the shared file: errno {errno}");
                }
            }
            rest = rest.from(part.end());
        }
        // What was about to be taken from attachers when a service was killed is in no
        // range any more.
        if all {
            let _ = mem::punch(self.owner.memfd(), 0, TOP);
        }
    }
}
