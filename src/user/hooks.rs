// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory calls that go through libc are met before they happen.
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
//!
//! Only on x86-64 is there a way into libc's system calls, see
//! [`super::sys::text`]: on other machines the events are all there is.

// What leads here is written for one machine alone.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports))]

use super::service::Service;
use super::shared::{self, Guard, Op, Shared};
use super::sys::text::{Hook, SITES};
use crate::debug::COUNTERS;
use crate::debug_log;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What the hooks need to be written.
pub struct Hooks {
    /// 0: not prepared.
    pub count: usize,
    #[cfg(target_arch = "x86_64")]
    pub sites: [super::sys::text::Site; SITES],
    pub page: usize,
    pub tried: bool,
}

/// Found by the thread that starts the service, written by the service.
pub static PAGE: AtomicUsize = AtomicUsize::new(0);
/// The hooks are part of the memory image: a fork child has them.
static WRITTEN: AtomicBool = AtomicBool::new(false);

const NAMES: [(&core::ffi::CStr, libc::c_long); 6] = [
    (c"munmap", libc::SYS_munmap),
    (c"mmap", libc::SYS_mmap),
    (c"mremap", libc::SYS_mremap),
    (c"madvise", libc::SYS_madvise),
    (c"mprotect", libc::SYS_mprotect),
    (c"brk", libc::SYS_brk),
];

static HOOK: Hook = Hook { before, after };

/// What has to be asked of the service before a memory call.
struct Change {
    op: Op,
    start: usize,
    len: usize,
}

fn change(number: usize, args: [usize; 6]) -> Option<Change> {
    let [a, b, c, d, ..] = args;
    let demote = |start, len| {
        Some(Change {
            op: Op::Demote,
            start,
            len,
        })
    };
    match number as libc::c_long {
        libc::SYS_munmap if a % super::sys::PAGE == 0 && b > 0 => Some(Change {
            op: Op::Retire,
            start: a,
            len: b,
        }),
        // It may fail, and then nothing must have changed.
        libc::SYS_mmap if d as i32 & libc::MAP_FIXED != 0 => demote(a, b),
        libc::SYS_mremap => Some(Change {
            op: Op::Remap,
            start: a,
            len: b,
        }),
        libc::SYS_mprotect => demote(a, b),
        libc::SYS_madvise => match c as i32 {
            libc::MADV_DONTNEED | libc::MADV_FREE if a % super::sys::PAGE == 0 => Some(Change {
                op: Op::Discard,
                start: a,
                len: b,
            }),
            libc::MADV_DOFORK | libc::MADV_DONTFORK | libc::MADV_WIPEONFORK => demote(a, b),
            _ => None,
        },
        _ => None,
    }
}

/// `MREMAP_FIXED` has a second range.
fn target(number: usize, args: [usize; 6]) -> Option<(usize, usize)> {
    let fixed = args[3] as i32 & libc::MREMAP_FIXED != 0;
    (number as libc::c_long == libc::SYS_mremap && fixed).then_some((args[4], args[2]))
}

fn before(number: usize, args: [usize; 6]) -> (usize, Option<isize>) {
    let Some(shared) = shared::existing().filter(|s| s.is_running()) else {
        return (0, None);
    };
    let change = if number as libc::c_long == libc::SYS_brk {
        shrink(shared, args[0])
    } else {
        change(number, args)
    };
    let Some(Change { op, start, len }) = change else {
        return (0, None);
    };
    let end = start.saturating_add(len);
    let mut span = (start, end);
    if let Some((to, len)) = target(number, args) {
        // One guard over both: too much is only too careful.
        span = (start.min(to), end.max(to.saturating_add(len)));
    }
    let guard = shared.guard(span.0, span.1);
    let word = guard.map_or(0, |guard| core::ptr::from_ref(guard).expose_provenance());
    // What was promoted once may be in pieces still.
    let concerned = if op == Op::Remap {
        COUNTERS.promotions.load(Ordering::Relaxed) > 0
    } else {
        shared.promoted.overlaps(start, end)
    };
    if !concerned {
        return (word, None);
    }
    let answer = match op {
        Op::Remap => match ask(shared, op, core::array::from_fn(|i| args[i] as u64)) {
            Ok(super::remap::NOT_NEEDED) | Err(libc::EAGAIN | libc::ENOSYS) => None,
            Ok(addr) => Some(addr as isize),
            Err(errno) => Some(-errno as isize),
        },
        Op::Discard => match ask(shared, op, [start as u64, end as u64, args[2] as u64, 0, 0]) {
            Ok(1) => Some(0),
            _ => None,
        },
        _ => {
            let _ = ask(shared, op, [start as u64, end as u64, 0, 0, 0]);
            None
        }
    };
    (word, answer)
}

/// Asks the service, again while it cannot do it yet.
fn ask(shared: &Shared, op: Op, args: [u64; 5]) -> super::sys::Sys<u64> {
    for _ in 0..200 {
        match shared.call(op, args) {
            Err(libc::EAGAIN) => crate::rawsys::sleep(core::time::Duration::from_micros(200)),
            answer => return answer,
        }
    }
    Err(libc::EAGAIN)
}

/// What a brk would take away.
fn shrink(shared: &Shared, to: usize) -> Option<Change> {
    if to == 0 || shared.promoted.is_empty() {
        return None;
    }
    let top = super::sys::mem::program_break();
    (to < top).then_some(Change {
        op: Op::Demote,
        start: to,
        len: top - to,
    })
}

fn after(guard: usize) {
    if let Some(shared) = shared::existing() {
        if let Some(guard) = shared.guard_at(guard) {
            Guard::release(guard);
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Hooks {
    /// Finds libc's system calls and prepares what leads here. Runs in the
    /// thread that starts the service.
    pub fn prepare() -> Self {
        use super::sys::text::{find, Site, Thunks};
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
        match Thunks::make(&hooks.sites[..hooks.count], &HOOK) {
            Ok(thunks) => hooks.page = thunks.page,
            Err(errno) => {
                debug_log!("libc's memory calls are not met: errno {errno}");
                hooks.count = 0;
            }
        }
        PAGE.store(hooks.page, Ordering::Release);
        hooks
    }
}

impl Service {
    /// Writes the hooks, with all threads standing, before the first promotion.
    #[cfg(target_arch = "x86_64")]
    pub fn write_hooks(&mut self) {
        use super::sys::text::Thunks;
        if core::mem::replace(&mut self.hooks.tried, true) || self.hooks.count == 0 {
            return;
        }
        WRITTEN.store(true, Ordering::Release);
        let thunks = Thunks {
            page: self.hooks.page,
        };
        for i in 0..self.hooks.count {
            match thunks.lead(i, &self.hooks.sites[i]) {
                Ok(()) => crate::debug::count(&COUNTERS.hooks_installed),
                Err(errno) => {
                    let number = self.hooks.sites[i].number;
                    debug_log!("libc's system call {number} is not met: errno {errno}");
                }
            }
        }
    }

    /// On this machine the kernel's events are all there is.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn write_hooks(&mut self) {}
}
