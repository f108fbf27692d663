// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operations of XPMEM, and who serves them in this process.

use crate::error::{Error, Result};
use crate::{debug, debug_log, ioctl, kernel, user};
use core::ffi::c_int;
use core::num::NonZeroUsize;
use once_cell::race::OnceNonZeroUsize;

/// What a back end does. The arguments are those of the C API and arrive
/// unchecked: each back end checks them in the order the ABI documents.
pub trait Backend: Sync {
    /// Short name, for `XPMEM_DEBUG` and the tool.
    fn name(&self) -> &'static str;

    /// Version in upstream's notation, e.g. `0x0002_7004`.
    fn version(&self) -> Result<c_int>;

    /// Exports `[vaddr, vaddr + size)` of this process; answers a segid.
    fn make(&self, vaddr: usize, size: usize, permit_type: c_int, permit_value: u64)
        -> Result<i64>;

    /// Withdraws a segment of this process.
    fn remove(&self, segid: i64) -> Result<()>;

    /// Asks for access to a segment; answers an apid.
    fn get(&self, segid: i64, flags: c_int, permit_type: c_int, permit_value: u64) -> Result<i64>;

    /// Gives an access permit back, with all its attachments.
    fn release(&self, apid: i64) -> Result<()>;

    /// Maps `size` bytes at `offset` of the segment behind `apid`; `vaddr` 0
    /// lets the system choose. Answers the address of the attachment.
    fn attach(&self, apid: i64, offset: i64, size: usize, vaddr: usize) -> Result<usize>;

    /// Unmaps the attachment that contains `vaddr`.
    fn detach(&self, vaddr: usize) -> Result<()>;

    /// `xpmem_ioctl`: the same operations by number, with the argument
    /// structures of [`crate::uapi`] at address `arg`, which may be anything at all.
    fn ioctl(&self, cmd: c_int, arg: usize) -> Result<c_int> {
        ioctl::serve(self, cmd, arg)
    }
}

/// Who serves. The numbers are the contents of [`CHOICE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Kernel = 1,
    User = 2,
    Off = 3,
}

/// The choice of this process, made at the first call.
///
/// A race of first callers is harmless: choosing has no effect but a probe of
/// the device, each racer does it for itself and the first to finish wins. So
/// there is no lock that a fork could leave behind taken, and a fork child has
/// its parent's choice, which is right: what is specific to a process (an open
/// device, an exported address space) is kept by the back ends, and they ask
/// [`crate::process::identity`].
static CHOICE: OnceNonZeroUsize = OnceNonZeroUsize::new();

/// The back end of this process, chosen at the first call by
/// `XPMEM_BACKEND=auto|kernel|user|off`.
///
/// `auto`, the default, is the kernel when `/dev/xpmem` is a character device
/// that answers the version ioctl, else the user back end.
///
/// # Errors
/// [`Error::Unsupported`] (ENOSYS) where none can serve or `off` was asked for.
pub fn current() -> Result<&'static dyn Backend> {
    match choice() {
        Choice::Kernel => Ok(kernel::backend()),
        Choice::User => user::backend(),
        Choice::Off => Err(Error::Unsupported),
    }
}

/// Name of the back end chosen so far, for the line of statistics.
pub fn chosen_name() -> &'static str {
    match CHOICE.get().map(decode) {
        Some(Choice::Kernel) => "kernel",
        Some(Choice::User) => "user",
        Some(Choice::Off) => "off",
        None => "none",
    }
}

fn choice() -> Choice {
    decode(CHOICE.get_or_init(|| {
        let choice = choose();
        debug_log!("back end: {choice:?}");
        // Discriminants start at 1.
        NonZeroUsize::new(choice as usize).unwrap_or(NonZeroUsize::MIN)
    }))
}

fn decode(stored: NonZeroUsize) -> Choice {
    match stored.get() {
        1 => Choice::Kernel,
        2 => Choice::User,
        _ => Choice::Off,
    }
}

fn choose() -> Choice {
    match debug::environment(c"XPMEM_BACKEND").map(|value| value.to_bytes()) {
        Some(b"kernel") => Choice::Kernel,
        Some(b"user") => Choice::User,
        Some(b"off") => Choice::Off,
        None | Some(b"" | b"auto") => automatic(),
        Some(_) => {
            debug_log!("XPMEM_BACKEND is none of auto, kernel, user, off: taken as auto");
            automatic()
        }
    }
}

fn automatic() -> Choice {
    match kernel::probe() {
        Ok(version) => {
            debug_log!("{} answers version {version:#x}", kernel::DEVICE_NAME);
            Choice::Kernel
        }
        Err(error) => {
            debug_log!("{}: {error:?}", kernel::DEVICE_NAME);
            Choice::User
        }
    }
}
