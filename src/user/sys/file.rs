// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls on an open file or directory, of any kind.

use super::{sys, Sys};
use crate::fd::Fd;

/// fstat(2).
pub fn stat(fd: Fd) -> Sys<libc::stat> {
    let mut stat = core::mem::MaybeUninit::<libc::stat>::zeroed();
    sys!(libc::SYS_fstat, fd, stat.as_mut_ptr())?;
    // SAFETY: all-zero is a valid stat and the kernel has filled it.
    Ok(unsafe { stat.assume_init() })
}

/// Goes to the start of an open directory.
pub fn rewind(fd: Fd) -> Sys<()> {
    sys!(libc::SYS_lseek, fd, 0, libc::SEEK_SET).map(drop)
}

/// Reads records of an open directory; answers how many bytes came, 0 at the end.
pub fn read_records(fd: Fd, into: &mut [u64]) -> Sys<usize> {
    let size = core::mem::size_of_val(into);
    sys!(libc::SYS_getdents64, fd, into.as_mut_ptr(), size)
}
