// SPDX-License-Identifier: MIT OR Apache-2.0
//! ptrace, as far as stopping threads and watching a fork needs it.

#![forbid(unsafe_code)]

use super::{insist, sys, task, Sys};
use crate::errno::Errno;
use core::ffi::c_int;

pub const SEIZE: usize = 0x4206;
pub const INTERRUPT: usize = 0x4207;
const DETACH: usize = 17;
const CONT: usize = 7;
const SYSCALL: usize = 24;
const SETOPTIONS: usize = 0x4200;
const GETEVENTMSG: usize = 0x4201;

pub const O_SYSGOOD: usize = 1;
pub const O_FORK: usize = 2;
pub const O_CLONE: usize = 8;
/// It is killed with its tracer.
pub const O_EXITKILL: usize = 1 << 20;

pub const EVENT_FORK: c_int = 1;
pub const EVENT_CLONE: c_int = 3;
pub const EVENT_STOP: c_int = 128;

/// Becomes the tracer of a thread without stopping it.
pub fn seize(tid: i32, options: usize) -> Sys<()> {
    sys!(libc::SYS_ptrace, SEIZE, tid, 0, options).map(drop)
}

/// Changes the options of a thread that stands.
pub fn set_options(tid: i32, options: usize) {
    let _ = surely(SETOPTIONS, tid, 0, options);
}

/// A request about a traced thread that the kernel refuses only where there is no
/// such thread, or one that does not stand (ESRCH): what else it says passes. A
/// thread about which nobody asks any more would stand for ever.
pub fn surely(request: usize, tid: i32, address: usize, data: usize) -> Sys<()> {
    let ask = || sys!(libc::SYS_ptrace, request, tid, address, data);
    insist(|| match ask() {
        Err(Errno::ESRCH) => Ok(Err(Errno::ESRCH)),
        answer => answer.map(|_| Ok(())),
    })?
}

/// Asks a seized thread to stop. [`wait`] tells when it has.
pub fn interrupt(tid: i32) -> Sys<()> {
    surely(INTERRUPT, tid, 0, 0)
}

/// Lets a stopped thread go and stops being its tracer; `signal` is the one
/// it was about to take, 0 for none.
pub fn detach(tid: i32, signal: c_int) -> Sys<()> {
    surely(DETACH, tid, 0, signal as usize)
}

/// Ends a process that is traced, and waits for it: before that nobody else sees
/// its end.
pub fn end(pid: i32) {
    let _ = task::signal_task(pid, pid, libc::SIGKILL);
    bury(pid);
}

/// Waits for a traced task that has been killed.
pub fn bury(tid: i32) {
    while !matches!(wait_soon(tid, || false), Waited::Gone | Waited::Nothing) {}
}

/// Lets a stopped thread go on, still traced.
pub fn go_on(tid: i32, signal: c_int) -> Sys<()> {
    surely(CONT, tid, 0, signal as usize)
}

/// Lets a stopped thread go on to the next entry or exit of a system call.
pub fn to_syscall(tid: i32, signal: c_int) -> Sys<()> {
    surely(SYSCALL, tid, 0, signal as usize)
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
    surely(GETEVENTMSG, tid, 0, (&raw mut message).addr())?;
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
        Ok(_) | Err(Errno::ECHILD) => Waited::Gone,
        Err(_) => Waited::Nothing,
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

/// Number and arguments of the system call at whose entry a thread stands;
/// `None` at an exit.
pub fn syscall_entry(tid: i32) -> Sys<Option<(u64, [u64; 6])>> {
    const GET_SYSCALL_INFO: usize = 0x420e;
    // op and architecture, ip, sp, then number and six arguments at an entry.
    let mut info = [0u64; 11];
    let size = core::mem::size_of_val(&info);
    surely(GET_SYSCALL_INFO, tid, size, info.as_mut_ptr().addr())?;
    if info[0] & 0xff != 1 {
        return Ok(None);
    }
    Ok(Some((info[3], core::array::from_fn(|i| info[4 + i]))))
}
