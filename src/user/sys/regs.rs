// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers of stopped threads, on each architecture.

#![forbid(unsafe_code)]

use super::trace::surely;
use super::Sys;

const GETREGSET: usize = 0x4204;
const SETREGSET: usize = 0x4205;

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
    surely(GETREGSET, tid, NT_PRSTATUS, (&raw const part).addr())?;
    Ok(regs)
}

/// Gives a stopped thread other registers.
pub fn set_registers(tid: i32, regs: &Registers) -> Sys<()> {
    let part = libc::iovec {
        iov_base: core::ptr::from_ref(regs).cast_mut().cast(),
        iov_len: core::mem::size_of::<Registers>(),
    };
    surely(SETREGSET, tid, NT_PRSTATUS, (&raw const part).addr())
}
