// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a back end does: the operations of XPMEM.

#![forbid(unsafe_code)]

use crate::error::Result;
use crate::uapi::Make;
use core::ffi::c_int;

/// What a back end does. The arguments are those of the C API and arrive
/// unchecked: each back end checks them in the order the ABI documents.
pub trait Backend: Sync {
    /// Short name, for `XPMEM_DEBUG` and the tool.
    fn name(&self) -> &'static str;

    /// Version in upstream's notation, e.g. `0x0002_7004`.
    fn version(&self) -> Result<c_int>;

    /// Exports a range of this process; returns a segid. The one in `wanted` is for
    /// nothing.
    fn make(&self, wanted: &Make) -> Result<i64>;

    /// Withdraws a segment of this process.
    fn remove(&self, segid: i64) -> Result<()>;

    /// Asks for access to a segment; returns an apid.
    fn get(&self, segid: i64, flags: c_int, permit_type: c_int, permit_value: u64) -> Result<i64>;

    /// Gives an access permit back, with all its attachments.
    fn release(&self, apid: i64) -> Result<()>;

    /// Maps `size` bytes at `offset` of the segment behind `apid`; `vaddr` 0
    /// lets the system choose. Returns the address of the attachment.
    fn attach(&self, apid: i64, offset: i64, size: usize, vaddr: usize) -> Result<usize>;

    /// Unmaps the attachment that contains `vaddr`.
    fn detach(&self, vaddr: usize) -> Result<()>;

    /// `xpmem_ioctl`: the same operations by number, with the argument
    /// structures of [`crate::uapi`] at address `arg`, which may be anything at
    /// all. `None` where no device takes them: [`crate::ioctl`] does then.
    fn device_ioctl(&self, cmd: c_int, arg: usize) -> Option<Result<c_int>> {
        let _ = (cmd, arg);
        None
    }
}
