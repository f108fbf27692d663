// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bringing the service up, once per process, at the first call that needs it.

use super::boot::Layout;
use super::{anchor, others};
use crate::errno::Errno;
use crate::user::arena::{self, born, ending, mapping, status, Command, Shared, BASE};
use crate::user::sys::{clone, mem, rights, task, valgrind, Sys};
use crate::{debug_log, environment};
use core::ffi::CStr;
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
    let mut shared = match arena::existing() {
        Some(shared) => shared,
        None => &mapping::get::<Layout>().map_err(no_memory)?.shared,
    };
    loop {
        let seen = shared.status.load(Ordering::Acquire);
        match seen {
            status::RUNNING => return Ok(shared),
            status::FAILED => return Err(Errno::ENOSYS),
            status::STARTING | status::ENDING => {
                task::futex_wait(&shared.status, seen, 100);
            }
            status::DEAD => {
                if STARTED.fetch_add(1, Ordering::Relaxed) >= STARTS {
                    return Err(Errno::ENOSYS);
                }
                shared = &mapping::renew::<Layout>(shared).map_err(no_memory)?.shared;
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

/// What an errno of mmap becomes, that no caller would understand.
fn no_memory(errno: Errno) -> Errno {
    debug_log!("no memory for the user back end: errno {errno}");
    Errno::ENOSYS
}

/// The running back end, with the rights that the calling thread has.
pub fn running_with_same_rights() -> Sys<&'static Shared> {
    for _ in 0..STARTS {
        let shared = running()?;
        if shared.has_same_rights() {
            return Ok(shared);
        }
        // It answers by its end.
        let _ = shared.call(Command::Rights {
            tid: task::gettid(),
        });
    }
    Err(Errno::ENOSYS)
}

fn begin(shared: &Shared) -> Sys<()> {
    if !crate::user::sys::supported_page_size() {
        return Err(Errno::ENOSYS);
    }
    if EXITING.load(Ordering::Acquire) {
        return Err(Errno::ENOSYS);
    }
    if valgrind::is_here() {
        debug_log!("valgrind runs this program: nothing can be shared");
        return Err(Errno::ENOSYS);
    }
    if is_short_of_locked_memory() {
        debug_log!("all memory is locked (mlockall), up to a limit: nothing can be shared");
        return Err(Errno::ENOSYS);
    }
    if others::another(0, u32::MAX).is_some() {
        debug_log!("another copy of this library serves this program");
        return Err(Errno::ENOSYS);
    }
    note_folder(shared)?;
    shared.note_rights();
    let wait = environment::get(&environment::WAIT);
    let wait = wait.and_then(|text| nanoseconds(text.to_bytes()));
    let wait = wait.unwrap_or(WAIT);
    shared.wait.store(wait, Ordering::Relaxed);
    let born = environment::get(&environment::BORN).map(CStr::to_bytes);
    if born.is_some_and(|text| !born::is_understood(text)) {
        debug_log!(
            "XPMEM_BORN is none of off, learned and a number: nothing is shared from the start"
        );
    }
    shared.born.set_mode(born::mode(born));
    shared
        .program
        .store(crate::rawsys::getpid() as u32, Ordering::Release);
    if !AT_FORK.swap(true, Ordering::AcqRel) {
        crate::user::hooks::fork::install();
    }
    if let Some(arena) = mapping::existing::<Layout>() {
        // SAFETY: this thread alone starts the service, which takes them once it runs.
        *unsafe { arena.hooks.take() } = crate::user::hooks::Hooks::prepare();
    }
    clone::spawn_sibling(mapping::anchor_stack_top(), anchor::main, 0).map(drop)
}

/// Tells the service where the folder is to be, if the user has said it.
fn note_folder(shared: &Shared) -> Sys<()> {
    let Some(path) = environment::get(&environment::DIR).map(CStr::to_bytes) else {
        return Ok(());
    };
    if !path.starts_with(b"/") || path.len() >= BASE {
        let length = path.len();
        debug_log!("XPMEM_DIR must be an absolute path below {BASE} bytes: it has {length}");
        return Err(Errno::ENOSYS);
    }
    for (i, word) in shared.base.iter().enumerate() {
        let byte = |k: usize| path.get(i * 8 + k).copied().unwrap_or(0);
        let bytes: [u8; 8] = core::array::from_fn(byte);
        word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
    }
    Ok(())
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

/// Whether each mapping from now on is locked and counts against a limit: one
/// that a peer asks for would fail then, when it is too late to say so.
fn is_short_of_locked_memory() -> bool {
    let here = mapping::range().start();
    mem::is_locked(here) && !rights::may_lock_all()
}

/// Runs when all of the program's own handlers have run at its exit. A service
/// that outlived it would be left to a parent that may not wait for it.
extern "C" fn leave() {
    const PATIENCE: u64 = 5_000_000_000;
    EXITING.store(true, Ordering::Release);
    let Some(shared) = arena::existing().filter(|shared| shared.is_running()) else {
        return;
    };
    // The child of a vfork has its parent's memory.
    if shared.program.load(Ordering::Acquire) != crate::rawsys::getpid() as u32 {
        return;
    }
    shared.ending.fetch_max(ending::EXIT, Ordering::AcqRel);
    shared.ring();
    let patience = task::now() + PATIENCE;
    loop {
        let seen = shared.status.load(Ordering::Acquire);
        if matches!(seen, status::FAILED | status::DEAD) || task::now() > patience {
            return;
        }
        task::futex_wait(&shared.status, seen, 100);
    }
}

/// The program is at its end: nothing is begun any more.
static EXITING: AtomicBool = AtomicBool::new(false);

#[used]
#[link_section = ".fini_array"]
static LEAVE: extern "C" fn() = leave;

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
