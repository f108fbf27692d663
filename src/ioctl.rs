// SPDX-License-Identifier: MIT OR Apache-2.0
//! `xpmem_ioctl` for a back end that has no device: the kernel's part of an
//! ioctl, done here. Structures are copied in, and answers copied out, without
//! ever trusting the caller's pointer.

#![forbid(unsafe_code)]

use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::rawsys;
use crate::uapi::{self, Plain};
use core::ffi::c_int;
use core::mem::offset_of;

/// Serves one command with `backend`. `arg` may be any address at all.
pub fn serve<B: Backend + ?Sized>(backend: &B, cmd: c_int, arg: usize) -> Result<c_int> {
    match cmd {
        uapi::VERSION => backend.version(),
        uapi::MAKE => {
            let a: uapi::Make = copy_in(arg)?;
            let segid = backend.make(&a)?;
            copy_out(arg, offset_of!(uapi::Make, segid), segid).inspect_err(|_| {
                let _ = backend.remove(segid);
            })
        }
        uapi::REMOVE => {
            let a: uapi::Remove = copy_in(arg)?;
            backend.remove(a.segid).map(|()| 0)
        }
        uapi::GET => {
            let a: uapi::Get = copy_in(arg)?;
            let apid = backend.get(a.segid, a.flags, a.permit_type, a.permit_value)?;
            copy_out(arg, offset_of!(uapi::Get, apid), apid).inspect_err(|_| {
                let _ = backend.release(apid);
            })
        }
        uapi::RELEASE => {
            let a: uapi::Release = copy_in(arg)?;
            backend.release(a.apid).map(|()| 0)
        }
        uapi::ATTACH => {
            let a: uapi::Attach = copy_in(arg)?;
            let wanted = usize::try_from(a.vaddr).map_err(|_| Error::Invalid)?;
            // A fixed address replaces what is mapped there, for good: find
            // out before whether the answer can be delivered.
            copy_out(arg, offset_of!(uapi::Attach, vaddr), wanted as i64)?;
            let vaddr = backend.attach(a.apid, a.offset, a.size, wanted)?;
            copy_out(arg, offset_of!(uapi::Attach, vaddr), vaddr as i64).inspect_err(|_| {
                let _ = backend.detach(vaddr);
            })
        }
        uapi::DETACH => {
            let a: uapi::Detach = copy_in(arg)?;
            let vaddr = usize::try_from(a.vaddr).map_err(|_| Error::Invalid)?;
            backend.detach(vaddr).map(|()| 0)
        }
        uapi::FORK_BEGIN | uapi::FORK_END => Ok(0),
        _ => Err(Error::NoIoctl),
    }
}

/// Reads a structure from an untrusted address.
fn copy_in<T: Plain>(addr: usize) -> Result<T> {
    uapi::filled(|bytes| rawsys::peek(addr, bytes)).map_err(|_| Error::Fault)
}

/// Writes the 8-byte answer at `offset` of the structure at `arg`; answers
/// what the ioctl returns.
fn copy_out(arg: usize, offset: usize, value: i64) -> Result<c_int> {
    let addr = arg.checked_add(offset).ok_or(Error::Fault)?;
    rawsys::poke(addr, &value.to_ne_bytes()).map_err(|_| Error::Fault)?;
    Ok(0)
}
