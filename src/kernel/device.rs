// SPDX-License-Identifier: MIT OR Apache-2.0
//! The open `/dev/xpmem` of this process.
//!
//! The module knows a process by the descriptor it opened itself: a fork
//! child's inherited descriptor answers errno 2004 to everything. So the
//! descriptor is kept together with the [`identity`](process::identity) of the
//! process that opened it, and a child opens its own at its first call. Should
//! the module answer 2004 all the same, the device is opened again, once.

#![forbid(unsafe_code)]

use crate::debug_log;
use crate::errno::Errno;
use crate::error::{Error, Result, ERRNO_NOPROC};
use crate::fd::{self, Fd, OwnedFd};
use crate::process;
use crate::uapi::{self, Plain};
use core::ffi::{c_int, CStr};
use core::sync::atomic::{AtomicU64, Ordering};

const PATH: &CStr = c"/dev/xpmem";

/// An open device and the process it belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Opened {
    /// [`process::identity`] of the opener.
    by: u32,
    fd: Fd,
}

impl Opened {
    fn pack(self) -> u64 {
        u64::from(self.by) << 32 | u64::from(self.fd.number() as u32)
    }

    fn unpack(word: u64) -> Option<Self> {
        // Identities are never 0.
        (word != 0).then_some(Opened {
            by: (word >> 32) as u32,
            fd: Fd::new(word as u32 as c_int),
        })
    }
}

/// The device as this process has it. Lock-free, so that no fork can inherit a
/// lock that nobody will release.
pub struct Device {
    /// [`Opened::pack`], 0 before the first open. Whoever replaces a value by
    /// compare-and-swap closes the descriptor that was in it.
    opened: AtomicU64,
}

impl Device {
    pub const fn new() -> Self {
        Device {
            opened: AtomicU64::new(0),
        }
    }

    /// Sends one command with its structure.
    pub fn operate<T: Plain>(&self, cmd: c_int, argument: &mut T) -> Result<()> {
        self.command(cmd, (&raw mut *argument).expose_provenance())
            .map(|_| ())
    }

    /// Sends one command; `arg` may be any address, the module checks it.
    pub fn command(&self, cmd: c_int, arg: usize) -> Result<c_int> {
        let mut reopened = false;
        loop {
            let opened = self.current()?;
            let error = match ioctl(opened.fd, cmd, arg) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            // Another thread may have replaced, and closed, what we just used.
            let stale = self.opened.load(Ordering::Acquire) != opened.pack();
            match error {
                Error::Os(ERRNO_NOPROC) if !reopened => {
                    debug_log!("the device belongs to another process: opened again");
                    if !stale {
                        self.replace(opened.pack())?;
                    }
                    reopened = true;
                }
                Error::Os(libc::EBADF) | Error::NoIoctl if stale => {}
                error => return Err(error),
            }
        }
    }

    /// The descriptor of this very process, opened when there is none.
    fn current(&self) -> Result<Opened> {
        let word = self.opened.load(Ordering::Acquire);
        match Opened::unpack(word) {
            Some(opened) if opened.by == process::identity() => Ok(opened),
            // The first call, or the first since a fork. Closing the parent's
            // descriptor here takes nothing from the parent.
            _ => self.replace(word),
        }
    }

    /// Opens the device in place of `old`, unless another thread was faster.
    fn replace(&self, old: u64) -> Result<Opened> {
        let fresh = Opened {
            by: process::identity(),
            fd: open()?.keep(),
        };
        match self
            .opened
            .compare_exchange(old, fresh.pack(), Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => {
                if let Some(old) = Opened::unpack(old) {
                    drop(OwnedFd::new(old.fd.number()));
                }
                Ok(fresh)
            }
            Err(faster) => {
                drop(OwnedFd::new(fresh.fd.number()));
                Opened::unpack(faster).ok_or(Error::NotFound)
            }
        }
    }
}

/// Opens, asks for the version, closes.
pub fn probe() -> Result<c_int> {
    let device = open()?;
    match fd::is_char_device(device.fd())? {
        true => ioctl(device.fd(), uapi::VERSION, 0),
        false => Err(Error::NoIoctl),
    }
}

fn open() -> Result<OwnedFd> {
    let device = fd::open(PATH, libc::O_RDWR | libc::O_CLOEXEC, 0)?;
    if device.number() > 2 {
        return Ok(device);
    }
    // The program runs without standard streams: what it prints must not end
    // up in the device, nor the device be closed by its next freopen().
    Ok(fd::dup_above(device.fd(), 3)?)
}

fn ioctl(fd: Fd, cmd: c_int, arg: usize) -> Result<c_int> {
    loop {
        match fd::ioctl(fd, cmd, arg) {
            // A signal came in: no call of XPMEM is documented to answer EINTR.
            Err(Errno::EINTR) => {}
            answer => return answer.map_err(Error::from),
        }
    }
}
