// SPDX-License-Identifier: MIT OR Apache-2.0
//! The number with which the kernel refuses a system call.

#![forbid(unsafe_code)]

use crate::error::Error;
use core::ffi::c_int;
use core::fmt;

/// Why the kernel refused a system call. Its names are those of errno(3).
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Errno(c_int);

/// The errnos that this library tells apart or answers itself.
macro_rules! names {
    ($($name:ident)*) => { $(pub const $name: Self = Self(libc::$name);)* };
}

impl Errno {
    names! {
        EACCES EAGAIN EBADF EBUSY ECHILD ECONNREFUSED EEXIST EFAULT EINPROGRESS EINTR EINVAL EIO
        EMFILE ENAMETOOLONG ENFILE ENOBUFS ENOENT ENOMEM ENOPROTOOPT ENOSYS ENOTDIR ENXIO EPERM
        EPROTO ERANGE ERESTART ESRCH ETIMEDOUT ETOOMANYREFS EXDEV
    }

    /// The errno with this number.
    pub const fn new(number: c_int) -> Self {
        Self(number)
    }

    /// The number, as a C caller sees it.
    pub const fn number(self) -> c_int {
        self.0
    }

    /// What a system call returns for it.
    pub const fn negated(self) -> isize {
        -(self.0 as isize)
    }
}

/// The number alone: names would be bytes in every program.
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::from_errno(errno.number())
    }
}

#[cfg(feature = "tool")]
impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.number())
    }
}
