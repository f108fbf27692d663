// SPDX-License-Identifier: MIT OR Apache-2.0
//! A way out of a move of pages that would never end.
//!
//! Where a device has pinned a part of a huge page, some kernels try to split it
//! inside `UFFDIO_MOVE` again and again: no signal but a deadly one ends that, and
//! the program stands meanwhile. It also ends when the place that the page is to
//! go to is not empty any more (EEXIST). So a timer has the service's second
//! thread look at the move, and where that has cost processor time without moving
//! a page, it gives the place pages.

#![forbid(unsafe_code)]

use crate::user::program::alarm;
use crate::user::sys::{held, sys, task, Sys, PAGE};
use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

const SIGNAL: c_int = libc::SIGUSR2;

/// Nanoseconds between looks, of the clock on the wall.
const INTERVAL: usize = 10_000_000;

/// Nanoseconds of processor time in which a page ought to move. In a virtual machine
/// that has no processor just then they pass, too: who was ended once tries again.
const LIMIT: u64 = 100_000_000;

/// Most bytes of one move.
const LARGEST: usize = 256 * PAGE;

/// The timer's number plus 1; 0: none, and nobody comes to the rescue.
static TIMER: AtomicI32 = AtomicI32::new(0);

/// Where pages are moved to now, and how much; 0: nowhere.
static PLACE: AtomicUsize = AtomicUsize::new(0);
static LEN: AtomicUsize = AtomicUsize::new(0);

/// How many pages were there at the last look, and what the move had cost then.
static PRESENT: AtomicUsize = AtomicUsize::new(UNKNOWN);

/// There was no look yet.
const UNKNOWN: usize = usize::MAX;
static COST: AtomicU64 = AtomicU64::new(0);

/// Has `helper`, a thread of the calling process that calls [`listen`], look
/// after the moves of the calling thread.
pub fn prepare(helper: c_int) {
    TIMER.store(0, Ordering::Relaxed);
    if alarm::handle(SIGNAL, look).is_err() {
        return;
    }
    const SIGEV_THREAD_ID: c_int = 4;
    let (mut event, mut timer) = ([0i32; 16], 0i32);
    (event[2], event[3], event[4]) = (SIGNAL, SIGEV_THREAD_ID, helper);
    let created = sys!(
        libc::SYS_timer_create,
        libc::CLOCK_MONOTONIC,
        event.as_mut_ptr(),
        &raw mut timer
    );
    if created.is_ok() {
        TIMER.store(timer + 1, Ordering::Relaxed);
    }
}

/// For the helper: lets the timer reach it.
pub fn listen() {
    task::unblock_signal(SIGNAL);
}

/// As long as this lives the helper looks after the moves of the service's first thread.
pub struct Rescue {
    timer: c_int,
}

impl Rescue {
    pub fn begin() -> Self {
        let timer = TIMER.load(Ordering::Relaxed) - 1;
        if timer >= 0 {
            ring(timer, INTERVAL);
        }
        Rescue { timer }
    }

    /// Moves pages to the empty range `place` by `body`, which does not go on for
    /// ever: it is EEXIST then.
    pub fn guard<T>(&self, place: usize, len: usize, body: impl FnOnce() -> T) -> T {
        PRESENT.store(UNKNOWN, Ordering::Relaxed);
        LEN.store(len.min(LARGEST), Ordering::Relaxed);
        PLACE.store(place, Ordering::Release);
        let done = body();
        PLACE.store(0, Ordering::Release);
        done
    }
}

impl Drop for Rescue {
    fn drop(&mut self) {
        if self.timer >= 0 {
            ring(self.timer, 0);
        }
    }
}

/// Rings each `interval` nanoseconds; 0: no more.
fn ring(timer: c_int, interval: usize) {
    let times = [0, interval, 0, interval];
    let _ = sys!(libc::SYS_timer_settime, timer, 0, times.as_ptr(), 0);
}

/// Processor time of the service's first thread, in nanoseconds.
fn cost() -> u64 {
    // The kernel's own name for the clock of a thread.
    const THREAD_SCHED: c_int = 6;
    let clock = (!task::own_pid() << 3) | THREAD_SCHED;
    let mut time = [0u64; 2];
    let _ = sys!(libc::SYS_clock_gettime, clock, time.as_mut_ptr());
    time[0] * 1_000_000_000 + time[1]
}

fn pages_at(place: usize, len: usize) -> Sys<usize> {
    let mut there = [0u8; LARGEST / PAGE];
    sys!(libc::SYS_mincore, place, len, there.as_mut_ptr())?;
    Ok(there.iter().map(|&page| usize::from(page & 1)).sum())
}

/// Looks whether the move goes on; the helper's handler. It touches nothing by
/// itself: what it looks at may be unmapped at any time.
extern "C" fn look(_: c_int) {
    const MADV_POPULATE_READ: c_int = 22;
    let place = PLACE.load(Ordering::Acquire);
    let len = LEN.load(Ordering::Relaxed);
    if place == 0 {
        return;
    }
    let Ok(present) = pages_at(place, len) else {
        return;
    };
    let cost = cost();
    if PRESENT.swap(present, Ordering::Relaxed) != present {
        COST.store(cost, Ordering::Relaxed);
    } else if cost.saturating_sub(COST.load(Ordering::Relaxed)) > LIMIT {
        let _ = held::advise(place, len, MADV_POPULATE_READ);
    }
}
