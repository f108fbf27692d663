// SPDX-License-Identifier: MIT OR Apache-2.0
//! Intercepts libc's memory calls, so that pages are revoked before they change.
//!
//! The kernel's events tell of an unmapping when it is done: another thread can
//! be given the addresses, fill them and tell a peer of them in the moment
//! before the pages are revoked. So what libc does (the program's own calls, and
//! those of its allocator and its threads) is announced to the service first,
//! which revokes while the addresses are still taken. What goes past libc, by
//! raw system calls, is left to the events.
//!
//! A thread puts down a guard for its range before it looks whether the range
//! is promoted, and takes it away after its system call. Promotion looks at the
//! guards with all threads standing, so between the two nothing is promoted.

mod born;
mod devices;
pub mod fork;
mod install;
pub mod text;

use super::arena::command::NOT_NEEDED;
use super::arena::{self, Command, Guard, Shared};
use super::sys::{forking, mem, page_up, uffd, Span, Sys, PAGE, TOP};
use crate::debug::COUNTERS;
use crate::debug_log;
use crate::errno::Errno;
use crate::user::sys::advice::of_advice;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use text::{find, Hook, Site, Thunks, ANY, IN_PLACE, SITES};

/// What the hooks need to be written.
pub struct Hooks {
    /// 0: not prepared.
    pub count: usize,
    pub sites: [Site; SITES],
    pub page: usize,
    pub tried: bool,
}

/// Where the page of instructions is to which libc's calls are led. Found by the thread that
/// starts the service, written by the service.
pub static THUNKS: AtomicUsize = AtomicUsize::new(0);
/// The hooks are part of the memory image: a fork child has them.
pub static WRITTEN: AtomicBool = AtomicBool::new(false);

/// Functions of libc, and what they call.
pub const NAMES: [(&core::ffi::CStr, usize); 17] = [
    (c"munmap", libc::SYS_munmap as usize),
    (c"mmap", libc::SYS_mmap as usize),
    (c"mremap", libc::SYS_mremap as usize),
    (c"madvise", libc::SYS_madvise as usize),
    (c"mprotect", libc::SYS_mprotect as usize),
    (c"pkey_mprotect", libc::SYS_pkey_mprotect as usize),
    (c"brk", libc::SYS_brk as usize),
    (c"shmat", libc::SYS_shmat as usize),
    (c"shmdt", libc::SYS_shmdt as usize),
    (c"remap_file_pages", libc::SYS_remap_file_pages as usize),
    (c"ioctl", libc::SYS_ioctl as usize),
    (c"io_uring_register", devices::IO_URING_REGISTER),
    (c"_Fork", libc::SYS_clone as usize),
    (c"clone", libc::SYS_clone as usize),
    // Of these libc's `syscall` alone makes some that make a child.
    (c"clone3", libc::SYS_clone3 as usize),
    (c"fork", SYS_FORK),
    (c"syscall", ANY),
];

#[cfg(target_arch = "x86_64")]
const SYS_FORK: usize = libc::SYS_fork as usize;
/// There is none.
#[cfg(not(target_arch = "x86_64"))]
const SYS_FORK: usize = ANY - 1;

/// Which of [`NAMES`] are met, wherever libc makes them; part of the memory image
/// as the jumps are.
pub static MET: [AtomicBool; NAMES.len()] = [const { AtomicBool::new(false) }; NAMES.len()];

/// Whether libc's function for a system call is met.
pub fn meets(number: libc::c_long) -> bool {
    let name = NAMES.iter().position(|n| n.1 == number as usize);
    name.is_some_and(|name| MET[name].load(Ordering::Acquire))
}

/// Since Linux 6.13: what was there is dropped, and a touch is SIGSEGV.
const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;

static HOOK: Hook = Hook { before, after };

/// What has to be asked of the service before a memory call.
fn command(number: usize, args: [usize; 6]) -> Option<Command> {
    let [a, b, c, d, e, _] = args;
    let span = Span::of(a, b);
    Some(match number as libc::c_long {
        // Beyond the end of addresses it is EINVAL.
        libc::SYS_munmap if a % PAGE == 0 && b > 0 && b < TOP.saturating_sub(a | (PAGE - 1)) => {
            Command::Retire { span }
        }
        // It may fail, and then nothing must have changed.
        libc::SYS_mmap if d as i32 & libc::MAP_FIXED != 0 => Command::Withdraw { span },
        libc::SYS_mremap => Command::Remap {
            old: a,
            old_len: b,
            new_len: c,
            flags: d as i32,
            target: e,
        },
        libc::SYS_mprotect | libc::SYS_pkey_mprotect => Command::Withdraw { span },
        // Its length is not told: the service looks.
        libc::SYS_shmdt if a % PAGE == 0 => Command::RecallSegment { addr: a },
        libc::SYS_shmat if c as i32 & libc::SHM_REMAP != 0 => {
            let start = if c as i32 & libc::SHM_RND != 0 {
                super::sys::page_down(b)
            } else {
                b
            };
            // Who may not ask for its size may not attach it either.
            let len = page_up(mem::sysv_size(a as i32).ok()?);
            let span = Span::of(start, len);
            Command::Demote { span }
        }
        // A userfaultfd of the program's own takes private memory, and none that
        // is watched already.
        libc::SYS_ioctl if b as u64 == uffd::REGISTER => {
            let mut range = [0u8; 16];
            mem::peek_process(crate::rawsys::getpid(), c, &mut range).ok()?;
            let word = |at: usize| usize::from_le_bytes(core::array::from_fn(|i| range[at + i]));
            let span = Span::of(word(0), word(8));
            Command::Demote { span }
        }
        libc::SYS_remap_file_pages => Command::Rearrange { span },
        libc::SYS_madvise => match c as i32 {
            advice @ (libc::MADV_DONTNEED | libc::MADV_FREE) if a % PAGE == 0 => {
                Command::Discard { span, advice }
            }
            advice if a % PAGE == 0 && of_advice(advice).is_some() => {
                Command::Advise { span, advice }
            }
            libc::MADV_REMOVE | MADV_GUARD_INSTALL | MADV_GUARD_REMOVE => Command::Demote { span },
            _ => return None,
        },
        _ => return None,
    })
}

/// `MREMAP_FIXED` has a second range.
fn target(command: Command) -> Option<Span> {
    match command {
        Command::Remap {
            flags,
            target,
            new_len,
            ..
        } if flags & libc::MREMAP_FIXED != 0 => Some(Span::of(target, new_len)),
        _ => None,
    }
}

fn before(number: usize, args: [usize; 6]) -> (usize, Option<isize>) {
    if cfg!(target_arch = "x86_64") && forking::may_fork(number as u64) {
        fork::before_call(number as u64, args.map(|a| a as u64));
        return (IN_PLACE, None);
    }
    let Some(shared) = arena::existing().filter(|s| s.is_running()) else {
        return (0, None);
    };
    if let Some(answer) = born::map(shared, number, args) {
        return (0, Some(answer));
    }
    devices::before(shared, number, args);
    let command = if number as libc::c_long == libc::SYS_brk {
        shrink(shared, args[0])
    } else {
        command(number, args)
    };
    let Some(command) = command else {
        return (0, None);
    };
    let span = command.span();
    if span.end() > usize::MAX - PAGE {
        // A range that wraps around is refused.
        return (0, None);
    }
    // One guard over both: too much is only too careful.
    let guarded = target(command).map_or(span, |to| span.around(to));
    let guard = shared.guard(guarded);
    let word = guard.map_or(0, |guard| core::ptr::from_ref(guard).expose_provenance());
    if !is_concerned(shared, number, command) {
        return (word, None);
    }
    (word, answer(command, ask(shared, command)))
}

/// Whether a command is about anything that the service knows of.
fn is_concerned(shared: &Shared, number: usize, command: Command) -> bool {
    // What was promoted once may be in pieces still.
    if let Command::Remap { .. } = command {
        let some = |counter: &AtomicU64| counter.load(Ordering::Relaxed) > 0;
        // The first is counted when its threads have gone on.
        let first = !shared.promoted.is_empty();
        first || some(&COUNTERS.promotions) || some(&COUNTERS.born_shared)
    } else {
        // What is being promoted is watched already, and can be watched by nobody else.
        let watches = number as libc::c_long == libc::SYS_ioctl;
        watches || shared.promoted.overlaps(command.span())
    }
}

/// What the call answers when the service has `done` what it was asked for. `None`: the
/// call is made.
fn answer(command: Command, done: Sys<u64>) -> Option<isize> {
    match command {
        Command::Remap { .. } => match done {
            Ok(NOT_NEEDED) | Err(Errno::EAGAIN | arena::OVER) => None,
            Ok(addr) => Some(addr as isize),
            Err(errno) => Some(errno.negated()),
        },
        // Of what is shared the kernel would take other pages than are meant.
        Command::Rearrange { .. } => match done {
            Err(Errno::EINVAL) => Some(Errno::EINVAL.negated()),
            _ => None,
        },
        Command::Discard { .. } => match done {
            Ok(1) => Some(0),
            // As of private memory: of what is shared the kernel would say that it is done.
            Err(Errno::EPERM) => Some(Errno::EPERM.negated()),
            _ => None,
        },
        Command::Advise { .. } => match done {
            Ok(1) => Some(0),
            Ok(_) | Err(Errno::ENOSYS) => None,
            Err(errno) => Some(errno.negated()),
        },
        _ => None,
    }
}

/// Asks the service, again while it cannot do it yet.
fn ask(shared: &Shared, command: Command) -> Sys<u64> {
    for _ in 0..200 {
        match shared.call(command) {
            Err(Errno::EAGAIN) => crate::rawsys::sleep(core::time::Duration::from_micros(200)),
            answer => return answer,
        }
    }
    Err(Errno::EAGAIN)
}

/// What a brk would take away.
fn shrink(shared: &Shared, to: usize) -> Option<Command> {
    if to == 0 || shared.promoted.is_empty() {
        return None;
    }
    let top = super::sys::mem::program_break();
    let span = Span::new(to, top);
    (!span.is_empty()).then_some(Command::Withdraw { span })
}

fn after(guard: usize) {
    if let Some(shared) = arena::existing() {
        if let Some(guard) = shared.guard_at(guard) {
            Guard::release(guard);
        }
    }
}

impl Hooks {
    /// Finds libc's system calls and prepares what leads here. Runs in the
    /// thread that starts the service.
    pub fn prepare() -> Self {
        let mut hooks = Self {
            count: 0,
            sites: [Site::default(); SITES],
            page: 0,
            tried: false,
        };
        if WRITTEN.load(Ordering::Acquire) {
            return hooks;
        }
        hooks.count = find(&NAMES, &mut hooks.sites);
        match Thunks::make(&hooks.sites[..hooks.count], &NAMES, &HOOK) {
            Ok(thunks) => hooks.page = thunks.page,
            Err(errno) => {
                debug_log!("libc's memory calls are not met: errno {errno}");
                hooks.count = 0;
            }
        }
        THUNKS.store(hooks.page, Ordering::Release);
        hooks
    }
}
