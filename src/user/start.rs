// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bringing the service up, once per process, at the first call that needs it.

use super::shared::{self, status, Op, Shared};
use super::sys::{arena, task, Sys};
use super::{anchor, fork, rendezvous};
use crate::{debug_log, environment};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What is in the way of sharing is waited for so long, in nanoseconds, where
/// `XPMEM_WAIT` says nothing else.
const WAIT: u64 = 60_000_000_000;

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
    let wait = environment::get(&environment::WAIT);
    let wait = wait.and_then(|text| nanoseconds(text.to_bytes()));
    let wait = wait.unwrap_or(WAIT);
    shared.wait.store(wait, Ordering::Relaxed);
    if !AT_FORK.swap(true, Ordering::AcqRel) {
        fork::install();
    }
    *shared.hooks.take() = super::hooks::Hooks::prepare();
    task::spawn_sibling(arena::anchor_stack_top::<Shared>(), anchor::main, 0).map(drop)
}

/// Seconds, with a fraction or without, as nanoseconds. `None` if it is neither.
fn nanoseconds(text: &[u8]) -> Option<u64> {
    const SECOND: u64 = 1_000_000_000;
    let point = text.iter().position(|&b| b == b'.');
    let (whole, fraction) = text.split_at(point.unwrap_or(text.len()));
    let fraction = if point.is_some() {
        &fraction[1..]
    } else {
        b"0"
    };
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let digit = |b: u8| u64::from(b - b'0');
    let mut time = 0u64;
    for &b in whole {
        time = time.checked_mul(10)?.checked_add(digit(b))?;
    }
    time = time.checked_mul(SECOND)?;
    let mut unit = SECOND;
    for &b in fraction {
        unit /= 10;
        time = time.checked_add(unit * digit(b))?;
    }
    Some(time)
}

#[cfg(test)]
mod tests {
    use super::nanoseconds;

    #[test]
    fn times_are_seconds_with_a_fraction() {
        assert_eq!(nanoseconds(b"0"), Some(0));
        assert_eq!(nanoseconds(b"60"), Some(60_000_000_000));
        assert_eq!(nanoseconds(b"0.25"), Some(250_000_000));
        assert_eq!(nanoseconds(b"1.0000000001"), Some(1_000_000_000));
        for wrong in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "1 ",
            "1.2.3",
            "inf",
            "99999999999999",
        ] {
            assert_eq!(nanoseconds(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
