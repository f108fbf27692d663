// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waits with a limit of time, begun again after a stop.
//!
//! Some system calls answer EINTR when their thread has been stopped, though no
//! handler ran. One that waits without a limit is simply made again
//! ([`super::restart`]). One with a limit has to wait for what is left of it, and
//! the thread must have its own arguments in the registers afterwards: the
//! compiler counts on that. So the thread makes the call again from a few
//! instructions of ours, which put everything back and return to its own place.
//! What they need stands in a [`Wait`]; rbx leads there meanwhile.
//!
//! The kernel is told that it may begin the call again, so that a handler that
//! has to run still ends the wait with EINTR.
//!
//! When the wait began nobody knows: its time counts from the first stop that
//! finds it. So it may last up to twice as long as it should, and never less.

use super::limit::{words_at, Limit, SECOND};
use crate::fd::Fd;
use crate::user::sys::regs::Registers;
use crate::user::sys::task;
use core::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The kernel's own number: start again unless a handler runs.
const ERESTARTNOHAND: i64 = 514;

/// One wait that has been begun again. In the memory of the program as it is
/// before any page of it is shared: a fork child in a handler has it, too.
#[repr(C)]
struct Wait {
    /// The thread, 0: free.
    tid: AtomicU64,
    deadline: AtomicU64,
    /// What the thread's own rip and rbx are.
    rip: AtomicU64,
    rbx: AtomicU64,
    /// rdi, rsi, rdx, r10, r8, r9.
    arguments: [AtomicU64; 6],
    /// Of the system call.
    number: AtomicU64,
    /// What a socket answers at the end of its time.
    at_end: AtomicU64,
    /// What is left, as the kernel takes it.
    timespec: [AtomicU64; 2],
    /// Arguments of `io_uring_enter`: mask, its size and more, `timespec`.
    events: [AtomicU64; 3],
    /// A `struct pollfd`.
    poll: AtomicU64,
}

/// Most waits at a time; more answer EINTR.
const WAITS: usize = 1024;

static ALL: [Wait; WAITS] = [const { Wait::new() }; WAITS];
/// Where the next free one is looked for.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The program, and a descriptor for it.
static PROGRAM: [AtomicI32; 2] = [const { AtomicI32::new(-1) }; 2];

/// The six arguments of the call that was interrupted.
macro_rules! arguments {
    () => {
        "mov rdi, [rbx + 32]
        mov rsi, [rbx + 40]
        mov rdx, [rbx + 48]
        mov r10, [rbx + 56]
        mov r8, [rbx + 64]
        mov r9, [rbx + 72]"
    };
}

// At `again_over` and `ready_over` a call has been made that was begun again. A
// socket is first waited for by ppoll: its own limit cannot be made shorter.
core::arch::global_asm!(
    ".balign 16",
    ".type {again}, @function",
    "{again}:",
    ".cfi_startproc simple",
    ".cfi_signal_frame",
    ".cfi_def_cfa rsp, 0",
    // rip and rbx are at 16 and 24 from rbx.
    ".cfi_escape 0x10, 16, 2, 0x73, 16",
    ".cfi_escape 0x10, 3, 2, 0x73, 24",
    "syscall",
    "{again_over}:",
    "jmp 3f",
    "{ready}:",
    "syscall",
    "{ready_over}:",
    "cmp rax, -4",
    "je 3f",
    "test rax, rax",
    "jz 2f",
    arguments!(),
    "mov rax, [rbx + 80]",
    "syscall",
    "{socket_over}:",
    "jmp 3f",
    "2:",
    "mov rax, [rbx + 88]",
    "3:",
    arguments!(),
    "mov r11, [rbx + 16]",
    "mov rcx, [rbx + 24]",
    "mov qword ptr [rbx], 0",
    "mov rbx, rcx",
    "jmp r11",
    ".cfi_endproc",
    ".size {again}, . - {again}",
    again = sym xpmem_wait_again,
    again_over = sym xpmem_wait_again_over,
    ready = sym xpmem_wait_ready,
    ready_over = sym xpmem_wait_ready_over,
    socket_over = sym xpmem_wait_socket_over,
);

extern "C" {
    fn xpmem_wait_again();
    fn xpmem_wait_again_over();
    fn xpmem_wait_ready();
    fn xpmem_wait_ready_over();
    fn xpmem_wait_socket_over();
}

fn place(of: unsafe extern "C" fn()) -> u64 {
    of as *const () as usize as u64
}

#[cfg(test)]
fn again_over() -> u64 {
    place(xpmem_wait_again_over)
}

/// Whose waits are begun again from now on.
pub fn prepare(tgid: i32, pidfd: Fd) {
    PROGRAM[0].store(tgid, Relaxed);
    PROGRAM[1].store(pidfd.number(), Relaxed);
}

/// Has a thread that stands at the end of a wait with EINTR, and has been
/// stopped there, wait for the rest of its time. Whether its registers are to be
/// set.
pub fn begin_again(tid: i32, regs: &mut Registers) -> bool {
    let known = [
        place(xpmem_wait_again_over),
        place(xpmem_wait_ready_over),
        place(xpmem_wait_socket_over),
    ];
    if known.contains(&regs.rip) {
        let Some(wait) = Wait::at(regs.rbx, tid) else {
            return false;
        };
        let number = wait.number.load(Relaxed) as i64;
        let argument = |n: usize| wait.arguments[n].load(Relaxed);
        let Some(limit) = Limit::of(number, argument) else {
            return false;
        };
        wait.go_on(limit, regs);
        return true;
    }
    let number = regs.syscall_number();
    let Some(limit) = Limit::of(number, |n| regs.argument(n)) else {
        return false;
    };
    let program = Fd::new(PROGRAM[1].load(Relaxed));
    let Some(length) = limit.length(tid, program, regs) else {
        return false;
    };
    let Some(wait) = Wait::take(tid) else {
        return false;
    };
    wait.begin(tid, limit, length, regs);
    true
}

impl Wait {
    const fn new() -> Self {
        const fn zeros<const N: usize>() -> [AtomicU64; N] {
            [const { AtomicU64::new(0) }; N]
        }
        Self {
            tid: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            rip: AtomicU64::new(0),
            rbx: AtomicU64::new(0),
            arguments: zeros(),
            number: AtomicU64::new(0),
            at_end: AtomicU64::new(0),
            timespec: zeros(),
            events: zeros(),
            poll: AtomicU64::new(0),
        }
    }

    /// The wait of a thread whose rbx is this.
    fn at(rbx: u64, tid: i32) -> Option<&'static Self> {
        let first = ALL.as_ptr().expose_provenance();
        let offset = (rbx as usize).checked_sub(first)?;
        let wait = ALL.get(offset / core::mem::size_of::<Self>())?;
        let is_it = offset % core::mem::size_of::<Self>() == 0;
        (is_it && wait.tid.load(Relaxed) == tid as u64).then_some(wait)
    }

    /// A free one. The service alone takes them; threads give them back.
    fn take(tid: i32) -> Option<&'static Self> {
        let from = NEXT.load(Relaxed);
        let places = || (0..WAITS).map(|k| (from + k) % WAITS);
        let tgid = PROGRAM[0].load(Relaxed);
        let is_free = |i: &usize| ALL[*i].tid.load(Relaxed) == 0;
        // A thread may have ended in a handler, or left it by a jump.
        let is_left =
            |i: &usize| task::signal_task(tgid, ALL[*i].tid.load(Relaxed) as i32, 0).is_err();
        let i = places().find(is_free).or_else(|| places().find(is_left))?;
        NEXT.store((i + 1) % WAITS, Relaxed);
        ALL[i].tid.store(tid as u64, Relaxed);
        Some(&ALL[i])
    }

    fn begin(&self, tid: i32, limit: Limit, length: u64, regs: &mut Registers) {
        self.deadline
            .store(task::now().saturating_add(length), Relaxed);
        self.rip.store(regs.rip, Relaxed);
        self.rbx.store(regs.rbx, Relaxed);
        for (n, word) in self.arguments.iter().enumerate() {
            word.store(regs.argument(n), Relaxed);
        }
        self.number.store(regs.syscall_number() as u64, Relaxed);
        match limit {
            Limit::Socket { events, at_end } => {
                let fd = u64::from(regs.argument(0) as u32);
                self.poll.store(fd | (events as u64) << 32, Relaxed);
                self.at_end.store(-i64::from(at_end) as u64, Relaxed);
            }
            Limit::Events => {
                let words = words_at::<3>(tid, regs.argument(4)).unwrap_or_default();
                for (to, from) in self.events.iter().zip(words) {
                    to.store(from, Relaxed);
                }
            }
            _ => {}
        }
        regs.rbx = core::ptr::from_ref(self).expose_provenance() as u64;
        self.go_on(limit, regs);
    }

    /// Lets the thread wait for what is left.
    fn go_on(&self, limit: Limit, regs: &mut Registers) {
        let left = self.deadline.load(Relaxed).saturating_sub(task::now());
        self.timespec[0].store(left / SECOND, Relaxed);
        self.timespec[1].store(left % SECOND, Relaxed);
        let timespec = self.timespec.as_ptr().expose_provenance() as u64;
        let mut number = self.number.load(Relaxed);
        regs.rip = place(xpmem_wait_again_over);
        match limit {
            Limit::Milliseconds(n) => {
                let ms = left.div_ceil(1_000_000).min(i32::MAX as u64);
                regs.set_argument(n, ms);
            }
            Limit::Timespec(n) => regs.set_argument(n, timespec),
            Limit::Events => {
                self.events[2].store(timespec, Relaxed);
                let events = self.events.as_ptr().expose_provenance() as u64;
                regs.set_argument(4, events);
            }
            Limit::Socket { .. } => {
                number = libc::SYS_ppoll as u64;
                let poll = self.poll.as_ptr().expose_provenance() as u64;
                // The kernel writes its answer beside it.
                self.poll.fetch_and(0xffff_ffff_ffff, Relaxed);
                for (n, word) in [poll, 1, timespec, 0, 8, 0].into_iter().enumerate() {
                    regs.set_argument(n, word);
                }
                regs.rip = place(xpmem_wait_ready_over);
            }
        }
        regs.orig_rax = number;
        regs.rax = (-ERESTARTNOHAND) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_begins_again_with_what_is_left_and_ends_where_it_began() {
        prepare(crate::rawsys::getpid(), Fd::NONE);
        let tid = task::gettid();
        let mut regs = Registers {
            rip: 0x1234,
            rbx: 7,
            rax: -i64::from(libc::EINTR) as u64,
            orig_rax: libc::SYS_epoll_wait as u64,
            r10: 60_000,
            ..Registers::default()
        };
        assert!(begin_again(tid, &mut regs));
        assert!(regs.r10 <= 60_000 && regs.r10 > 50_000);
        assert_eq!(regs.orig_rax, libc::SYS_epoll_wait as u64);
        assert_eq!(regs.rip, again_over());
        let wait = Wait::at(regs.rbx, tid).expect("its place");
        assert_eq!(wait.arguments[3].load(Relaxed), 60_000);
        assert_eq!(
            (wait.rip.load(Relaxed), wait.rbx.load(Relaxed)),
            (0x1234, 7)
        );
        // Stopped once more, later: the time has gone by.
        wait.deadline.store(task::now(), Relaxed);
        regs.rax = -i64::from(libc::EINTR) as u64;
        assert!(begin_again(tid, &mut regs));
        assert_eq!(regs.r10, 0);
        wait.tid.store(0, Relaxed);
        assert!(Wait::at(regs.rbx, tid).is_none() && Wait::at(1, tid).is_none());
    }
}
