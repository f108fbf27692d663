// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program's side of memory that is born shared.

#![forbid(unsafe_code)]

use crate::fd::Fd;
use crate::user::arena::{Command, Shared};
use crate::user::sys::{held, page_up, Span};

/// How long a thread waits for the service to begin, in milliseconds. What it has is
/// memory already.
const PATIENCE: u32 = 2;

/// Makes the mapping that a thread is about to make, if it is one that is to be
/// shared from the start; answers what mmap does.
pub fn map(shared: &Shared, number: usize, args: [usize; 6]) -> Option<isize> {
    let [addr, len, prot, flags, ..] = args;
    if number as libc::c_long != libc::SYS_mmap || addr != 0 {
        return None;
    }
    let plain = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    let rw = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    if prot != rw || flags & !(libc::MAP_NORESERVE as usize) != plain {
        return None;
    }
    let len = page_up(len);
    if len == 0 || !shared.born.wants(len) {
        return None;
    }
    let start = match held::map(0, len, prot as i32, flags as i32, Fd::NONE, 0) {
        Ok(start) => start,
        Err(errno) => return Some(errno.negated()),
    };
    let span = Span::of(start, len);
    if !matches!(
        shared.call_soon(Command::Bear { span }, PATIENCE),
        Some(Ok(_))
    ) {
        shared.born.forget(len);
    }
    Some(start as isize)
}
