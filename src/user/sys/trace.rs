// SPDX-License-Identifier: MIT OR Apache-2.0
//! ptrace, as far as stopping threads and watching a fork needs it.

use super::{insist, sys, task, Sys};
use core::ffi::c_int;

pub const SEIZE: usize = 0x4206;
pub const INTERRUPT: usize = 0x4207;
const DETACH: usize = 17;
const CONT: usize = 7;
const SYSCALL: usize = 24;
const GETEVENTMSG: usize = 0x4201;
const GETREGSET: usize = 0x4204;
const SETREGSET: usize = 0x4205;

pub const O_SYSGOOD: usize = 1;
pub const O_FORK: usize = 2;
pub const O_CLONE: usize = 8;

pub const EVENT_FORK: c_int = 1;
pub const EVENT_CLONE: c_int = 3;
pub const EVENT_STOP: c_int = 128;

/// Becomes the tracer of a thread without stopping it.
pub fn seize(tid: i32, options: usize) -> Sys<()> {
    sys!(libc::SYS_ptrace, SEIZE, tid, 0, options).map(drop)
}

/// Asks a seized thread to stop. [`wait`] tells when it has.
pub fn interrupt(tid: i32) -> Sys<()> {
    // Traced and not asked to stop, it could neither be waited for nor let go.
    insist(|| match sys!(libc::SYS_ptrace, INTERRUPT, tid, 0, 0) {
        Err(libc::ESRCH) => Ok(Err(libc::ESRCH)),
        answer => answer.map(|_| Ok(())),
    })?
}

/// Lets a stopped thread go and stops being its tracer; `signal` is the one
/// it was about to take, 0 for none.
pub fn detach(tid: i32, signal: c_int) -> Sys<()> {
    sys!(libc::SYS_ptrace, DETACH, tid, 0, signal).map(drop)
}

/// Lets a thread go that was stopped by [`interrupt`], as if it had not been.
/// `sleep` is what it was found in before that. ESRCH: it does not stand any
/// more, since it has been killed.
pub fn release(tid: i32, signal: c_int, sleep: &Sleep) -> Sys<()> {
    if signal == 0 {
        take_back_interruption(tid, sleep);
    }
    detach(tid, signal)
}

/// Lets a stopped thread go on, still traced.
pub fn go_on(tid: i32, signal: c_int) -> Sys<()> {
    sys!(libc::SYS_ptrace, CONT, tid, 0, signal).map(drop)
}

/// Lets a stopped thread go on to the next entry or exit of a system call.
pub fn to_syscall(tid: i32, signal: c_int) -> Sys<()> {
    sys!(libc::SYS_ptrace, SYSCALL, tid, 0, signal).map(drop)
}

/// Writes to memory of a standing thread, also where it is not writable.
pub fn write_text(tid: i32, address: usize, bytes: &[u8]) -> Sys<()> {
    const PEEKDATA: usize = 2;
    const POKEDATA: usize = 5;
    let mut at = address & !7;
    while at < address + bytes.len() {
        let mut word = 0u64;
        sys!(libc::SYS_ptrace, PEEKDATA, tid, at, &raw mut word)?;
        let mut whole = word.to_ne_bytes();
        for (k, byte) in whole.iter_mut().enumerate() {
            if let Some(new) = (at + k).checked_sub(address).and_then(|n| bytes.get(n)) {
                *byte = *new;
            }
        }
        sys!(
            libc::SYS_ptrace,
            POKEDATA,
            tid,
            at,
            u64::from_ne_bytes(whole)
        )?;
        at += 8;
    }
    Ok(())
}

/// The message of the event that the thread stopped for.
pub fn event_message(tid: i32) -> Sys<u64> {
    let mut message = 0u64;
    sys!(libc::SYS_ptrace, GETEVENTMSG, tid, 0, &raw mut message)?;
    Ok(message)
}

/// What a wait found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waited {
    /// Nothing yet.
    Nothing,
    /// The thread stopped; the signal to hand back when it goes on.
    Stopped { signal: c_int, event: c_int },
    /// At the entry or the exit of a system call.
    Syscall,
    /// The thread is gone.
    Gone,
}

/// Looks whether a traced thread has stopped or gone. Never blocks.
pub fn wait(tid: i32) -> Waited {
    let mut status: c_int = 0;
    let flags = libc::__WALL | libc::WNOHANG;
    match sys!(libc::SYS_wait4, tid, &raw mut status, flags, 0) {
        Ok(0) => Waited::Nothing,
        Ok(_) if libc::WIFSTOPPED(status) => {
            let event = status >> 16;
            let signal = libc::WSTOPSIG(status);
            if event != 0 {
                // Not a signal on its way to the thread: nothing to hand back.
                Waited::Stopped { signal: 0, event }
            } else if signal == libc::SIGTRAP | 0x80 {
                Waited::Syscall
            } else {
                Waited::Stopped { signal, event: 0 }
            }
        }
        Ok(_) => Waited::Gone,
        Err(libc::EINTR) => Waited::Nothing,
        Err(_) => Waited::Gone,
    }
}

/// Longest wait for a thread that is about to stop, in nanoseconds: it needs
/// nothing but a processor.
const SOON: u64 = 60_000_000_000;

/// Waits for a thread that is sure to stop soon, unless `in_vain` says that it
/// will not.
pub fn wait_soon(tid: i32, in_vain: impl Fn() -> bool) -> Waited {
    let deadline = task::now() + SOON;
    loop {
        match wait(tid) {
            Waited::Nothing if task::now() < deadline && !in_vain() => task::await_child_stop(500),
            waited => return waited,
        }
    }
}

/// General registers of a stopped thread.
#[cfg(target_arch = "x86_64")]
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

#[cfg(target_arch = "x86_64")]
impl Registers {
    /// Number of the system call the thread is in.
    pub fn syscall_number(&self) -> i64 {
        self.orig_rax as i64
    }
    /// Argument `n` of the system call the thread is in.
    pub fn argument(&self, n: usize) -> u64 {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9][n]
    }
    pub fn set_argument(&mut self, n: usize, value: u64) {
        let words = [
            &mut self.rdi,
            &mut self.rsi,
            &mut self.rdx,
            &mut self.r10,
            &mut self.r8,
            &mut self.r9,
        ];
        *words[n] = value;
    }
    /// What the system call answered.
    pub fn answer(&self) -> i64 {
        self.rax as i64
    }
    /// Has the thread make a system call from the instruction it has just
    /// made one with.
    pub fn prepare_syscall(&mut self, nr: i64, args: [u64; 6]) {
        self.rip -= 2;
        self.rax = nr as u64;
        self.orig_rax = u64::MAX;
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9] = args;
    }
}

#[cfg(target_arch = "aarch64")]
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Registers {
    pub x: [u64; 31],
    pub sp: u64,
    pub pc: u64,
    pub pstate: u64,
}

#[cfg(target_arch = "aarch64")]
impl Registers {
    /// Number of the system call the thread is in.
    pub fn syscall_number(&self) -> i64 {
        self.x[8] as i64
    }
    /// What the system call answered.
    pub fn answer(&self) -> i64 {
        self.x[0] as i64
    }
    /// Has the thread make a system call from the instruction it has just
    /// made one with.
    pub fn prepare_syscall(&mut self, nr: i64, args: [u64; 6]) {
        self.pc -= 4;
        self.x[8] = nr as u64;
        self.x[..6].copy_from_slice(&args);
    }
}

const NT_PRSTATUS: usize = 1;

/// The registers of a stopped thread.
pub fn registers(tid: i32) -> Sys<Registers> {
    let mut regs = Registers::default();
    let part = libc::iovec {
        iov_base: (&raw mut regs).cast(),
        iov_len: core::mem::size_of::<Registers>(),
    };
    sys!(
        libc::SYS_ptrace,
        GETREGSET,
        tid,
        NT_PRSTATUS,
        &raw const part
    )?;
    Ok(regs)
}

/// Gives a stopped thread other registers.
pub fn set_registers(tid: i32, regs: &Registers) -> Sys<()> {
    let part = libc::iovec {
        iov_base: core::ptr::from_ref(regs).cast_mut().cast(),
        iov_len: core::mem::size_of::<Registers>(),
    };
    sys!(
        libc::SYS_ptrace,
        SETREGSET,
        tid,
        NT_PRSTATUS,
        &raw const part
    )
    .map(drop)
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
pub fn prepare(tgid: i32, pidfd: c_int) {
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
    fn is_where(&self, regs: &Registers) -> bool {
        self.number == regs.syscall_number()
            && self.arguments[1..] == regs.x[1..6]
            && (self.sp, self.pc) == (regs.sp, regs.pc)
            && regs.answer() == -i64::from(libc::EINTR)
    }
}

/// Nothing to be known beforehand.
#[cfg(target_arch = "aarch64")]
pub fn prepare(_: i32, _: c_int) {}

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
    let path = super::maps::proc_path(&mut path, tid, tail);
    let Ok(fd) = crate::rawsys::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0) else {
        return 0;
    };
    let n = super::task::read_text(fd, into);
    crate::rawsys::close(fd);
    n
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

/// Number and arguments of the system call at whose entry a thread stands;
/// `None` at an exit.
pub fn syscall_entry(tid: i32) -> Sys<Option<(u64, [u64; 6])>> {
    const GET_SYSCALL_INFO: usize = 0x420e;
    // op and architecture, ip, sp, then number and six arguments at an entry.
    let mut info = [0u64; 11];
    let size = core::mem::size_of_val(&info);
    sys!(
        libc::SYS_ptrace,
        GET_SYSCALL_INFO,
        tid,
        size,
        info.as_mut_ptr()
    )?;
    if info[0] & 0xff != 1 {
        return Ok(None);
    }
    Ok(Some((info[3], core::array::from_fn(|i| info[4 + i]))))
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
        let status = Status::of(super::super::task::gettid());
        assert!(status.is_some_and(|s| !s.is_called));
    }
}
