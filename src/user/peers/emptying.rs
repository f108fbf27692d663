// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removes the pages of owners that have ended, piece by piece.
//!
//! To take a page away costs the kernel a quarter of a microsecond or more, so a
//! file of many gigabytes takes seconds, in which nobody may wait. What an owner
//! has left goes in order of addresses, and others are served in between.

#![forbid(unsafe_code)]

use crate::fd::{Fd, OwnedFd};
use crate::user::sys::{mem, task, TOP};

/// How long the service does nothing else, in nanoseconds.
const TURN: u64 = 10_000_000;

/// How much is taken away between two looks at the clock.
const PIECE: usize = 16 << 20;

/// How many files are emptied at a time; what is beyond is emptied at once.
const FILES: usize = 64;

/// Files that are being emptied, and how far that is. All zero is none.
pub struct Emptying {
    len: usize,
    files: [(Option<OwnedFd>, usize); FILES],
}

/// Takes away the next of what a file has; `false` where there is no more.
fn empty_piece(file: Fd, at: &mut usize) -> bool {
    let Some(data) = mem::next_data(file, *at, TOP) else {
        return false;
    };
    let start = data.start();
    let _ = mem::punch(file, start, PIECE.min(TOP - start));
    // Whoever fills it anew is not followed.
    *at = start + PIECE;
    true
}

/// Takes away all that a file has.
pub fn empty(file: Fd) {
    let mut at = 0;
    while empty_piece(file, &mut at) {}
}

impl Emptying {
    pub fn is_done(&self) -> bool {
        self.len == 0
    }

    /// An owner has ended: its file is emptied, and closed then.
    pub fn take(&mut self, file: OwnedFd) {
        if let Some(place) = self.files.get_mut(self.len) {
            *place = (Some(file), 0);
            self.len += 1;
            // A small one is empty after that.
            self.go_on();
        } else {
            empty(file.fd());
        }
    }

    /// Does a turn's work on the last of them.
    pub fn go_on(&mut self) {
        let Some(last) = self.len.checked_sub(1) else {
            return;
        };
        let until = task::now() + TURN;
        let (file, at) = &mut self.files[last];
        while task::now() < until {
            let more = file.as_ref().is_some_and(|file| empty_piece(file.fd(), at));
            if !more {
                *file = None;
                self.len = last;
                return;
            }
        }
    }
}
