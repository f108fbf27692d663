// SPDX-License-Identifier: MIT OR Apache-2.0
//! The exports that take the place of libhwloc's, and helpers of ours. The
//! first three have the signatures of hwloc's own header.

use super::export;
use crate::error::Error;
use crate::hwloc::library::RawTopology;
use crate::hwloc::{adopt, hole, write};
use core::ffi::{c_int, c_uint, c_ulong, c_void};

export! {
    /// Gets the length in bytes that a topology needs in a file: what stock
    /// hwloc would need, in whole pages.
    fn hwloc_shmem_topology_get_length(
        topology: RawTopology, lengthp: *mut usize, flags: c_ulong,
    ) -> c_int, or -1;
    {
        if lengthp.is_null() {
            return Err(Error::Invalid);
        }
        // SAFETY: the caller passes a live topology that nobody changes, and
        // a place for the answer.
        unsafe { *lengthp = write::get_length(topology, flags)? };
        Ok(0)
    }

    /// Writes a topology into a file, for adoption at `mmap_address`.
    fn hwloc_shmem_topology_write(
        topology: RawTopology, fd: c_int, fileoffset: u64,
        mmap_address: *mut c_void, length: usize, flags: c_ulong,
    ) -> c_int, or -1;
    {
        // SAFETY: the caller passes a live topology that nobody changes.
        unsafe { write::write(topology, fd, fileoffset, mmap_address, length, flags)? };
        Ok(0)
    }

    /// Adopts a topology from a file.
    fn hwloc_shmem_topology_adopt(
        topologyp: *mut RawTopology, fd: c_int, fileoffset: u64,
        mmap_address: *mut c_void, length: usize, flags: c_ulong,
    ) -> c_int, or -1;
    {
        if topologyp.is_null() {
            return Err(Error::Invalid);
        }
        // SAFETY: the caller keeps the file as long as it is while the
        // topology is in use, and passes a place for it.
        unsafe { *topologyp = adopt::adopt(fd, fileoffset, mmap_address, length, flags)? };
        Ok(0)
    }

    /// Finds a range of addresses that is free in several processes.
    fn xpmem_hwloc_hole_find(
        pids: *const libc::pid_t, nr: c_uint, length: usize, addrp: *mut *mut c_void,
    ) -> c_int, or -1;
    {
        if addrp.is_null() || (pids.is_null() && nr != 0) {
            return Err(Error::Invalid);
        }
        let mut list = Vec::with_capacity(nr as usize);
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

    /// Keeps a range free for an adoption in this process.
    fn xpmem_hwloc_hole_reserve(addr: *mut c_void, length: usize) -> c_int, or -1;
    {
        hole::reserve(addr as usize, length)?;
        Ok(0)
    }

    /// Gives a reserved range back.
    fn xpmem_hwloc_hole_release(addr: *mut c_void, length: usize) -> c_int, or -1;
    {
        hole::release(addr as usize, length)?;
        Ok(0)
    }
}
