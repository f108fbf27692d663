// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every way an operation can fail, and the errno a C caller sees.

#![forbid(unsafe_code)]

use core::ffi::c_int;
use core::fmt;

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
    /// Anything else that a system call returned.
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

impl fmt::Display for Error {
    /// What a user is told, and for [`Error::Os`] what libc has for the errno.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Invalid => "invalid argument",
            Error::NotFound => "no such segment or permit, or its owner is gone",
            Error::Denied => "permission denied",
            Error::Busy => "the range is busy",
            Error::NoMemory => "out of memory or address space",
            Error::Fault => "bad address",
            Error::Unsupported => "no back end can serve in this process",
            Error::NoIoctl => "no such ioctl",
            Error::Os(ERRNO_NOPROC) => "this process did not open the device",
            Error::Os(errno) => return std::io::Error::from_raw_os_error(*errno).fmt(f),
        })
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::from_raw_os_error(error.errno())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_come_back_as_what_they_were() {
        for errno in 1..200 {
            assert_eq!(Error::from_errno(errno).errno(), errno);
        }
    }

    #[test]
    fn a_question_mark_takes_it_where_any_error_goes() {
        fn fails() -> core::result::Result<(), Box<dyn std::error::Error>> {
            Err(Error::Denied)?
        }
        let told = fails().expect_err("it fails").to_string();
        assert_eq!(told, "permission denied");
        let told = Error::Os(libc::EMFILE).to_string();
        assert!(told.starts_with("Too many open files"), "{told}");
        let io = std::io::Error::from(Error::Denied);
        assert_eq!(io.kind(), std::io::ErrorKind::PermissionDenied);
    }
}
