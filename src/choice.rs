// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who serves in this process: chosen once, at the first call.

#![forbid(unsafe_code)]

use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::{both, debug, debug_log, environment, kernel, user};
use core::num::NonZeroUsize;
use once_cell::race::OnceNonZeroUsize;

/// Who serves. The numbers are the contents of [`CHOICE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Kernel = 1,
    User = 2,
    Off = 3,
    Both = 4,
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
/// `XPMEM_BACKEND=auto|kernel|user|both|off`.
///
/// `auto`, the default, is the kernel when `/dev/xpmem` is a character device
/// that answers the version ioctl, else the user back end. `both` is the latter,
/// too, where there is no such device.
///
/// # Errors
/// [`Error::Unsupported`] (ENOSYS) where none can serve or `off` was asked for.
pub fn current() -> Result<&'static dyn Backend> {
    match choice() {
        Choice::Kernel => Ok(kernel::backend()),
        Choice::User => user::backend(),
        Choice::Both => Ok(both::backend()),
        Choice::Off => Err(Error::Unsupported),
    }
}

fn choice() -> Choice {
    if let Some(stored) = CHOICE.get() {
        return decode(stored);
    }
    // Discriminants start at 1.
    let stored = |choice| NonZeroUsize::new(choice as usize).unwrap_or(NonZeroUsize::MIN);
    let choice = decode(CHOICE.get_or_init(|| stored(choose())));
    debug_log!("back end: {choice:?}");
    debug::set_back_end(match choice {
        Choice::Kernel => &"kernel",
        Choice::User => &"user",
        Choice::Both => &"both",
        Choice::Off => &"off",
    });
    choice
}

fn decode(stored: NonZeroUsize) -> Choice {
    match stored.get() {
        1 => Choice::Kernel,
        2 => Choice::User,
        4 => Choice::Both,
        _ => Choice::Off,
    }
}

fn choose() -> Choice {
    match environment::get(&environment::BACKEND).map(|value| value.to_bytes()) {
        Some(b"kernel") => Choice::Kernel,
        Some(b"user") => Choice::User,
        Some(b"off") => Choice::Off,
        Some(b"both") if automatic() == Choice::Kernel => Choice::Both,
        Some(b"both") => Choice::User,
        None | Some(b"" | b"auto") => automatic(),
        Some(_) => {
            debug_log!("XPMEM_BACKEND is none of auto, kernel, user, both, off: taken as auto");
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
