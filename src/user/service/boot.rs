// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts the service: opens what it needs, and probes what this kernel has.

use crate::errno::Errno;
use crate::fd::Fd;
use crate::user::arena::born::OFF;
use crate::user::arena::mapping::{self, ServiceOnly, Zeroable};
use crate::user::arena::{self, status, Shared};
use crate::user::hooks::Hooks;
use crate::user::owner::born;
use crate::user::peers::tag;
use crate::user::program::stop::Unstoppable;
use crate::user::service::state::Service;
use crate::user::sys::{task, uffd, Sys};
use crate::{debug_log, facilities};
#[cfg(feature = "fault-injection")]
use crate::{environment, user::sys::inject};
use core::ffi::CStr;
use core::sync::atomic::Ordering;

/// What the arena holds. It begins with what the program's threads use, too.
#[repr(C)]
pub struct Layout {
    pub shared: Shared,
    /// Handed over by the thread that starts the service.
    pub hooks: ServiceOnly<Hooks>,
    pub service: ServiceOnly<Service>,
}

// SAFETY: all of it is made of integers, atomics and booleans, and it is what
// `mapping::get` is called with.
unsafe impl Zeroable for Layout {}

/// Entry of the service task: `argument` is the address of nothing in
/// particular, the arena is found by itself.
pub extern "C" fn main(_argument: usize) -> ! {
    if let Some((shared, service)) = take_over() {
        if let Some(arena) = mapping::existing::<Layout>() {
            // SAFETY: the thread that made them has handed them over, and this is the
            // only task that takes them afterwards.
            core::mem::swap(&mut service.owner.hooks, unsafe { arena.hooks.take() });
        }
        match service.start(shared) {
            Ok(()) => {
                // Before anybody can ask for something: the bell rings here.
                let pid = task::own_pid() as u32;
                shared.service_pid.store(pid, Ordering::Release);
                shared.status.store(status::RUNNING, Ordering::Release);
                task::futex_wake(&shared.status);
                service.run(shared);
            }
            Err(errno) => {
                shared
                    .failure
                    .store(errno.number() as u32, Ordering::Relaxed);
                shared.status.store(status::FAILED, Ordering::Release);
                task::futex_wake(&shared.status);
            }
        }
    }
    task::exit(0)
}

/// The state of the service. For the one task that is the service, or that ends what
/// the last one has left; once in its life.
pub fn take_over() -> Option<(&'static Shared, &'static mut Service)> {
    let arena = mapping::existing::<Layout>()?;
    // SAFETY: the anchor starts these tasks, each when the one before it has ended, and
    // each calls this once.
    Some((&arena.shared, unsafe { arena.service.take() }))
}

/// Waits until the anchor has let this task trace the program.
pub fn await_permission(shared: &Shared) {
    for _ in 0..200 {
        if shared.traceable.load(Ordering::Acquire) != 0 {
            return;
        }
        task::futex_wait(&shared.traceable, 0, 10);
    }
}

impl Service {
    fn start(&mut self, shared: &Shared) -> Sys<()> {
        task::signal_on_parent_death(task::PARENT_GONE)?;
        task::set_name(task::SERVICE);
        task::own_session();
        task::lift_descriptor_limit();
        task::announce_child_stops();
        #[cfg(feature = "fault-injection")]
        inject::prepare(
            environment::get(&environment::TEST_FAULTS),
            mapping::range(),
        );
        self.peers.set_uid(task::geteuid());
        let anchor = shared.anchor_tid.load(Ordering::Acquire) as i32;
        self.owner.program.begin(anchor)?;
        self.owner.look_around();
        if born::memory_is_promised() {
            shared.born.set_mode(OFF);
        }
        self.signals = task::signal_descriptor()?.keep();
        self.bell = Fd::new(shared.bell_counter.load(Ordering::Acquire));
        self.peers.open()?;
        self.peers.watch(self.signals, tag::SIGNALS)?;
        self.peers.watch(self.bell, tag::BELL)?;
        self.open_userfaultfds()?;
        self.owner.open_memory()?;
        await_permission(shared);
        self.prove_tracing()?;
        self.compare_all()?;
        let mut path = [0u8; arena::BASE];
        for (word, to) in shared.base.iter().zip(path.chunks_exact_mut(8)) {
            to.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        let asked = CStr::from_bytes_until_nul(&path).unwrap_or(c"");
        self.peers.rendezvous(asked)?;
        self.owner.segments.set_token(self.peers.token());
        self.attacher.permits.set_token(self.peers.token());
        self.peers.watch(self.owner.program.pidfd(), tag::OWNER)?;
        self.peers
            .watch(self.owner.program.changes().fd(), tag::EVENTS)?;
        self.peers
            .watch(self.owner.program.touches().fd(), tag::FAULTS)?;
        debug_log!(
            "service of {}: precopy {}, poison {}, map queries {}",
            self.owner.program.tgid(),
            self.owner.can_precopy(),
            self.attacher.can_poison(),
            self.owner.program.space.has_query()
        );
        Ok(())
    }

    fn open_userfaultfds(&mut self) -> Sys<()> {
        const CHANGES: u64 = uffd::FEATURE_EVENT_UNMAP | uffd::FEATURE_EVENT_REMAP;
        const ON_EVENTS: u64 =
            CHANGES | uffd::FEATURE_EVENT_REMOVE | uffd::FEATURE_WP_HUGETLBFS_SHMEM;
        const ON_FAULTS: u64 = CHANGES
            | uffd::FEATURE_MISSING_SHMEM
            | uffd::FEATURE_MINOR_SHMEM
            | uffd::FEATURE_THREAD_ID
            | uffd::FEATURE_WP_HUGETLBFS_SHMEM;
        const { assert!(ON_EVENTS | ON_FAULTS == facilities::REQUIRED) };
        let mut has = uffd::features()?;
        if crate::testing::plays_old_kernel() {
            // As Linux 6.1 has them.
            has &= uffd::FEATURE_POISON - 1;
            self.owner.program.space.forget_new_ways();
        }
        if has & facilities::REQUIRED != facilities::REQUIRED {
            debug_log!("userfaultfd lacks features: has {has:#x}");
            return Err(Errno::ENOSYS);
        }
        // With asynchronous write protection any kind of file can be watched.
        let asynchronous = has & uffd::FEATURE_WP_ASYNC;
        let poison = has & uffd::FEATURE_POISON;
        // A fault inside a system call could be served too, with a privilege. But
        // a thread in such a fault cannot be stopped before it is answered, and
        // two processes that need each other's pages would wait for each other.
        let program = &mut self.owner.program;
        program.open_watches(ON_EVENTS | asynchronous, ON_FAULTS | poison)?;
        let here = mapping::range().start();
        let map_protected =
            !crate::testing::plays_old_kernel() && program.touches().can_map_protected(here);
        self.attacher.begin(poison != 0, map_protected);
        self.owner.open_precopy(has);
        Ok(())
    }

    /// Stops and releases all threads once: without that nothing works.
    fn prove_tracing(&mut self) -> Sys<()> {
        for _ in 0..50 {
            match self.owner.stop() {
                Ok(standing) => {
                    self.owner.resume(standing);
                    return Ok(());
                }
                Err(Unstoppable::Forbidden) => return Err(Errno::EPERM),
                Err(Unstoppable::Ended) => return Err(Errno::ESRCH),
                Err(Unstoppable::Busy) => {}
            }
        }
        Ok(())
    }
}
