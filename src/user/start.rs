// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bringing the service up, once per process, at the first call that needs it.

use super::shared::{self, status, Op, Shared};
use super::sys::{arena, task, Sys};
use super::{anchor, fork, rendezvous};
use crate::debug_log;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Whether fork() of libc calls us. A child inherits that.
static AT_FORK: AtomicBool = AtomicBool::new(false);

/// How often a service is started anew in the life of a process.
const STARTS: u32 = 16;

static STARTED: AtomicU32 = AtomicU32::new(0);

/// The running back end of this process, started where it is not running yet.
///
/// Concurrent first callers wait for the one that starts it.
pub fn running() -> Sys<&'static Shared> {
    let mut shared = match shared::existing() {
        Some(shared) => shared,
        None => arena::get::<Shared>()?,
    };
    loop {
        let seen = shared.status.load(Ordering::Acquire);
        match seen {
            status::RUNNING => return Ok(shared),
            status::FAILED => return Err(libc::ENOSYS),
            status::STARTING | status::ENDING => {
                task::futex_wait(&shared.status, seen, 100);
            }
            status::DEAD => {
                if STARTED.fetch_add(1, Ordering::Relaxed) >= STARTS {
                    return Err(libc::ENOSYS);
                }
                shared = arena::renew::<Shared>(shared)?;
            }
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

/// The running back end, with the rights that the calling thread has.
pub fn running_with_same_rights() -> Sys<&'static Shared> {
    for _ in 0..STARTS {
        let shared = running()?;
        if shared.has_same_rights() {
            return Ok(shared);
        }
        // It answers by its end.
        let _ = shared.call(Op::Rights, [task::gettid() as u64, 0, 0, 0, 0]);
    }
    Err(libc::ENOSYS)
}

fn begin(shared: &Shared) -> Sys<()> {
    if !super::sys::supported_page_size() {
        return Err(libc::ENOSYS);
    }
    rendezvous::prepare(shared)?;
    shared.note_rights();
    if !AT_FORK.swap(true, Ordering::AcqRel) {
        fork::install();
    }
    #[cfg(target_arch = "x86_64")]
    {
        *shared.hooks.take() = super::hooks::Hooks::prepare();
    }
    task::spawn_sibling(arena::anchor_stack_top::<Shared>(), anchor::main, 0).map(drop)
}
