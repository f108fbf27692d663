// SPDX-License-Identifier: MIT OR Apache-2.0
//! The nine functions of libxpmem.
//!
//! The comments here are those of `include/xpmem.h`.

#![allow(non_camel_case_types)]

use super::export;
use crate::api;
use core::ffi::{c_int, c_void};
use core::ptr;
use libc::off_t;

type __s64 = i64;

/// Names a segment, on this machine, to every process.
pub type xpmem_segid_t = __s64;

/// Names an access permit, to the process that got it.
pub type xpmem_apid_t = __s64;

/// A place in a segment that a permit gives access to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct xpmem_addr {
    pub apid: xpmem_apid_t,
    /// In bytes from the start of the segment; a page multiple.
    pub offset: off_t,
}

const _: () = assert!(size_of::<xpmem_addr>() == 16);

/// (void *)-1, as mmap(2) has it.
const ATTACH_FAILED: *mut c_void = ptr::without_provenance_mut(usize::MAX);

export! {
    /// Version of the XPMEM that serves this process, 0x00027004 for 2.7.4.
    ///
    /// Returns -1 with errno set where there is none: ENOSYS, or what opening
    /// /dev/xpmem answered.
    fn xpmem_version() -> c_int, or -1; {
        api::version()
    }

    /// Makes sure that XPMEM can serve this process. No call needs it first.
    ///
    /// Returns 0, or -1 with errno set as xpmem_version() has it.
    fn xpmem_init() -> c_int, or -1; {
        api::init().map(|()| 0)
    }

    /// The functions below by the ioctl numbers and structures of /dev/xpmem.
    ///
    /// Returns what the ioctl returns, or -1 with errno set: ENOTTY, no such
    /// command; EFAULT, arg cannot be read or written, and nothing has
    /// happened; else what the function of that name says.
    fn xpmem_ioctl(cmd: c_int, arg: *mut c_void) -> c_int, or -1; {
        // SAFETY: the caller hands out the structure for the answer and, with
        // ATTACH and an address, the memory there.
        unsafe { api::ioctl(cmd, arg.expose_provenance()) }
    }

    /// Exports size bytes of this process at vaddr, both page multiples; NULL
    /// and XPMEM_MAXADDR_SIZE mean the whole address space. permit_type is
    /// XPMEM_PERMIT_MODE and permit_value a file mode, (void *)0600 say.
    ///
    /// Returns a segid, or -1 with errno set: EINVAL, ENOMEM, EBUSY, ENOSYS, or
    /// XPMEM_ERRNO_NOPROC.
    fn xpmem_make(vaddr: *mut c_void, size: usize, permit_type: c_int, permit_value: *mut c_void)
        -> xpmem_segid_t, or -1;
    {
        api::make(vaddr.expose_provenance(), size, permit_type, permit_value.addr() as u64)
    }

    /// Withdraws a segment of this process. Whoever has it attached gets SIGBUS.
    ///
    /// Returns 0, or -1 with errno set: EINVAL, not positive; ENOENT, no such
    /// segment; EACCES, another process's; ENOSYS.
    fn xpmem_remove(segid: xpmem_segid_t) -> c_int, or -1; {
        api::remove(segid).map(|()| 0)
    }

    /// Asks for access to a segment; flags is XPMEM_RDONLY or XPMEM_RDWR,
    /// permit_type is XPMEM_PERMIT_MODE, permit_value does not matter.
    ///
    /// Returns an apid, which is for this process only, or -1 with errno set:
    /// EINVAL; ENOENT, no such segment; EACCES, its mode denies; ENOSYS.
    fn xpmem_get(segid: xpmem_segid_t, flags: c_int, permit_type: c_int, permit_value: *mut c_void)
        -> xpmem_apid_t, or -1;
    {
        // Clients pass 0666 here, which the ioctl would refuse.
        let _ = permit_value;
        api::get(segid, flags, permit_type)
    }

    /// Gives an access permit back and detaches all of its attachments.
    ///
    /// Returns 0, or -1 with errno set: EINVAL, not positive; ENOENT, no such
    /// permit; EACCES, another process's; ENOSYS.
    fn xpmem_release(apid: xpmem_apid_t) -> c_int, or -1; {
        api::release(apid).map(|()| 0)
    }

    /// Maps size bytes (rounded up to pages) of a segment at vaddr, replacing
    /// what is mapped there, or anywhere when vaddr is NULL. Nothing is touched:
    /// holes are fine, and to touch one is SIGBUS.
    ///
    /// Returns the address, or (void *)-1 with errno set: EINVAL; ENOENT, no
    /// such permit, or the segment is gone; EACCES, another process's permit;
    /// ENOMEM, also where memory in a small window cannot be shared (pinned by a
    /// device); ENOSYS.
    fn xpmem_attach(addr: xpmem_addr, size: usize, vaddr: *mut c_void)
        -> *mut c_void, or ATTACH_FAILED;
    {
        // SAFETY: the caller gives up what is mapped at a vaddr that is not NULL.
        unsafe { api::attach_at(addr.apid, addr.offset, size, vaddr.expose_provenance()) }
            .map(ptr::with_exposed_provenance_mut)
    }

    /// Unmaps the whole attachment that contains vaddr.
    ///
    /// Returns 0, also where nothing is mapped, or -1 with errno set: EINVAL,
    /// mapped, but no attachment; ENOSYS.
    fn xpmem_detach(vaddr: *mut c_void) -> c_int, or -1; {
        api::detach(vaddr.addr()).map(|()| 0)
    }
}
