// SPDX-License-Identifier: MIT OR Apache-2.0
//! Closes peers' descriptors in the service's second thread, which nothing waits for.
//!
//! The last close of a file can sleep for as long as its sender likes: in a file
//! system that he serves, or until a socket's peer has read what lingers. The
//! service's second thread ([`crate::user::owner::copier`]) may do that; where it is held up,
//! copies are made without it.

#![forbid(unsafe_code)]

use crate::fd::OwnedFd;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// Most descriptors that wait to be closed. Where there are more they stay open:
/// the thread is held up, and whoever does that fills his own purse.
const ROOM: usize = 1024;

/// Descriptors on their way from the service to the thread. All zero is none.
pub struct Closing {
    put: AtomicU32,
    taken: AtomicU32,
    fds: [AtomicI32; ROOM],
}

impl Closing {
    /// For the service alone. It comes back where there is no room.
    pub fn put(&self, fd: OwnedFd) -> Result<(), OwnedFd> {
        let put = self.put.load(Ordering::Relaxed);
        if put.wrapping_sub(self.taken.load(Ordering::Acquire)) as usize == ROOM {
            return Err(fd);
        }
        self.fds[put as usize % ROOM].store(fd.keep().number(), Ordering::Relaxed);
        self.put.store(put.wrapping_add(1), Ordering::Release);
        Ok(())
    }

    /// For the thread alone.
    fn take(&self) -> Option<OwnedFd> {
        let taken = self.taken.load(Ordering::Relaxed);
        if taken == self.put.load(Ordering::Acquire) {
            return None;
        }
        let fd = self.fds[taken as usize % ROOM].load(Ordering::Relaxed);
        self.taken.store(taken.wrapping_add(1), Ordering::Release);
        Some(OwnedFd::new(fd))
    }

    /// Closes what is there to close. For the thread.
    pub fn close_all(&self) {
        while self.take().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_come_out_in_order_and_no_more_than_fit() {
        let closing = Closing {
            put: AtomicU32::new(u32::MAX - 1),
            taken: AtomicU32::new(u32::MAX - 1),
            fds: [const { AtomicI32::new(0) }; ROOM],
        };
        // None of them is open, and none is closed here.
        const FIRST: usize = 1 << 20;
        let put = |i: usize| {
            let sent = closing.put(OwnedFd::new((FIRST + i) as i32));
            sent.map_err(OwnedFd::keep).is_ok()
        };
        let take = || closing.take().map(|fd| fd.keep().number() as usize - FIRST);
        assert!((0..ROOM).all(put));
        assert!(!put(9));
        assert_eq!((take(), take()), (Some(0), Some(1)));
        assert!(put(7) && put(8) && !put(9));
        let rest: Vec<_> = core::iter::from_fn(take).collect();
        assert_eq!(rest.len(), ROOM);
        assert_eq!(rest[ROOM - 3..], [ROOM - 1, 7, 8]);
    }
}
