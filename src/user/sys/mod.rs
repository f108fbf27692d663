// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls of the user back end. `unsafe` is here, and beside it only
//! in the files that `ci/house.py` lists.
//!
//! Everything answers a negated errno turned positive, never touches the
//! thread's own `errno`, never allocates and never takes a lock: the service
//! task shares the program's memory but none of its thread-local storage, and
//! whatever it took could be held by a thread that it has just stopped.

pub mod advice;
pub mod cgroup;
pub mod clone;
pub mod dir;
pub mod file;
pub mod forking;
pub mod held;
pub mod hugetlb;
#[cfg(feature = "fault-injection")]
pub mod inject;
pub mod maps;
pub mod mem;
pub mod message;
pub mod net;
pub mod policy;
pub mod procfs;
pub mod regs;
pub mod rights;
pub mod sched;
pub mod smaps;
pub mod space;
pub mod spare;
pub mod sysv;
pub mod task;
pub mod trace;
pub mod uffd;
pub mod valgrind;

use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use crate::rawsys;
pub use crate::user::span::{page_down, page_up, Span, BOTTOM, HUGE, PAGE, TOP};
use core::ffi::c_long;

/// A value, or an errno.
pub type Sys<T> = core::result::Result<T, Errno>;

/// Whether this machine's page size is the one supported.
pub fn supported_page_size() -> bool {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    size == PAGE as c_long
}

/// One system call. The wrappers in this folder are its callers, and those
/// files beside it with `unsafe`.
#[inline]
pub(in crate::user) fn call(nr: c_long, args: [usize; 6]) -> Sys<usize> {
    #[cfg(feature = "fault-injection")]
    inject::meet(nr, &args)?;
    let [a, b, c, d, e, f] = args;
    // SAFETY: each wrapper hands over numbers and pointers that are valid for
    // its own call; those that map or unmap memory document whose memory it is
    // and that the caller vouches for it.
    rawsys::check(unsafe { rawsys::syscall6(nr as usize, a, b, c, d, e, f) })
}

/// Up to six arguments, the rest zero. Without a call of memcpy: in a static program
/// its address is in a page of data that may just be changing places.
#[inline(always)]
pub(in crate::user) fn padded<const N: usize>(args: [usize; N]) -> [usize; 6] {
    core::array::from_fn(|i| if i < N { args[i] } else { 0 })
}

/// What can be an argument of a system call.
pub(in crate::user) trait Argument {
    fn word(self) -> usize;
}

macro_rules! arguments {
    ($($number:ty)*) => {
        $(impl Argument for $number {
            #[inline(always)]
            fn word(self) -> usize {
                self as usize
            }
        })*
    };
}
arguments! { i32 u32 i64 u64 isize usize }

impl<T> Argument for *const T {
    #[inline(always)]
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

impl<T> Argument for *mut T {
    #[inline(always)]
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

impl Argument for Fd {
    #[inline(always)]
    fn word(self) -> usize {
        self.number() as usize
    }
}

/// `sys!(number, arguments...)`: a system call.
macro_rules! sys {
    ($nr:expr $(, $arg:expr)* $(,)?) => {
        $crate::user::sys::call(
            $nr,
            $crate::user::sys::padded([$($crate::user::sys::Argument::word($arg)),*]),
        )
    };
}
pub(crate) use sys;

/// The descriptor that a system call has opened.
fn owned(answer: usize) -> OwnedFd {
    OwnedFd::new(answer as i32)
}

/// How often something that must not fail is tried, a millisecond apart.
const INSIST: u32 = 2000;

/// Calls what undoes something, or lets somebody go on, until it is done. The
/// kernel refuses such calls only where it is out of memory.
pub fn insist<T>(mut body: impl FnMut() -> Sys<T>) -> Sys<T> {
    let mut answer = Err(Errno::EAGAIN);
    repeat(&mut || {
        answer = body();
        answer.is_ok()
    });
    answer
}

fn repeat(body: &mut dyn FnMut() -> bool) {
    for _ in 0..INSIST {
        if body() {
            return;
        }
        rawsys::sleep(core::time::Duration::from_millis(1));
    }
    body();
}
