// SPDX-License-Identifier: MIT OR Apache-2.0
//! A copy of pages that two threads of the service share.

#![forbid(unsafe_code)]

use crate::errno::Errno;
use crate::fd::Fd;
use crate::user::sys::policy::Policy;
use crate::user::sys::{mem, task, uffd, Sys, HUGE};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// What one of the two takes at a time, in bytes: some 50 us.
pub const PIECE: usize = 128 * 1024;

/// As a userfaultfd: nothing is copied, but each piece is made a huge page.
const TO_HUGE: Fd = Fd::NONE;

/// One copy at a time. All zero: none yet, and no thread.
pub struct Copying {
    /// Number of the copy (32 bits), its pieces (16), and the next one to take
    /// (16). In one word, so that a piece can only be taken of the copy whose
    /// words below have been read: they change when every piece is done.
    ticket: AtomicU64,
    to: AtomicUsize,
    from: AtomicUsize,
    len: AtomicUsize,
    userfaultfd: AtomicI32,
    node: AtomicU32,
    done: AtomicU32,
    /// The first error, as an errno.
    failed: AtomicI32,
    /// Counts copies; the copier sleeps on it.
    pub bell: AtomicU32,
    /// The thread is there.
    pub started: AtomicU32,
}

impl Copying {
    /// Begins to make huge pages of `len` bytes at `at`.
    pub fn begin_huge(&self, at: usize, len: usize) {
        self.begin(TO_HUGE, at, 0, len, 0);
    }

    fn pieces(ticket: u64) -> usize {
        (ticket >> 16 & 0xffff) as usize
    }

    /// Begins the copy of `len` bytes to pages of a node, whose number is one less
    /// than `node`; 0: any.
    pub fn begin(&self, fd: Fd, to: usize, from: usize, len: usize, node: u32) {
        self.node.store(node, Ordering::Relaxed);
        self.to.store(to, Ordering::Relaxed);
        self.from.store(from, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.userfaultfd.store(fd.number(), Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
        let number = (self.ticket.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        let piece = if fd == TO_HUGE { HUGE } else { PIECE };
        let pieces = len.div_ceil(piece) as u64;
        let ticket = number << 32 | pieces << 16;
        self.ticket.store(ticket, Ordering::Release);
    }

    /// Copies pieces as long as there are some to take. `last` is the calling thread's
    /// node, as for [`Self::begin`].
    pub fn take_part(&self, last: &mut u32) {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        loop {
            let piece = (ticket & 0xffff) as usize;
            if piece >= Self::pieces(ticket) {
                return;
            }
            let to = self.to.load(Ordering::Relaxed);
            let from = self.from.load(Ordering::Relaxed);
            let len = self.len.load(Ordering::Relaxed);
            let fd = Fd::new(self.userfaultfd.load(Ordering::Relaxed));
            let node = self.node.load(Ordering::Relaxed);
            let (taken, seen) = (Ordering::AcqRel, Ordering::Acquire);
            match self
                .ticket
                .compare_exchange(ticket, ticket + 1, taken, seen)
            {
                Ok(_) => ticket += 1,
                Err(other) => {
                    ticket = other;
                    continue;
                }
            }
            if let Some(number) = node.checked_sub(1).filter(|_| node != *last) {
                // Where that is refused the first thread has heard of it.
                let _ = Policy::preferred(number).use_here();
                *last = node;
            }
            // After an error the rest is only counted.
            if self.failed.load(Ordering::Relaxed) == 0 {
                let done = if fd == TO_HUGE {
                    mem::collapse(to + piece * HUGE, HUGE)
                } else {
                    let at = piece * PIECE;
                    uffd::copy_pages(fd, to + at, from + at, PIECE.min(len - at))
                };
                if let Err(errno) = done {
                    self.failed.store(errno.number(), Ordering::Relaxed);
                }
            }
            let done = self.done.fetch_add(1, Ordering::Release) as usize + 1;
            if done == Self::pieces(ticket) {
                task::futex_wake(&self.done);
            }
        }
    }

    /// Wakes the copier.
    pub fn ring(&self) {
        self.bell.fetch_add(1, Ordering::Release);
        task::futex_wake(&self.bell);
    }

    /// Waits until every piece is copied.
    pub fn await_end(&self) -> Sys<()> {
        let pieces = Self::pieces(self.ticket.load(Ordering::Relaxed));
        loop {
            let done = self.done.load(Ordering::Acquire);
            if done as usize == pieces {
                break;
            }
            task::futex_wait(&self.done, done, 100);
        }
        match self.failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            errno => Err(Errno::new(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::OwnedFd;
    use crate::user::sys::held;
    use std::sync::atomic::AtomicBool;

    /// A mapping of a new file, watched for missing pages.
    fn watched(fd: Fd, len: usize) -> (OwnedFd, usize) {
        let file = mem::memfd(c"copier").expect("memfd");
        mem::set_size(file.fd(), len).expect("size");
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let to = held::map(0, len, rw, libc::MAP_SHARED, file.fd(), 0).expect("mmap");
        uffd::register(fd, to, len, uffd::MODE_MISSING).expect("register");
        (file, to)
    }

    #[test]
    fn two_threads_copy_each_piece_once_and_none_of_another_copy() {
        const LARGEST: usize = 5 * PIECE + 4096;
        let Ok(userfaultfd) = uffd::open(uffd::FEATURE_MISSING_SHMEM) else {
            return; // not in this sandbox
        };
        let fd = userfaultfd.fd();
        static COPYING: Copying = Copying {
            ticket: AtomicU64::new(0),
            to: AtomicUsize::new(0),
            from: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            userfaultfd: AtomicI32::new(0),
            node: AtomicU32::new(0),
            done: AtomicU32::new(0),
            failed: AtomicI32::new(0),
            bell: AtomicU32::new(0),
            started: AtomicU32::new(0),
        };
        static OVER: AtomicBool = AtomicBool::new(false);
        // It never sleeps, so as to meet every moment of the other.
        let second = std::thread::spawn(|| {
            while !OVER.load(Ordering::Relaxed) {
                COPYING.take_part(&mut 0);
            }
        });
        let source: Vec<u64> = (0..LARGEST as u64 / 8).collect();
        for round in 0..500 {
            let len = LARGEST - round % 6 * PIECE;
            let (file, to) = watched(fd, len);
            COPYING.begin(fd, to, source.as_ptr().addr(), len, 0);
            COPYING.take_part(&mut 0);
            assert_eq!(COPYING.await_end(), Ok(()));
            uffd::unregister(fd, to, len).expect("unregister");
            // A page that is missing reads as zeros here.
            let mut copy = vec![0u64; len / 8];
            let read = held::read_into(file.fd(), copy.as_mut_ptr().addr(), len, 0);
            assert_eq!(read, Ok(()));
            let wrong = (0..len / 8).find(|&i| copy[i] != source[i]);
            assert_eq!(wrong, None, "round {round}");
            held::unmap(to, len).expect("munmap");
        }
        // A page that is there already is an error, told once all is done.
        let (_file, to) = watched(fd, LARGEST);
        COPYING.begin(fd, to, source.as_ptr().addr(), LARGEST, 0);
        COPYING.take_part(&mut 0);
        assert_eq!(COPYING.await_end(), Ok(()));
        COPYING.begin(fd, to, source.as_ptr().addr(), LARGEST, 0);
        COPYING.take_part(&mut 0);
        assert_eq!(COPYING.await_end(), Err(Errno::EEXIST));
        OVER.store(true, Ordering::Relaxed);
        second.join().expect("the second thread");
    }
}
