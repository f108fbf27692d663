// SPDX-License-Identifier: MIT OR Apache-2.0
//! XPMEM's operations as Rust functions: find the back end, serve, count.
//!
//! The exported C functions are thin shims over these.

use crate::debug::{count, COUNTERS};
use crate::error::Result;
use crate::{choice, debug, debug_log, ioctl as by_number, uapi};
use core::ffi::c_int;

/// Logs a failure and hands it on.
fn logged<T>(what: &str, result: Result<T>) -> Result<T> {
    if let Err(error) = &result {
        debug_log!("{what}: {error:?} (errno {})", error.errno());
    }
    result
}

/// Version of the interface that serves, in upstream's notation
/// (`0x0002_7004` is 2.7.4).
///
/// # Errors
/// ENOSYS where no back end can serve; ENOENT, EACCES and others of open(2)
/// where the kernel was asked for and its device cannot be opened.
pub fn version() -> Result<c_int> {
    debug::enter();
    logged("version", choice::current().and_then(|b| b.version()))
}

/// Name of the back end that serves this process, `kernel`, `user` or `both`.
///
/// # Errors
/// ENOSYS where none can serve, or `XPMEM_BACKEND` is `off`.
pub fn back_end() -> Result<&'static str> {
    debug::enter();
    logged("back end", choice::current().map(|b| b.name()))
}

/// Makes sure that a back end is there. No other function needs it first.
///
/// # Errors
/// As [`version`].
pub fn init() -> Result<()> {
    version().map(|_| ())
}

/// Exports `size` bytes at `vaddr` of the calling process, in whole pages;
/// `(0, usize::MAX)` is the whole address space, now and in the future. What
/// is mapped there does not matter. Returns a segid, which any process may
/// use that `permit_value`, a file mode, lets in. It is this process's until
/// [`remove`] or its end.
///
/// # Errors
/// EINVAL: permit_type is not 1, a mode bit beyond 0777, size 0, not page
/// multiples, or beyond the address space. ENOMEM, EBUSY. ENOSYS.
pub fn make(vaddr: usize, size: usize, permit_type: c_int, permit_value: u64) -> Result<i64> {
    debug::enter();
    let wanted = uapi::Make {
        vaddr: vaddr as u64,
        size,
        permit_type,
        permit_value,
        segid: 0,
    };
    let made = choice::current().and_then(|b| b.make(&wanted));
    if made.is_ok() {
        count(&COUNTERS.makes);
    }
    logged("make", made)
}

/// Withdraws a segment: its attachments answer SIGBUS from now on.
///
/// # Errors
/// EINVAL: segid <= 0. ENOENT: unknown, or removed before. EACCES: somebody
/// else's. ENOSYS.
pub fn remove(segid: i64) -> Result<()> {
    debug::enter();
    logged("remove", choice::current().and_then(|b| b.remove(segid)))
}

/// Asks for access to a segment, with flags [`crate::uapi::RDONLY`] or
/// [`crate::uapi::RDWR`]. Returns an apid, which is of use to this process only.
///
/// # Errors
/// EINVAL: segid <= 0, bad flags, permit_type is not 1. ENOENT: unknown,
/// removed, or its owner is gone. EACCES: the mode denies. ENOSYS.
pub fn get(segid: i64, flags: c_int, permit_type: c_int) -> Result<i64> {
    debug::enter();
    let got = choice::current().and_then(|b| b.get(segid, flags, permit_type, 0));
    if got.is_ok() {
        count(&COUNTERS.gets);
    }
    logged("get", got)
}

/// Gives an access permit back and detaches all of its attachments.
///
/// # Errors
/// EINVAL: apid <= 0. ENOENT: unknown. EACCES: somebody else's. ENOSYS.
pub fn release(apid: i64) -> Result<()> {
    debug::enter();
    logged("release", choice::current().and_then(|b| b.release(apid)))
}

/// Maps `size` bytes, rounded up to pages, at byte `offset` of the segment
/// behind `apid`, wherever there is room, and touches nothing. Returns the
/// address, this process's until [`detach`], [`release`] or its end.
///
/// # Errors
/// EINVAL: apid <= 0, offset negative or no page multiple, size 0, beyond the
/// segment. ENOENT: unknown, or the segment or its owner is gone. EACCES:
/// somebody else's apid. ENOMEM: no address space, or a small range of memory that
/// cannot be shared. ENOSYS.
pub fn attach(apid: i64, offset: i64, size: usize) -> Result<usize> {
    attach_checked(apid, offset, size, 0)
}

/// [`attach`] at the address `vaddr`, a page multiple, in place of whatever is
/// mapped there; 0 lets the system choose.
///
/// # Errors
/// As [`attach`]; EINVAL also where `vaddr` overlaps an attachment or memory
/// that this process exports.
///
/// # Safety
/// Nothing that the program still uses may be mapped in the range.
pub unsafe fn attach_at(apid: i64, offset: i64, size: usize, vaddr: usize) -> Result<usize> {
    attach_checked(apid, offset, size, vaddr)
}

fn attach_checked(apid: i64, offset: i64, size: usize, vaddr: usize) -> Result<usize> {
    debug::enter();
    let attached = choice::current().and_then(|b| b.attach(apid, offset, size, vaddr));
    if attached.is_ok() {
        count(&COUNTERS.attaches);
    }
    logged("attach", attached)
}

/// Unmaps the whole attachment that contains `vaddr`. Where nothing is mapped
/// there is nothing to do, and that succeeds.
///
/// # Errors
/// EINVAL: something else is mapped there. ENOSYS.
pub fn detach(vaddr: usize) -> Result<()> {
    debug::enter();
    let detached = choice::current().and_then(|b| b.detach(vaddr));
    if detached.is_ok() {
        count(&COUNTERS.detaches);
    }
    logged("detach", detached)
}

/// The operations by ioctl number: see [`crate::uapi`].
///
/// # Errors
/// ENOTTY: no such command. EFAULT: the structure at `arg` cannot be read or
/// written, and nothing was left behind. Else as the operation.
///
/// # Safety
/// `arg` may be any address, but what the command does must be sound: the
/// answer is written to the structure, and attach may replace a mapping.
pub unsafe fn ioctl(cmd: c_int, arg: usize) -> Result<c_int> {
    debug::enter();
    let answer = choice::current().and_then(|b| {
        b.device_ioctl(cmd, arg)
            .unwrap_or_else(|| by_number::serve(b, cmd, arg))
    });
    if answer.is_ok() {
        match cmd {
            crate::uapi::MAKE => count(&COUNTERS.makes),
            crate::uapi::GET => count(&COUNTERS.gets),
            crate::uapi::ATTACH => count(&COUNTERS.attaches),
            crate::uapi::DETACH => count(&COUNTERS.detaches),
            _ => {}
        }
    }
    logged("ioctl", answer)
}
