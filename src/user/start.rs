// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bringing the service up, once per process, at the first call that needs it.

use super::shared::{self, status, Shared};
use super::sys::{arena, task, Sys};
use super::{anchor, fork, rendezvous};
use crate::debug_log;
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
            status::STARTING => {
                task::futex_wait(&shared.status, seen, 100);
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
    task::spawn_sibling(arena::anchor_stack_top::<Shared>(), anchor::main, 0).map(drop)
}
