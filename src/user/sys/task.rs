// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tasks, signals, futexes and time.

#![forbid(unsafe_code)]

use super::{owned, sys, Sys};
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use core::ffi::{c_int, CStr};
use core::sync::atomic::{AtomicU32, Ordering};

/// Moves on as long as the service does anything. Who watches over it takes it
/// for stuck where this stands still.
pub static BEAT: AtomicU32 = AtomicU32::new(0);

/// The service is not stuck.
pub fn beat() {
    BEAT.fetch_add(1, Ordering::Relaxed);
}

/// All signals, as a mask.
pub const ALL_SIGNALS: u64 = u64::MAX;

const fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

/// Comes when the thread that started the service is gone.
pub const PARENT_GONE: c_int = libc::SIGTERM;

/// Rings at the service. A stranger that has got its number meanwhile ignores it.
pub const BELL: c_int = libc::SIGURG;

pub fn gettid() -> i32 {
    crate::rawsys::gettid()
}

pub fn geteuid() -> u32 {
    sys!(libc::SYS_geteuid).unwrap_or(usize::MAX) as u32
}

/// Waits while `word` is `value`, at most `ms` milliseconds; may return early.
/// Whether the time has passed.
pub fn futex_wait(word: &AtomicU32, value: u32, ms: u64) -> bool {
    let time = libc::timespec {
        tv_sec: (ms / 1000) as _,
        tv_nsec: (ms % 1000 * 1_000_000) as _,
    };
    let waited = sys!(
        libc::SYS_futex,
        word.as_ptr(),
        libc::FUTEX_WAIT,
        value,
        &raw const time,
        0,
        0
    );
    waited == Err(Errno::ETIMEDOUT)
}

/// Wakes everybody who waits on `word`. Not a private futex: the service is
/// another process on the same memory.
pub fn futex_wake(word: &AtomicU32) {
    let _ = sys!(
        libc::SYS_futex,
        word.as_ptr(),
        libc::FUTEX_WAKE,
        i32::MAX,
        0,
        0,
        0
    );
}

/// Sends a signal to one task; 0 asks whether it is there.
pub fn signal_task(tgid: i32, tid: i32, signal: c_int) -> Sys<()> {
    sys!(libc::SYS_tgkill, tgid, tid, signal).map(drop)
}

/// Replaces the caller's signal mask; answers the old one.
pub fn set_signal_mask(mask: u64) -> u64 {
    change_signal_mask(libc::SIG_SETMASK, mask)
}

/// Adds signals to the caller's mask; answers the old one.
pub fn block_signals(mask: u64) -> u64 {
    change_signal_mask(libc::SIG_BLOCK, mask)
}

fn change_signal_mask(how: c_int, mask: u64) -> u64 {
    let mut old = 0u64;
    let _ = sys!(
        libc::SYS_rt_sigprocmask,
        how,
        &raw const mask,
        &raw mut old,
        8
    );
    old
}

/// Lets a signal through to the calling thread.
pub fn unblock_signal(signal: c_int) {
    let mask = bit(signal);
    let _ = sys!(
        libc::SYS_rt_sigprocmask,
        libc::SIG_UNBLOCK,
        &raw const mask,
        0,
        8
    );
}

/// Gives SIGCHLD its default disposition in the calling process: then stops
/// of traced threads are announced.
pub fn announce_child_stops() {
    let action = [0u64; 4];
    let _ = sys!(libc::SYS_rt_sigaction, libc::SIGCHLD, action.as_ptr(), 0, 8);
}

/// A descriptor from which the service's signals are read.
pub fn signal_descriptor() -> Sys<OwnedFd> {
    let mask = bit(PARENT_GONE) | bit(libc::SIGCHLD) | bit(BELL);
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    sys!(libc::SYS_signalfd4, -1isize, &raw const mask, 8, flags).map(owned)
}

/// The next signal from [`signal_descriptor`].
pub fn read_signal(fd: Fd) -> Sys<c_int> {
    let mut info = [0u32; 32];
    sys!(libc::SYS_read, fd, info.as_mut_ptr(), 128).map(|_| info[0] as c_int)
}

/// Waits for the stop of a traced thread, at most `us` microseconds.
pub fn await_child_stop(us: u64) {
    beat();
    let mask = bit(libc::SIGCHLD);
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: (us * 1000) as _,
    };
    let _ = sys!(
        libc::SYS_rt_sigtimedwait,
        &raw const mask,
        0,
        &raw const time,
        8
    );
}

/// How many processors the caller may run on; 1 where that is not to be had.
pub fn processors_allowed() -> u32 {
    let mut mask = [0u64; 128];
    let size = core::mem::size_of_val(&mask);
    match sys!(libc::SYS_sched_getaffinity, 0, size, mask.as_mut_ptr()) {
        Ok(_) => mask.iter().map(|word| word.count_ones()).sum(),
        Err(_) => 1,
    }
}

/// A descriptor that becomes readable when process `pid` is gone.
pub fn pidfd(pid: i32) -> Sys<OwnedFd> {
    sys!(libc::SYS_pidfd_open, pid, 0).map(owned)
}

/// A copy of the descriptor with this number of another process that may be traced.
pub fn descriptor_of(pidfd: Fd, number: c_int) -> Sys<OwnedFd> {
    sys!(libc::SYS_pidfd_getfd, pidfd, number, 0).map(owned)
}

/// Whether a descriptor is of a process.
pub fn is_pidfd(fd: Fd) -> bool {
    sys!(libc::SYS_pidfd_send_signal, fd, 0, 0, 0) != Err(Errno::EBADF)
}

/// Sent to the caller when the thread that made it is gone.
pub fn signal_on_parent_death(signal: c_int) -> Sys<()> {
    sys!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, signal, 0, 0, 0).map(drop)
}

/// What a service is called.
pub const SERVICE: &CStr = c"xpmem-service";

pub fn set_name(name: &CStr) {
    let _ = sys!(libc::SYS_prctl, libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0);
}

/// Lets `pid` trace the calling process where the Yama module is in the way.
pub fn allow_tracer(pid: i32) {
    const PR_SET_PTRACER: usize = 0x5961_6d61;
    let _ = sys!(libc::SYS_prctl, PR_SET_PTRACER, pid, 0, 0, 0);
}

/// A session of one's own: no signal to the program's group comes here.
pub fn own_session() {
    let _ = sys!(libc::SYS_setsid);
}

/// A descriptor table of one's own.
pub fn own_descriptors() -> Sys<()> {
    sys!(libc::SYS_unshare, libc::CLONE_FILES).map(drop)
}

/// Closes `first..=last`.
pub fn close_range(first: u32, last: u32) {
    if sys!(libc::SYS_close_range, first, last, 0).is_err() {
        for fd in first..=last.min(65_535) {
            drop(owned(fd as usize));
        }
    }
}

pub fn exit(code: c_int) -> ! {
    loop {
        let _ = sys!(libc::SYS_exit_group, code);
    }
}

/// Ends the calling thread alone.
pub fn exit_thread() -> ! {
    loop {
        let _ = sys!(libc::SYS_exit, 0);
    }
}

/// Whether child `pid` is gone, also if somebody else has waited for it.
pub fn reap(pid: i32) -> bool {
    !matches!(
        sys!(libc::SYS_wait4, pid, 0, libc::__WALL | libc::WNOHANG, 0),
        Ok(0) | Err(Errno::EINTR)
    )
}

/// Whether child `pid` stands, by SIGSTOP or its like. It is left to be told
/// to others.
pub fn is_stopped(pid: i32) -> bool {
    news_of(pid, libc::WSTOPPED) == Some(libc::CLD_STOPPED)
}

/// What has become of child or traced thread `id`, of the kinds in `flags`, without
/// waiting for it. It is left to be told again.
pub fn news_of(id: i32, flags: c_int) -> Option<i32> {
    let flags = flags | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // Signal, errno, and what has become of it.
    let mut info = [0i32; 32];
    let at = info.as_mut_ptr();
    sys!(libc::SYS_waitid, libc::P_PID, id, at, flags, 0).ok()?;
    Some(info[2])
}

/// A counter that is read and polled: what has been added since the last look.
pub fn counter() -> Sys<OwnedFd> {
    let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
    sys!(libc::SYS_eventfd2, 0, flags).map(owned)
}

/// Adds one to a [`counter`].
pub fn count_up(counter: Fd) {
    let one = 1u64;
    let _ = sys!(libc::SYS_write, counter, &raw const one, 8);
}

/// Takes what a [`counter`] has.
pub fn count_down(counter: Fd) {
    let mut value = 0u64;
    let _ = sys!(libc::SYS_read, counter, &raw mut value, 8);
}

/// Monotonic time in nanoseconds.
pub fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let _ = sys!(
        libc::SYS_clock_gettime,
        libc::CLOCK_MONOTONIC,
        &raw mut time
    );
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Fills `bytes` from the kernel's random numbers.
pub fn random(bytes: &mut [u8]) -> Sys<()> {
    match sys!(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), 0)? {
        n if n == bytes.len() => Ok(()),
        _ => Err(Errno::EAGAIN),
    }
}

/// The limit on a resource, soft and hard.
pub fn limit(resource: u32) -> Option<[u64; 2]> {
    let mut limit = [0u64; 2];
    sys!(libc::SYS_prlimit64, 0, resource, 0, limit.as_mut_ptr()).ok()?;
    Some(limit)
}

fn set_limit(resource: u32, limit: [u64; 2]) {
    let _ = sys!(libc::SYS_prlimit64, 0, resource, limit.as_ptr(), 0);
}

/// Raises the soft limit on file sizes to the hard one for the caller's
/// process, runs `body`, and puts it back.
pub fn with_file_size_limit_lifted<T>(body: impl FnOnce() -> T) -> T {
    let resource = libc::RLIMIT_FSIZE;
    let Some(old) = limit(resource).filter(|old| old[0] != u64::MAX) else {
        return body();
    };
    set_limit(resource, [old[1], old[1]]);
    let answer = body();
    set_limit(resource, old);
    answer
}

/// Reads what fits of a small file; answers how much that was.
pub fn read_text(fd: Fd, into: &mut [u8]) -> usize {
    sys!(libc::SYS_read, fd, into.as_mut_ptr(), into.len()).unwrap_or(0)
}

/// Process id of the parent.
pub fn parent() -> i32 {
    sys!(libc::SYS_getppid).unwrap_or(0) as i32
}

/// Process id of the caller.
pub fn own_pid() -> i32 {
    crate::rawsys::getpid()
}

/// dup2(2).
pub fn duplicate_to(fd: Fd, to: c_int) {
    let _ = sys!(libc::SYS_dup3, fd, to, 0);
}

/// As many descriptors as the caller's process may have. A peer takes three.
pub fn lift_descriptor_limit() {
    if let Some([_, hard]) = limit(libc::RLIMIT_NOFILE) {
        set_limit(libc::RLIMIT_NOFILE, [hard, hard]);
    }
}
