// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bringing the service up, once per process, at the first call that needs it.

use super::shared::{self, status, Shared};
use super::sys::{arena, task, Sys};
use super::{fork, rendezvous, service};
use crate::debug_log;
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, Ordering};

/// Whether fork() of libc calls us. A child inherits that.
static AT_FORK: AtomicBool = AtomicBool::new(false);

/// The running back end of this process, started where it is not running yet.
///
/// Concurrent first callers wait for the one that starts it.
pub fn running() -> Sys<&'static Shared> {
    let shared = match shared::existing() {
        Some(shared) => shared,
        None => arena::get::<Shared>()?,
    };
    loop {
        let seen = shared.status.load(Ordering::Acquire);
        match seen {
            status::RUNNING => return Ok(shared),
            status::FAILED | status::DEAD => return Err(libc::ENOSYS),
            status::STARTING => task::futex_wait(&shared.status, seen, 100),
            _ => {
                let (none, starting) = (status::NONE, status::STARTING);
                if shared
                    .status
                    .compare_exchange(none, starting, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok()
                {
                    if let Err(errno) = begin(shared) {
                        debug_log!("the user back end cannot start: errno {errno}");
                        shared.status.store(status::FAILED, Ordering::Release);
                        task::futex_wake(&shared.status);
                    }
                }
            }
        }
    }
}

fn begin(shared: &Shared) -> Sys<()> {
    if !super::sys::supported_page_size() {
        return Err(libc::ENOSYS);
    }
    rendezvous::prepare(shared)?;
    if !AT_FORK.swap(true, Ordering::AcqRel) {
        fork::install();
    }
    #[cfg(target_arch = "x86_64")]
    {
        *shared.hooks.take() = super::hooks::Hooks::prepare();
    }
    task::spawn_thread(anchor, 0)
}

/// The anchor: a thread that starts the service and then only waits for it.
/// The kernel tells the service when this thread is gone, which is when the
/// program ends or becomes another by exec. Its descriptors are its own and the
/// service's: the program has none of them, and can close none.
extern "C" fn anchor(_: *mut c_void) -> *mut c_void {
    if let Some(shared) = shared::existing() {
        let [start, end] = &shared.anchor_stack;
        let stack = task::own_stack();
        start.store(stack.0, Ordering::Relaxed);
        end.store(stack.1, Ordering::Relaxed);
        shared
            .anchor_tid
            .store(task::gettid() as u32, Ordering::Release);
        if task::own_descriptors().is_err() {
            shared.abandon();
            return core::ptr::null_mut();
        }
        keep_only_standard_error();
        match task::spawn_on_same_memory(arena::stack_top::<Shared>(), service::main, 0) {
            Ok(pid) => {
                shared.service_pid.store(pid as u32, Ordering::Release);
                task::allow_tracer(pid);
                shared.traceable.store(1, Ordering::Release);
                task::futex_wake(&shared.traceable);
                task::reap(pid);
                shared.service_pid.store(0, Ordering::Release);
            }
            Err(errno) => debug_log!("the service cannot be started: errno {errno}"),
        }
        if shared.status.load(Ordering::Acquire) != status::FAILED {
            debug_log!("the service is gone");
            shared.abandon();
        }
        task::futex_wake(&shared.status);
    }
    core::ptr::null_mut()
}

/// Nothing of the program's stays open here. The first three numbers are kept
/// taken, so that no descriptor of ours is ever mistaken for standard error.
fn keep_only_standard_error() {
    task::close_range(3, u32::MAX);
    if let Ok(null) = crate::rawsys::open(c"/dev/null", libc::O_RDWR, 0) {
        let standard = if crate::debug::enabled() { 2 } else { 3 };
        for fd in 0..standard {
            if fd != null {
                task::duplicate_to(null, fd);
            }
        }
        if null >= standard {
            crate::rawsys::close(null);
        }
    }
}
