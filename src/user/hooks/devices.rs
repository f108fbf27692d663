// SPDX-License-Identifier: MIT OR Apache-2.0
//! Promotes memory that the program is about to register with a device.
//!
//! What a device has pinned cannot be promoted any more, and registrations are
//! kept for hours. So the calls that pin are met, too, and what of their memory
//! is in a segment moves into the file before: what is pinned then are the pages
//! that peers have. What is in the way and passes is waited for, each thing as long
//! as it may take. Whatever cannot be promoted by then is pinned as it is.

#![forbid(unsafe_code)]

use crate::errno::Errno;
use crate::user::arena::{Command, Shared};
use crate::user::sys::{mem, page_down, page_up, task, Span, PAGE, TOP};
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

/// `io_uring_register`, which libc has no function for.
pub const IO_URING_REGISTER: usize = 427;

/// The one ioctl of InfiniBand devices (`RDMA_VERBS_IOCTL`).
const VERBS: usize = 0xc018_1b01;

/// No call is held up for longer, in nanoseconds.
const PATIENCE: u64 = 10_000_000_000;

/// A tracer that looks at a thread and goes. A debugger stays.
static TRACERS: Obstacle = Obstacle::new(2_000_000_000);
/// A pin of a moment, as of a direct read. A registration stays.
static PINS: Obstacle = Obstacle::new(50_000_000);
/// A child that ends or becomes another program. One that computes stays.
static CHILDREN: Obstacle = Obstacle::new(500_000_000);

/// Something that mostly passes. Whether it does is told only by waiting.
struct Obstacle {
    /// How long it is waited for in one call, in nanoseconds, at first.
    limit: u64,
    /// Calls that have waited in vain, less those that have not: each halves the limit.
    vain: AtomicU32,
}

impl Obstacle {
    /// Most halvings.
    const MOST: u32 = 7;

    const fn new(limit: u64) -> Self {
        Self {
            limit,
            vain: AtomicU32::new(0),
        }
    }

    /// How long it is waited for in a call that meets it now.
    fn limit(&self) -> u64 {
        self.limit >> self.vain.load(Ordering::Relaxed)
    }

    /// A call that waited for it has ended.
    fn learn(&self, in_vain: bool) {
        let next = |vain: u32| {
            Some(if in_vain {
                Self::MOST.min(vain + 1)
            } else {
                vain.saturating_sub(1)
            })
        };
        let order = Ordering::Relaxed;
        let _ = self.vain.fetch_update(order, order, next);
    }
}

/// One call's wait for an obstacle.
struct Wait {
    obstacle: &'static Obstacle,
    /// Until when it may last; 0: the obstacle has not been met.
    until: u64,
    in_vain: bool,
}

impl Wait {
    const fn new(obstacle: &'static Obstacle) -> Self {
        Self {
            obstacle,
            until: 0,
            in_vain: false,
        }
    }

    /// The obstacle is there; whether it has been waited for a little more.
    fn pause(&mut self) -> bool {
        let now = task::now();
        if self.until == 0 {
            self.until = now + self.obstacle.limit();
        }
        self.in_vain |= now >= self.until;
        if !self.in_vain {
            nap();
        }
        !self.in_vain
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.until != 0 {
            self.obstacle.learn(self.in_vain);
        }
    }
}

/// What one call waits for.
struct Waits {
    deadline: u64,
    tracer: Wait,
    pin: Wait,
    child: Wait,
}

impl Waits {
    fn new() -> Self {
        Self {
            deadline: task::now() + PATIENCE,
            tracer: Wait::new(&TRACERS),
            pin: Wait::new(&PINS),
            child: Wait::new(&CHILDREN),
        }
    }
}

/// Between two looks at all processes.
const LONG_NAP: Duration = Duration::from_millis(20);

fn nap() {
    crate::rawsys::sleep(Duration::from_micros(200));
}

/// Memory of the program that may be anything.
fn peek<const N: usize>(at: u64) -> Option<[u64; N]> {
    let mut bytes = [[0u8; 8]; N];
    let pid = crate::rawsys::getpid();
    mem::peek_process(pid, at as usize, bytes.as_flattened_mut()).ok()?;
    Some(bytes.map(u64::from_le_bytes))
}

/// Promotes what a system call is about to pin.
pub fn before(shared: &Shared, number: usize, args: [usize; 6]) {
    let _ = if number == IO_URING_REGISTER {
        before_io_uring(shared, args)
    } else if number == libc::SYS_ioctl as usize && args[1] == VERBS {
        before_verbs(shared, args[2] as u64)
    } else {
        None
    };
}

/// A list of buffers, by one of three requests.
fn before_io_uring(shared: &Shared, args: [usize; 6]) -> Option<()> {
    let [_, request, at, count, ..] = args;
    let mut waits = Waits::new();
    let (mut at, count) = match request {
        // IORING_REGISTER_BUFFERS
        0 => (at as u64, count),
        // IORING_REGISTER_BUFFERS2: count and flags, reserved, list
        15 => peek::<3>(at as u64).map(|[n, _, list]| (list, n as u32 as usize))?,
        // IORING_REGISTER_BUFFERS_UPDATE: offset, list, tags, count
        16 => peek::<4>(at as u64).map(|[_, list, _, n]| (list, n as u32 as usize))?,
        // IORING_REGISTER_PBUF_RING: address, entries of 16 bytes. Other flags than
        // none: it is the kernel's memory.
        22 => {
            let [start, about] = peek(at as u64)?;
            if about >> 48 == 0 {
                share(shared, start, (about & 0xffff_ffff) << 4, &mut waits);
            }
            return Some(());
        }
        _ => return None,
    };
    // More is EINVAL.
    for _ in 0..count.min(1 << 14) {
        let [start, len] = peek(at)?;
        share(shared, start, len, &mut waits);
        at += 16;
    }
    Some(())
}

/// A memory region: by the method of its own, or by the command of old in a
/// wrapping of today.
fn before_verbs(shared: &Shared, at: u64) -> Option<()> {
    const OBJECT_DEVICE: u16 = 0;
    const INVOKE_WRITE: u16 = 0;
    const CORE_IN: u16 = 0;
    const WRITE_CMD: u16 = 2;
    const CMD_REG_MR: u64 = 9;
    const OBJECT_MR: u16 = 7;
    const REG_MR: u16 = 5;
    const ADDR: u16 = 4;
    const LENGTH: u16 = 5;
    let [head] = peek(at)?;
    let [_, object, method, attributes] = core::array::from_fn(|i| (head >> (16 * i)) as u16);
    let wanted = match (object, method) {
        (OBJECT_DEVICE, INVOKE_WRITE) => [CORE_IN, WRITE_CMD],
        (OBJECT_MR, REG_MR) => [ADDR, LENGTH],
        _ => return None,
    };
    let mut values = [None; 2];
    for i in 0..u64::from(attributes.min(32)) {
        let [about, value] = peek(at + 24 + 16 * i)?;
        if let Some(which) = wanted.iter().position(|&id| id == about as u16) {
            values[which] = Some(value);
        }
    }
    let (mut start, mut len) = (values[0]?, values[1]?);
    if object == OBJECT_DEVICE {
        if len != CMD_REG_MR {
            return None;
        }
        // Where the answer goes, start, length.
        let request: [u64; 3] = peek(start)?;
        (start, len) = (request[1], request[2]);
    }
    share(shared, start, len, &mut Waits::new());
    Some(())
}

fn share(shared: &Shared, start: u64, len: u64, waits: &mut Waits) {
    let (start, end) = (
        start as usize,
        (start.saturating_add(len) as usize).min(TOP),
    );
    let (mut at, end) = (page_down(start), page_up(end));
    // Whether the last thing that was met is pinned, and how much has been left out
    // since something was shared. What is pinned is mostly large, and to find out about
    // each of its pages would stop the program as often.
    let (mut pinned, mut left_out) = (false, 0);
    let mut all = true;
    while at < end && task::now() < waits.deadline {
        let until = if pinned { at + PAGE } else { end };
        match shared.call(Command::Pin {
            span: Span::new(at, until),
        }) {
            Ok(next) => (at, pinned, left_out) = (next as usize, false, 0),
            Err(Errno::EAGAIN) => nap(),
            Err(Errno::EBUSY) => {
                pinned = true;
                if !waits.pin.pause() {
                    all = false;
                    left_out = (left_out * 2).max(PAGE);
                    at = at.saturating_add(left_out);
                }
            }
            Err(Errno::EPERM) if waits.tracer.pause() => {}
            // To look for it takes the service long.
            Err(Errno::ECHILD) if waits.child.pause() => crate::rawsys::sleep(LONG_NAP),
            Err(_) => break,
        }
    }
    if at < end || !all {
        let _ = shared.call(Command::Pinned {
            span: Span::new(page_down(start), end),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_pass_is_waited_for_less_each_time() {
        static OBSTACLE: Obstacle = Obstacle::new(1 << 20);
        let met = |in_vain| {
            let mut wait = Wait::new(&OBSTACLE);
            wait.until = 1;
            wait.in_vain = in_vain;
        };
        for n in 1..20 {
            met(true);
            assert_eq!(OBSTACLE.limit(), 1 << (20 - n.min(7)));
        }
        met(false);
        assert_eq!(OBSTACLE.limit(), 1 << 14);
        drop(Wait::new(&OBSTACLE));
        assert_eq!(OBSTACLE.limit(), 1 << 14);
        for _ in 0..20 {
            met(false);
        }
        assert_eq!(OBSTACLE.limit(), 1 << 20);
    }
}
