// SPDX-License-Identifier: MIT OR Apache-2.0
//! Environment variables, read as hwloc reads them: without an allocation.

use core::ffi::CStr;

/// A variable's value.
pub fn get(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: a C string; the answer stays where it is unless the program
    // changes its environment meanwhile, which hwloc forbids too.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value))
    }
}

/// Whether a variable has this value.
pub fn is(name: &CStr, value: &CStr) -> bool {
    get(name) == Some(value)
}
