// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back end behind `/dev/xpmem`: each operation is one ioctl.

#![forbid(unsafe_code)]

mod device;

use crate::backend::Backend;
use crate::error::Result;
use crate::uapi;
use core::ffi::c_int;
use device::Device;

/// Where the module's device is.
pub const DEVICE_NAME: &str = "/dev/xpmem";

struct Kernel {
    device: Device,
}

static KERNEL: Kernel = Kernel {
    device: Device::new(),
};

/// The kernel back end of this process. Opens nothing yet.
pub fn backend() -> &'static dyn Backend {
    &KERNEL
}

/// Asks, on a descriptor of its own, whether a module is there: the device is
/// a character device and answers its version.
///
/// # Errors
/// What open(2) or the ioctl returned; ENOTTY for a file that is no device.
pub fn probe() -> Result<c_int> {
    device::probe()
}

impl Backend for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn version(&self) -> Result<c_int> {
        self.device.command(uapi::VERSION, 0)
    }

    fn make(&self, wanted: &uapi::Make) -> Result<i64> {
        let mut a = uapi::Make {
            segid: 0,
            ..*wanted
        };
        self.device.operate(uapi::MAKE, &mut a)?;
        Ok(a.segid)
    }

    fn remove(&self, segid: i64) -> Result<()> {
        self.device
            .operate(uapi::REMOVE, &mut uapi::Remove { segid })
    }

    fn get(&self, segid: i64, flags: c_int, permit_type: c_int, permit_value: u64) -> Result<i64> {
        let mut a = uapi::Get {
            segid,
            flags,
            permit_type,
            permit_value,
            apid: 0,
        };
        self.device.operate(uapi::GET, &mut a)?;
        Ok(a.apid)
    }

    fn release(&self, apid: i64) -> Result<()> {
        self.device
            .operate(uapi::RELEASE, &mut uapi::Release { apid })
    }

    fn attach(&self, apid: i64, offset: i64, size: usize, vaddr: usize) -> Result<usize> {
        let mut a = uapi::Attach {
            apid,
            offset,
            size,
            vaddr: vaddr as u64,
            fd: 0,
            flags: 0,
        };
        self.device.operate(uapi::ATTACH, &mut a)?;
        Ok(a.vaddr as usize)
    }

    fn detach(&self, vaddr: usize) -> Result<()> {
        self.device.operate(
            uapi::DETACH,
            &mut uapi::Detach {
                vaddr: vaddr as u64,
            },
        )
    }

    /// The module decodes, and handles bad pointers itself.
    fn device_ioctl(&self, cmd: c_int, arg: usize) -> Option<Result<c_int>> {
        Some(self.device.command(cmd, arg))
    }
}
