// SPDX-License-Identifier: MIT OR Apache-2.0
//! The exports that take the place of libhwloc's, and helpers of ours. The
//! first three have the signatures of hwloc's own header.
//!
//! The comments here are those of `include/hwloc_shmem.h`.

#![allow(non_camel_case_types)]
// The structure is hwloc's: only its address passes through here.
#![allow(improper_ctypes_definitions)]

use super::export;
use crate::error::Error;
use crate::hwloc::range::hole;
use crate::hwloc::{adopt, memory, write};
use core::ffi::{c_int, c_uint, c_ulong, c_void};

/// A topology of libhwloc.
pub struct hwloc_topology {
    _opaque: (),
}

export! {
    /// Bytes that a topology needs in a file: what stock hwloc would need, in
    /// whole pages, so that any writer may use the number. A file of ours
    /// takes less; the rest of it is a hole.
    ///
    /// Returns 0, or -1 with errno set: EINVAL for flags other than 0 or a
    /// topology that is not loaded, ENOSYS.
    fn hwloc_shmem_topology_get_length(
        topology: *mut hwloc_topology, lengthp: *mut usize, flags: c_ulong,
    ) -> c_int, or -1;
    {
        if lengthp.is_null() {
            return Err(Error::Invalid);
        }
        // SAFETY: the caller passes a live topology that nobody changes, and
        // a place for the answer.
        unsafe { *lengthp = write::get_length(topology.cast(), flags)? };
        Ok(0)
    }

    /// Writes a topology into a file, for adoption at mmap_address by other
    /// processes. The topology and the position of fd stay as they are; bytes
    /// of the file behind fileoffset + length too.
    ///
    /// Returns 0, or -1 with errno set and the file as it was:
    /// EINVAL: flags other than 0; a topology that is not loaded; fileoffset or
    /// mmap_address not a multiple of the page size; length too short.
    /// EBUSY: the addresses are not free in this process. EBADF, EACCES: fd is
    /// not open for reading and writing. ESPIPE, ENOSPC, EFBIG, EIO, EPERM: as
    /// the file says. ENOMEM. ENOSYS.
    fn hwloc_shmem_topology_write(
        topology: *mut hwloc_topology, fd: c_int, fileoffset: u64,
        mmap_address: *mut c_void, length: usize, flags: c_ulong,
    ) -> c_int, or -1;
    {
        let topology = topology.cast();
        // SAFETY: the caller passes a live topology that nobody changes.
        unsafe { write::write(topology, fd, fileoffset, mmap_address, length, flags)? };
        Ok(0)
    }

    /// Adopts a topology from a file that hwloc or we wrote. It is read-only,
    /// and destroyed with hwloc_topology_destroy(). The file is checked whole
    /// before; it must not be cut shorter, nor written to, while the topology
    /// is in use (one with up to 64 KiB in use is copied, and may be). fd may be
    /// closed.
    ///
    /// The same file can be adopted more than once in a process: all but the
    /// first are copies at other addresses. With
    /// HWLOC_SHMEM_RELOCATE=1 in the environment a topology whose addresses
    /// are taken is copied to others instead of failing with EBUSY, with
    /// HWLOC_SHMEM_PRIVATE=1 each is copied, with 0 none is.
    ///
    /// Returns 0, or -1 with errno set:
    /// EINVAL: flags other than 0; fileoffset or mmap_address not a multiple of
    /// the page size; an address or length that are not those of the file; one that is
    /// short, corrupt, or of another layout than the running libhwloc's.
    /// EBUSY: the addresses are not free. EBADF, ESPIPE, EISDIR, EIO: as the
    /// file says. ENOMEM. ENOSYS.
    fn hwloc_shmem_topology_adopt(
        topologyp: *mut *mut hwloc_topology, fd: c_int, fileoffset: u64,
        mmap_address: *mut c_void, length: usize, flags: c_ulong,
    ) -> c_int, or -1;
    {
        if topologyp.is_null() {
            return Err(Error::Invalid);
        }
        // SAFETY: the caller keeps the file as it is while the topology is
        // in use.
        let adopted = unsafe { adopt::adopt(fd, fileoffset, mmap_address, length, flags)? };
        // SAFETY: the caller passes a place for it.
        unsafe { *topologyp = adopted.cast() };
        Ok(0)
    }

    /// Finds addresses for length bytes that are free in nr processes and in
    /// the caller's, away from where mappings, heaps and stacks will grow.
    /// They are free when this returns; xpmem_hwloc_hole_reserve() keeps them so.
    ///
    /// Returns 0, or -1 with errno set: EINVAL for a length of 0 or a bad pid,
    /// ENOENT for a process that is gone, EACCES for one that may not be looked
    /// at, ENOMEM if there is no such range.
    fn xpmem_hwloc_hole_find(
        pids: *const libc::pid_t, nr: c_uint, length: usize, addrp: *mut *mut c_void,
    ) -> c_int, or -1;
    {
        if addrp.is_null() || (pids.is_null() && nr != 0) {
            return Err(Error::Invalid);
        }
        let mut list = memory::list(nr as usize)?;
        for i in 0..nr as usize {
            // SAFETY: the caller passes `nr` numbers.
            let pid = unsafe { *pids.add(i) };
            list.push(u32::try_from(pid).map_err(|_| Error::Invalid)?);
        }
        let addr = hole::find(&list, length)?;
        // SAFETY: the caller passes a place for the answer.
        unsafe { *addrp = addr as *mut c_void };
        Ok(0)
    }

    /// Keeps addresses free for one hwloc_shmem_topology_adopt() in this process
    /// with just this address and length, which takes their place in one step.
    /// If that fails they stay reserved.
    ///
    /// Returns 0, or -1 with errno set: EBUSY if they are taken, EINVAL if they
    /// are not whole pages, ENOMEM if there are 16 reservations.
    fn xpmem_hwloc_hole_reserve(addr: *mut c_void, length: usize) -> c_int, or -1;
    {
        hole::reserve(addr as usize, length)?;
        Ok(0)
    }

    /// Gives reserved addresses back.
    ///
    /// Returns 0, or -1 with errno set: EINVAL if they are not reserved.
    fn xpmem_hwloc_hole_release(addr: *mut c_void, length: usize) -> c_int, or -1;
    {
        hole::release(addr as usize, length)?;
        Ok(0)
    }
}
