// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors, and the raw calls on any of them.

use crate::errno::Errno;
use crate::rawsys::{check, raw_syscall};
use core::ffi::{c_int, CStr};
use core::mem::MaybeUninit;

/// A descriptor that something else closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Fd(c_int);

impl Fd {
    /// None: of a mapping without a file.
    pub const NONE: Self = Self(-1);
    /// The working directory, where a directory is asked for.
    pub const HERE: Self = Self(libc::AT_FDCWD);
    /// Standard error.
    pub const ERROR: Self = Self(2);

    /// The descriptor with this number.
    pub const fn new(number: c_int) -> Self {
        Self(number)
    }

    /// Its number in this process.
    pub const fn number(self) -> c_int {
        self.0
    }
}

/// A descriptor that is closed where this is dropped.
#[derive(PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct OwnedFd(Fd);

impl OwnedFd {
    /// The descriptor with this number, which nothing else closes.
    pub const fn new(number: c_int) -> Self {
        Self(Fd(number))
    }

    /// The descriptor, for as long as this lives.
    pub const fn fd(&self) -> Fd {
        self.0
    }

    /// Its number in this process.
    pub const fn number(&self) -> c_int {
        self.0 .0
    }

    /// Leaves it open: until this process ends, or until another `OwnedFd` of the same
    /// number is dropped.
    pub const fn keep(self) -> Fd {
        let fd = self.0;
        core::mem::forget(self);
        fd
    }
}

impl Drop for OwnedFd {
    fn drop(&mut self) {
        // SAFETY: no memory is involved, and the number is this value's to close. Linux
        // releases it whatever close returns, so the answer says nothing.
        unsafe {
            raw_syscall!(libc::SYS_close, self.number());
        }
    }
}

/// Decides for a test whether a system call fails, by its number and arguments.
#[cfg(feature = "fault-injection")]
pub type Meet = fn(libc::c_long, &[usize; 6]) -> Result<(), Errno>;

/// Set where the service starts under such a test.
#[cfg(feature = "fault-injection")]
pub static MEET: std::sync::OnceLock<Meet> = std::sync::OnceLock::new();

/// Opens `path` from the current directory. `mode` counts with `O_CREAT`.
pub fn open(path: &CStr, flags: c_int, mode: u32) -> Result<OwnedFd, Errno> {
    #[cfg(feature = "fault-injection")]
    if let Some(meet) = MEET.get() {
        meet(libc::SYS_openat, &[0; 6])?;
    }
    // SAFETY: the path is a C string that lives through the call.
    let ret = unsafe { raw_syscall!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, mode) };
    check(ret).map(|fd| OwnedFd::new(fd as c_int))
}

/// One write(2).
pub fn write(fd: Fd, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel reads `bytes.len()` bytes of a live slice.
    check(unsafe { raw_syscall!(libc::SYS_write, fd.number(), bytes.as_ptr(), bytes.len()) })
}

/// Duplicates `fd` to the lowest free number from `least` up, closed on exec.
pub fn dup_above(fd: Fd, least: c_int) -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is involved.
    let ret = unsafe { raw_syscall!(libc::SYS_fcntl, fd.number(), libc::F_DUPFD_CLOEXEC, least) };
    check(ret).map(|fd| OwnedFd::new(fd as c_int))
}

/// One ioctl(2) of a device that treats `arg` as an untrusted address. Returns
/// its value and not only success.
pub fn ioctl(fd: Fd, cmd: c_int, arg: usize) -> Result<c_int, Errno> {
    // SAFETY: only XPMEM's commands come here (`kernel::device`), and what
    // they do to memory is what their caller, an API function, was asked to do.
    // `user::program::hold` sends one that changes none.
    let ret = unsafe { raw_syscall!(libc::SYS_ioctl, fd.number(), cmd, arg) };
    // 2004 lies within the kernel's range of errnos.
    check(ret).map(|value| value as c_int)
}

/// Whether a descriptor is a character device.
pub fn is_char_device(fd: Fd) -> Result<bool, Errno> {
    Ok(mode(fd)? & libc::S_IFMT == libc::S_IFCHR)
}

/// Type and permissions of an open file.
fn mode(fd: Fd) -> Result<libc::mode_t, Errno> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel writes one stat, whose all-zero value is valid too.
    let stat = unsafe {
        check(raw_syscall!(
            libc::SYS_fstat,
            fd.number(),
            stat.as_mut_ptr()
        ))?;
        stat.assume_init()
    };
    Ok(stat.st_mode)
}

/// Opens a regular file to append to it, made where there is none. Of anything
/// else only the kind is looked at: opening a device may do something, and a
/// FIFO may wait.
pub fn open_log(path: &CStr) -> Result<OwnedFd, Errno> {
    match open(path, libc::O_PATH | libc::O_CLOEXEC, 0) {
        Ok(found) if is_regular(found.fd())? => {}
        Ok(_) => return Err(Errno::EINVAL),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_CLOEXEC;
    let log = open(path, flags | libc::O_NOCTTY | libc::O_NONBLOCK, 0o666)?;
    // Somebody may have put another one there meanwhile.
    if is_regular(log.fd())? {
        Ok(log)
    } else {
        Err(Errno::EINVAL)
    }
}

fn is_regular(fd: Fd) -> Result<bool, Errno> {
    Ok(mode(fd)? & libc::S_IFMT == libc::S_IFREG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_do_not_touch_errno() {
        // SAFETY: errno of this thread.
        unsafe { *libc::__errno_location() = 77 };
        assert_eq!(
            open(c"/nonexistent/file", libc::O_RDONLY, 0),
            Err(Errno::ENOENT)
        );
        assert_eq!(write(Fd::new(-1), b"x"), Err(Errno::EBADF));
        // SAFETY: errno of this thread.
        assert_eq!(unsafe { *libc::__errno_location() }, 77);
    }

    #[test]
    fn what_is_owned_is_closed_and_what_is_kept_is_not() {
        let least = 900;
        let null = open(c"/dev/null", libc::O_RDONLY | libc::O_CLOEXEC, 0).expect("null");
        let one = dup_above(null.fd(), least).expect("a number");
        let (number, fd) = (one.number(), one.fd());
        assert_eq!(is_char_device(fd), Ok(true));
        assert_eq!(one.keep(), fd);
        assert_eq!(is_char_device(fd), Ok(true));
        drop(OwnedFd::new(number));
        assert_eq!(is_char_device(fd), Err(Errno::EBADF));
    }
}
