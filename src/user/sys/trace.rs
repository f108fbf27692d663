// SPDX-License-Identifier: MIT OR Apache-2.0
//! ptrace, as far as stopping threads and watching a fork needs it.

use super::{sys, Sys};
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
    sys!(libc::SYS_ptrace, INTERRUPT, tid, 0, 0).map(drop)
}

/// Lets a stopped thread go and stops being its tracer; `signal` is the one
/// it was about to take, 0 for none.
pub fn detach(tid: i32, signal: c_int) -> Sys<()> {
    sys!(libc::SYS_ptrace, DETACH, tid, 0, signal).map(drop)
}

/// Lets a thread go that was stopped by [`interrupt`], as if it had not been.
pub fn release(tid: i32, signal: c_int) {
    if signal == 0 {
        take_back_interruption(tid);
    }
    let _ = detach(tid, signal);
}

/// Lets a stopped thread go on, still traced.
pub fn go_on(tid: i32, signal: c_int) -> Sys<()> {
    sys!(libc::SYS_ptrace, CONT, tid, 0, signal).map(drop)
}

/// Lets a stopped thread go on to the next entry or exit of a system call.
pub fn to_syscall(tid: i32, signal: c_int) -> Sys<()> {
    sys!(libc::SYS_ptrace, SYSCALL, tid, 0, signal).map(drop)
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
    /// Where the thread goes on.
    pub fn pc(&self) -> u64 {
        self.rip
    }
    /// Number of the system call the thread is in.
    pub fn syscall_number(&self) -> i64 {
        self.orig_rax as i64
    }
    /// Argument `n` of the system call the thread is in.
    pub fn argument(&self, n: usize) -> u64 {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9][n]
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
    /// Where the thread goes on.
    pub fn pc(&self) -> u64 {
        self.pc
    }
    /// Number of the system call the thread is in.
    pub fn syscall_number(&self) -> i64 {
        self.x[8] as i64
    }
    /// Argument `n` of the system call the thread is in.
    pub fn argument(&self, n: usize) -> u64 {
        self.x[n]
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

/// Undoes what a stop does to a few system calls: interrupted they answer EINTR,
/// though no signal has come, and the kernel does not start them again. Told
/// that they may be it does, and still answers EINTR where a handler runs.
///
/// Only calls that have done nothing when they answer EINTR, and wait without a
/// limit of time: with one, each stop would begin it anew.
#[cfg(target_arch = "x86_64")]
fn take_back_interruption(tid: i32) {
    /// The kernel's own number: start again unless a handler runs.
    const ERESTARTNOHAND: i64 = 514;
    const EXT_ARG: u64 = 8;
    const IO_PGETEVENTS: i64 = 333;
    let Ok(mut regs) = registers(tid) else {
        return;
    };
    if regs.answer() != -i64::from(libc::EINTR) {
        return;
    }
    let for_ever = match regs.syscall_number() {
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => (regs.argument(3) as i32) < 0,
        libc::SYS_epoll_pwait2 | libc::SYS_semtimedop => regs.argument(3) == 0,
        libc::SYS_io_getevents | IO_PGETEVENTS => regs.argument(4) == 0,
        libc::SYS_rt_sigtimedwait => regs.argument(2) == 0,
        libc::SYS_io_uring_enter => regs.argument(1) == 0 && regs.argument(3) & EXT_ARG == 0,
        libc::SYS_semop => true,
        _ => false,
    };
    if for_ever {
        regs.rax = (-ERESTARTNOHAND) as u64;
        let _ = set_registers(tid, &regs);
    }
}

/// There the kernel has prepared the answer before it stops: it stays.
#[cfg(target_arch = "aarch64")]
fn take_back_interruption(_: i32) {}

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
