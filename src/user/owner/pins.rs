// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pinned pages are not promoted.
//!
//! A device that has pinned a page (RDMA, io_uring buffers, asynchronous direct
//! I/O, a GPU) goes on writing to that very page: after a copy, what it writes
//! would be lost without an error. The kernel tells of pins to nobody, but
//! UFFDIO_MOVE refuses to move a pinned page. So the old pages are moved aside
//! with it, all threads standing, and one that is refused stays where it is. A pin that
//! has ended by then has left its bytes in the page, which is copied after that.
//!
//! Of a huge page all is held by one pin, since it cannot be split: the kernel
//! refuses each part of it, or never stops trying ([`super::rescue`]).
//!
//! It also refuses pages that a fork child still shares. Those cannot be pinned
//! for writing; a write that changes nothing gives the program its own copy.

#![forbid(unsafe_code)]

use super::refusal::Refusal;
use super::rescue::Rescue;
use super::Owner;
use crate::debug_log;
use crate::errno::Errno;
use crate::user::sys::maps::Mapping;
use crate::user::sys::{held, mem, task, uffd, Span, HUGE, PAGE};

/// Tries for a page that the kernel is working on, or has just unshared.
const TRIES: u32 = 64;

/// How long memory is left alone whose move had to be ended twice, in nanoseconds,
/// and how often that doubles: the program stood all the while.
const REST: u64 = 1_000_000_000;
const DOUBLINGS: u32 = 4;

/// The last move that had to be ended, and how often. All zero: none.
#[derive(Clone, Copy)]
pub struct Stuck {
    addr: usize,
    times: u32,
    until: u64,
}

impl Owner {
    /// Whether the pages of a mapping can be asked for pins: the kernel moves
    /// writable anonymous memory only, and a device writes to no other.
    pub fn can_tell_pins(&self, mapping: &Mapping) -> bool {
        self.can_move_pages && mapping.write && mapping.inode == 0 && !mapping.shared
    }

    /// Moves the pages of `span` to the empty range at `aside`, up to the first that does not move: a device may have pinned it. Answers how many bytes
    /// were moved, and why not more. Both ranges have the same protection and are
    /// watched by the userfaultfd that moves them, the first for missing pages.
    pub fn move_aside(
        &mut self,
        rescue: &Rescue,
        span: Span,
        aside: usize,
    ) -> (usize, Option<Refusal>) {
        let (lo, len) = (span.start(), span.len());
        let mut done = 0;
        let mut tries = 0;
        while done < len {
            let (from, to) = (lo + done, aside + done);
            let moved = rescue.guard(to, len - done, || {
                uffd::move_pages(self.precopy, to, from, len - done)
            });
            match moved {
                Ok(moved) => {
                    done += moved;
                    tries = 0;
                }
                Err(errno @ (Errno::EBUSY | Errno::EAGAIN)) if tries < TRIES => {
                    tries += 1;
                    if errno == Errno::EBUSY && tries % 8 == 1 {
                        let _ = mem::unshare(from);
                    }
                }
                Err(errno) => {
                    debug_log!("page {from:#x} does not move: errno {errno}");
                    let why = match errno {
                        Errno::EBUSY => Refusal::Pinned,
                        // By the rescue alone.
                        Errno::EEXIST => self.note_stuck(from),
                        // The kernel works on the page, or the program has just
                        // changed what is mapped there.
                        Errno::EAGAIN | Errno::ENOENT => Refusal::Later,
                        errno => Refusal::Os(errno),
                    };
                    return (done, Some(why));
                }
            }
        }
        (done, None)
    }

    /// A move had to be ended.
    fn note_stuck(&mut self, addr: usize) -> Refusal {
        let stuck = &mut self.stuck;
        if stuck.times == 0 || addr / HUGE != stuck.addr / HUGE {
            (stuck.addr, stuck.times, stuck.until) = (addr, 1, 0);
            return Refusal::Later;
        }
        stuck.until = task::now() + (REST << (stuck.times - 1).min(DOUBLINGS));
        stuck.times = stuck.times.saturating_add(1);
        Refusal::Pinned
    }

    /// Whether a try to move this would hold the program up, as the last one did.
    pub fn is_stuck(&self, addr: usize) -> bool {
        addr / HUGE == self.stuck.addr / HUGE && task::now() < self.stuck.until
    }

    /// Undoes [`Self::move_aside`] for a span all of which was moved.
    pub fn move_back(&mut self, span: Span, aside: usize) {
        let (lo, done) = (span.start(), span.len());
        let mut back = 0;
        let mut tries = 0;
        while back < done {
            let moved = if crate::testing::moving_back_is_refused() {
                Err(Errno::EINVAL)
            } else {
                uffd::move_pages(self.precopy, lo + back, aside + back, done - back)
            };
            match moved {
                Ok(moved) => back += moved,
                Err(Errno::EBUSY | Errno::EAGAIN) if tries < TRIES * 1000 => tries += 1,
                Err(errno) => {
                    debug_log!("{:#x} goes back as a copy: errno {errno}", lo + back);
                    return self.copy_back(span.from(lo + back), aside + back);
                }
            }
        }
    }

    /// Undoes a move that the kernel will not undo. The pages have just come from
    /// there, and nobody runs; should they be refused all the same, the content
    /// is what counts.
    fn copy_back(&mut self, span: Span, aside: usize) {
        let (lo, len) = (span.start(), span.len());
        // While they are watched for missing pages, a touch of one that has been
        // moved, or was never there, would wait for an answer of ours, for ever.
        let _ = uffd::unregister(self.precopy, lo, len);
        for at in (0..len).step_by(PAGE) {
            let _ = held::copy_page(aside + at, lo + at);
        }
    }
}
