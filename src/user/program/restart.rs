// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lets a thread go on after a stop as if there had been none.
//!
//! The kernel starts most system calls again that a stop has interrupted. Of those
//! that answer EINTR instead, the ones that wait without a limit of time are put back
//! here, and on x86_64 those with a limit in [`super::waits`].

#![forbid(unsafe_code)]

use crate::fd::Fd;
use crate::user::sys::regs::{registers, set_registers};
use crate::user::sys::trace::detach;
use crate::user::sys::Sys;
use core::ffi::c_int;

/// Lets a thread go that was stopped by [`interrupt`](crate::user::sys::trace::interrupt), as if it had not been.
/// `sleep` is what it was found in before that. ESRCH: it does not stand any
/// more, since it has been killed.
pub fn release(tid: i32, signal: c_int, sleep: &Sleep) -> Sys<()> {
    if signal == 0 {
        take_back_interruption(tid, sleep);
    }
    detach(tid, signal)
}

const IO_PGETEVENTS: i64 = if cfg!(target_arch = "aarch64") {
    292
} else {
    333
};

/// Whether a system call answers EINTR after a stop, though no signal has come,
/// and the kernel does not start it again.
///
/// Only calls that have done nothing when they answer EINTR, and wait without a
/// limit of time: with one, each stop would begin it anew.
fn waits_for_ever(number: i64, argument: impl Fn(usize) -> u64) -> bool {
    const EXT_ARG: u64 = 8;
    match number {
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait => (argument(3) as i32) < 0,
        libc::SYS_epoll_pwait => (argument(3) as i32) < 0,
        libc::SYS_epoll_pwait2 | libc::SYS_semtimedop => argument(3) == 0,
        libc::SYS_io_getevents | IO_PGETEVENTS => argument(4) == 0,
        libc::SYS_rt_sigtimedwait => argument(2) == 0,
        libc::SYS_io_uring_enter => argument(1) == 0 && argument(3) & EXT_ARG == 0,
        libc::SYS_semop => true,
        _ => false,
    }
}

/// What a seized thread sleeps in. Here the kernel says at the stop what it has
/// interrupted.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Sleep;

#[cfg(target_arch = "x86_64")]
impl Sleep {
    pub fn of(_: i32) -> Self {
        Self
    }
}

/// To be called once, with the program and a descriptor for it.
#[cfg(target_arch = "x86_64")]
pub fn prepare(tgid: i32, pidfd: Fd) {
    super::waits::prepare(tgid, pidfd);
}

/// Undoes what a stop does to such a call: told that it may the kernel starts it
/// again, and still answers EINTR where a handler runs.
#[cfg(target_arch = "x86_64")]
fn take_back_interruption(tid: i32, _: &Sleep) {
    /// The kernel's own number: start again unless a handler runs.
    const ERESTARTNOHAND: i64 = 514;
    let Ok(mut regs) = registers(tid) else {
        return;
    };
    if regs.answer() != -i64::from(libc::EINTR) {
        return;
    }
    if waits_for_ever(regs.syscall_number(), |n| regs.argument(n)) {
        regs.rax = (-ERESTARTNOHAND) as u64;
        let _ = set_registers(tid, &regs);
    } else if super::waits::begin_again(tid, &mut regs) {
        let _ = set_registers(tid, &regs);
    }
}

/// What a seized thread sleeps in, if it is such a call: looked up before its
/// stop. In the stop the kernel has forgotten which it was, a thread that a
/// handler has just come back to looks the same, and the answer stands where the
/// first argument was.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Sleep {
    /// 0 where it sleeps in nothing of interest.
    number: i64,
    arguments: [u64; 6],
    sp: u64,
    pc: u64,
    /// How often it had gone to sleep by then.
    times: u64,
}

#[cfg(target_arch = "aarch64")]
impl Sleep {
    pub fn of(tid: i32) -> Self {
        // Most threads sleep elsewhere, and need no look at the rest.
        if Self::look(tid).is_none() {
            return Self::default();
        }
        // First how often, then in what: if it wakes between the two, it has
        // slept once more than is to be.
        match (Status::of(tid), Self::look(tid)) {
            (Some(status), Some(mut sleep)) => {
                sleep.times = status.sleeps;
                sleep
            }
            _ => Self::default(),
        }
    }

    fn look(tid: i32) -> Option<Self> {
        let mut text = [0u8; 256];
        let n = read_about(tid, b"/syscall", &mut text);
        Self::parse(&text[..n]).filter(Self::can_begin_again)
    }

    /// `NUMBER` and, in hexadecimal, six arguments, the stack pointer and the
    /// address behind the call; less where it runs or waits for a page.
    fn parse(text: &[u8]) -> Option<Self> {
        let mut fields = core::str::from_utf8(text).ok()?.split_ascii_whitespace();
        let mut sleep = Self {
            number: fields.next()?.parse().ok()?,
            ..Self::default()
        };
        let words = sleep.arguments.iter_mut();
        for word in words.chain([&mut sleep.sp, &mut sleep.pc]) {
            *word = u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok()?;
        }
        Some(sleep)
    }

    /// Whether it waits for ever, and under the thread's own signal mask. With
    /// another in the call alone a signal can come at no other time, and must
    /// not be taken before it.
    fn can_begin_again(&self) -> bool {
        let mask = match self.number {
            libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => self.arguments[4],
            libc::SYS_io_uring_enter => self.arguments[4],
            IO_PGETEVENTS => self.arguments[5],
            _ => 0,
        };
        mask == 0 && waits_for_ever(self.number, |n| self.arguments[n])
    }

    /// Whether registers that came out of a stop are those of a thread that has
    /// stood in this call ever since, which it has left for the stop.
    fn is_where(&self, regs: &crate::user::sys::regs::Registers) -> bool {
        self.number == regs.syscall_number()
            && self.arguments[1..] == regs.x[1..6]
            && (self.sp, self.pc) == (regs.sp, regs.pc)
            && regs.answer() == -i64::from(libc::EINTR)
    }
}

/// Nothing to be known beforehand.
#[cfg(target_arch = "aarch64")]
pub fn prepare(_: i32, _: Fd) {}

/// What is needed to know of a thread's /proc/PID/status.
#[cfg(target_arch = "aarch64")]
struct Status {
    /// A signal waits for it.
    is_called: bool,
    /// How often it has given up the processor by itself.
    sleeps: u64,
}

#[cfg(target_arch = "aarch64")]
impl Status {
    fn of(tid: i32) -> Option<Self> {
        let mut text = [0u8; 8192];
        let n = read_about(tid, b"/status", &mut text);
        Self::parse(&text[..n])
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let value = |key: &[u8], radix| {
            let line = text.split(|&b| b == b'\n').find(|l| l.starts_with(key))?;
            let digits = core::str::from_utf8(&line[key.len()..]).ok()?;
            u64::from_str_radix(digits.trim_ascii(), radix).ok()
        };
        let pending = value(b"SigPnd:", 16)? | value(b"ShdPnd:", 16)?;
        Some(Self {
            is_called: pending & !value(b"SigBlk:", 16)? != 0,
            sleeps: value(b"voluntary_ctxt_switches:", 10)?,
        })
    }
}

#[cfg(target_arch = "aarch64")]
fn read_about(tid: i32, tail: &[u8], into: &mut [u8]) -> usize {
    let mut path = [0u8; 32];
    let path = crate::user::sys::procfs::proc_path(&mut path, tid, tail);
    let Ok(fd) = crate::fd::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0) else {
        return 0;
    };
    crate::user::sys::task::read_text(fd.fd(), into)
}

/// Undoes what a stop does to such a call, as if the thread had not come to it
/// yet. The kernel will not do it, which has prepared the answer before the stop.
///
/// The thread must have slept once since: in this stop. If it has slept again
/// it has been in another call, at the same place and with the same arguments,
/// and who knows what its first one was.
///
/// A signal that comes between the look and the call is taken before the call.
#[cfg(target_arch = "aarch64")]
fn take_back_interruption(tid: i32, sleep: &Sleep) {
    /// Length of the instruction that makes a system call.
    const SVC: u64 = 4;
    if sleep.number == 0 {
        return;
    }
    let Ok(mut regs) = registers(tid) else {
        return;
    };
    let still = |status: Status| status.sleeps == sleep.times + 1 && !status.is_called;
    if sleep.is_where(&regs) && Status::of(tid).is_some_and(still) {
        regs.x[0] = sleep.arguments[0];
        regs.pc -= SVC;
        let _ = set_registers(tid, &regs);
    }
}

#[cfg(all(test, target_arch = "aarch64"))]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_a_sleep_is_understood() {
        let text = b"22 0x3 0xffffd0 0x1 0xffffffffffffffff 0x0 0x8 0xffffe0 0xffff8000\n";
        let sleep = Sleep::parse(text).unwrap_or_default();
        assert_eq!((sleep.number, sleep.arguments[0]), (22, 3));
        assert_eq!((sleep.sp, sleep.pc), (0xff_ffe0, 0xffff_8000));
        assert!(sleep.can_begin_again());
        assert!(Sleep::parse(b"running\n").is_none());
        assert!(Sleep::parse(b"-1 0xffffe0 0xffff8000\n").is_none());
    }

    #[test]
    fn the_status_of_a_thread_is_understood() {
        let status = Status::of(crate::user::sys::task::gettid());
        assert!(status.is_some_and(|s| !s.is_called));
    }
}
