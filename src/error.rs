// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every way an operation can fail, and the errno a C caller sees.

use core::ffi::c_int;

/// Result of an operation of either back end.
pub type Result<T> = core::result::Result<T, Error>;

/// The caller is a fork child that uses a descriptor of its parent
/// (`XPMEM_ERRNO_NOPROC` of the C header).
pub const ERRNO_NOPROC: c_int = 2004;

/// A failure, named by the errno that the XPMEM ABI documents for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// An argument is malformed or out of range.
    Invalid,
    /// The segment, its owner or the permit is gone or never was.
    NotFound,
    /// The object belongs to somebody else, or the mode bits deny.
    Denied,
    /// The range is busy.
    Busy,
    /// No memory, or no address space left.
    NoMemory,
    /// A pointer handed to `xpmem_ioctl` cannot be read or written.
    Fault,
    /// No back end can serve in this process.
    Unsupported,
    /// No such ioctl.
    NoIoctl,
    /// Anything else that a system call answered.
    Os(c_int),
}

impl Error {
    /// The errno a C caller sees.
    pub const fn errno(self) -> c_int {
        match self {
            Error::Invalid => libc::EINVAL,
            Error::NotFound => libc::ENOENT,
            Error::Denied => libc::EACCES,
            Error::Busy => libc::EBUSY,
            Error::NoMemory => libc::ENOMEM,
            Error::Fault => libc::EFAULT,
            Error::Unsupported => libc::ENOSYS,
            Error::NoIoctl => libc::ENOTTY,
            Error::Os(errno) => errno,
        }
    }

    /// The failure that an errno of a system call stands for.
    pub const fn from_errno(errno: c_int) -> Self {
        match errno {
            libc::EINVAL => Error::Invalid,
            libc::ENOENT => Error::NotFound,
            libc::EACCES => Error::Denied,
            libc::EBUSY => Error::Busy,
            libc::ENOMEM => Error::NoMemory,
            libc::EFAULT => Error::Fault,
            libc::ENOSYS => Error::Unsupported,
            libc::ENOTTY => Error::NoIoctl,
            other => Error::Os(other),
        }
    }
}
