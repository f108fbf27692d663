// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ioctls of `/dev/xpmem` and their argument structures (LP64).
//!
//! The numbers and layouts are a frozen ABI shared with every XPMEM module
//! and library in the field; the assertions below are its test.

use core::ffi::c_int;
use core::mem::{offset_of, size_of, MaybeUninit};

pub const VERSION: c_int = 0x7800;
pub const MAKE: c_int = 0x7801;
pub const REMOVE: c_int = 0x7802;
pub const GET: c_int = 0x7803;
pub const RELEASE: c_int = 0x7804;
pub const ATTACH: c_int = 0x7805;
pub const DETACH: c_int = 0x7806;
pub const FORK_BEGIN: c_int = 0x7807;
pub const FORK_END: c_int = 0x7808;
/// Of this project's module alone: faults on the caller's memory wait.
pub const HOLD: c_int = 0x7810;

/// `permit_type`: the permit value is a file mode (`0666`).
pub const PERMIT_MODE: c_int = 1;
/// `flags` of get: loads only.
pub const RDONLY: c_int = 1;
/// `flags` of get: loads and stores.
pub const RDWR: c_int = 2;
/// `size` of make: with address 0, the whole address space.
pub const MAXADDR_SIZE: usize = usize::MAX;

/// What `xpmem_version` returns, in upstream's major.minor.patch notation.
pub const CURRENT_VERSION: c_int = 0x0002_7004;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Make {
    pub vaddr: u64,
    pub size: usize,
    pub permit_type: c_int,
    pub permit_value: u64,
    /// Answer.
    pub segid: i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Remove {
    pub segid: i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Get {
    pub segid: i64,
    pub flags: c_int,
    pub permit_type: c_int,
    pub permit_value: u64,
    /// Answer.
    pub apid: i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Release {
    pub apid: i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Attach {
    pub apid: i64,
    pub offset: i64,
    pub size: usize,
    /// In: the address wanted, 0 for any. Out: the address of the attachment.
    pub vaddr: u64,
    pub fd: c_int,
    pub flags: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Detach {
    pub vaddr: u64,
}

const _: () = {
    assert!(size_of::<Make>() == 40 && offset_of!(Make, vaddr) == 0 && offset_of!(Make, size) == 8);
    assert!(offset_of!(Make, permit_type) == 16 && offset_of!(Make, permit_value) == 24);
    assert!(offset_of!(Make, segid) == 32);
    assert!(size_of::<Remove>() == 8 && size_of::<Release>() == 8 && size_of::<Detach>() == 8);
    assert!(size_of::<Get>() == 32 && offset_of!(Get, segid) == 0 && offset_of!(Get, flags) == 8);
    assert!(offset_of!(Get, permit_type) == 12 && offset_of!(Get, permit_value) == 16);
    assert!(offset_of!(Get, apid) == 24);
    assert!(size_of::<Attach>() == 40 && offset_of!(Attach, apid) == 0);
    assert!(offset_of!(Attach, offset) == 8 && offset_of!(Attach, size) == 16);
    assert!(offset_of!(Attach, vaddr) == 24 && offset_of!(Attach, fd) == 32);
    assert!(offset_of!(Attach, flags) == 36);
};

mod sealed {
    pub trait Sealed {}
}

/// An ioctl argument: any bytes are a valid value of it.
pub trait Plain: Copy + sealed::Sealed {}

macro_rules! plain {
    ($($name:ident)*) => { $(impl sealed::Sealed for $name {} impl Plain for $name {})* };
}
plain!(Make Remove Get Release Attach Detach);

/// An argument whose bytes `fill` has copied from elsewhere.
pub fn filled<T: Plain, E>(
    fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> Result<(), E>,
) -> Result<T, E> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the slice covers exactly `value` and borrows it, and no byte of
    // it need be initialised.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut(
            value.as_mut_ptr().cast::<MaybeUninit<u8>>(),
            size_of::<T>(),
        )
    };
    fill(bytes)?;
    // SAFETY: `Plain` holds only integers, all initialised (to zero at least).
    Ok(unsafe { value.assume_init() })
}
