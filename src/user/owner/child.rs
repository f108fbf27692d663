// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fork child that stands before its first instruction, and is given memory.

#![forbid(unsafe_code)]

use crate::debug_log;
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use crate::user::sys::trace::{self, Waited};
use crate::user::sys::{regs, task, uffd, Sys};

/// The child, which makes system calls for the service where it stands.
pub struct Child {
    pid: i32,
    /// As they were when it was made.
    registers: regs::Registers,
    watch: Watch,
}

/// A userfaultfd of the child's memory: pages come through it at half the price of
/// a write to another process.
enum Watch {
    Untried,
    Refused,
    Open(OwnedFd),
}

impl Child {
    pub fn of(pid: i32) -> Sys<Self> {
        let registers = regs::registers(pid)?;
        Ok(Self {
            pid,
            registers,
            watch: Watch::Untried,
        })
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Gives it back the registers with which it goes on.
    pub fn restore(&self) -> Sys<()> {
        regs::set_registers(self.pid, &self.registers)
    }

    /// Has it make one system call, and leaves it at its exit.
    pub fn call(&self, number: libc::c_long, args: [usize; 6]) -> Sys<usize> {
        let mut regs = self.registers;
        regs.prepare_syscall(number, args.map(|arg| arg as u64));
        regs::set_registers(self.pid, &regs)?;
        for _ in 0..2 {
            trace::to_syscall(self.pid, 0)?;
            loop {
                match trace::wait_soon(self.pid, || false) {
                    Waited::Syscall => break,
                    // A signal on its way: it comes again when the child runs.
                    Waited::Stopped { signal, .. } => trace::to_syscall(self.pid, signal)?,
                    _ => return Err(Errno::ESRCH),
                }
            }
        }
        match regs::registers(self.pid)?.answer() {
            answer if (-4095..0).contains(&answer) => Err(Errno::new(-answer as i32)),
            answer => Ok(answer as usize),
        }
    }

    /// A userfaultfd of its memory, if it can have one.
    pub fn watch(&mut self) -> Option<Fd> {
        if matches!(self.watch, Watch::Untried) {
            self.watch = match self.open_watch() {
                Ok(watch) => Watch::Open(watch),
                Err(errno) => {
                    debug_log!("child {} has no userfaultfd: errno {errno}", self.pid);
                    Watch::Refused
                }
            };
        }
        match &self.watch {
            Watch::Open(watch) => Some(watch.fd()),
            _ => None,
        }
    }

    /// It is opened in the child, whose memory it is of, and stays with the service.
    fn open_watch(&self) -> Sys<OwnedFd> {
        let flags = uffd::OPEN_FLAGS as usize;
        let number = self.call(libc::SYS_userfaultfd, [flags, 0, 0, 0, 0, 0])?;
        let pidfd = task::pidfd(self.pid);
        let watch = pidfd.and_then(|pidfd| task::descriptor_of(pidfd.fd(), number as i32));
        self.call(libc::SYS_close, [number, 0, 0, 0, 0, 0])?;
        let watch = watch?;
        uffd::begin(watch.fd(), 0)?;
        Ok(watch)
    }
}
