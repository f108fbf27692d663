// SPDX-License-Identifier: MIT OR Apache-2.0
//! This machine's topology, as libhwloc finds it: for the command-line tool,
//! which is not linked with libhwloc either.

use crate::error::{Error, Result};
use crate::hwloc::range::map::last_error;
use crate::hwloc::stock::library::RawTopology;
use core::ffi::{c_char, c_int, c_uint, CStr};
use core::ptr::null_mut;

/// A loaded topology, destroyed with the value.
pub struct Machine {
    topology: RawTopology,
    destroy: unsafe extern "C" fn(RawTopology),
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: made by `load`, of the same library.
        unsafe { (self.destroy)(self.topology) };
    }
}

impl Machine {
    /// Loads libhwloc and has it discover this machine, or the one that a
    /// synthetic description names.
    ///
    /// # Errors
    /// ENOSYS where there is no libhwloc.so.15; EINVAL for a description that
    /// it does not understand; what discovery says.
    pub fn load(synthetic: Option<&CStr>) -> Result<Machine> {
        let flags = libc::RTLD_NOW | libc::RTLD_GLOBAL;
        // SAFETY: a C string; loading libhwloc runs its constructors only.
        let handle = unsafe { libc::dlopen(c"libhwloc.so.15".as_ptr(), flags) };
        if handle.is_null() {
            return Err(Error::Unsupported);
        }
        macro_rules! resolve {
            ($name:literal as $type:ty) => {{
                // SAFETY: a live handle and a C string.
                let found = unsafe { libc::dlsym(handle, $name.as_ptr()) };
                if found.is_null() {
                    return Err(Error::Unsupported);
                }
                // SAFETY: the type is the one that hwloc documents.
                unsafe { core::mem::transmute::<*mut core::ffi::c_void, $type>(found) }
            }};
        }
        let init =
            resolve!(c"hwloc_topology_init" as unsafe extern "C" fn(*mut RawTopology) -> c_int);
        let destroy = resolve!(c"hwloc_topology_destroy" as unsafe extern "C" fn(RawTopology));
        let load = resolve!(c"hwloc_topology_load" as unsafe extern "C" fn(RawTopology) -> c_int);
        let filter = resolve!(
            c"hwloc_topology_set_io_types_filter"
                as unsafe extern "C" fn(RawTopology, c_uint) -> c_int
        );
        let set_synthetic = resolve!(
            c"hwloc_topology_set_synthetic"
                as unsafe extern "C" fn(RawTopology, *const c_char) -> c_int
        );
        /// HWLOC_TYPE_FILTER_KEEP_IMPORTANT
        const IMPORTANT: c_uint = 3;
        let mut topology = null_mut();
        // SAFETY: a place for the result.
        if unsafe { init(&mut topology) } != 0 {
            return Err(Error::NoMemory);
        }
        let machine = Machine { topology, destroy };
        // SAFETY: a fresh topology and a C string, in the order hwloc wants.
        let failed = unsafe {
            filter(topology, IMPORTANT) != 0
                || synthetic.is_some_and(|s| set_synthetic(topology, s.as_ptr()) != 0)
                || load(topology) != 0
        };
        if failed {
            return Err(last_error());
        }
        Ok(machine)
    }

    /// Bytes that it takes in a file.
    ///
    /// # Errors
    /// As for [`crate::hwloc::write::get_length`].
    pub fn length(&self) -> Result<usize> {
        // SAFETY: live and loaded, and ours alone.
        unsafe { crate::hwloc::write::get_length(self.topology, 0) }
    }

    /// Writes it into a file.
    ///
    /// # Errors
    /// As for [`crate::hwloc::write::write`].
    pub fn write(&self, fd: c_int, addr: usize, length: usize) -> Result<()> {
        // SAFETY: live and loaded, and ours alone.
        unsafe { crate::hwloc::write::write(self.topology, fd, 0, addr as *mut _, length, 0) }
    }
}
