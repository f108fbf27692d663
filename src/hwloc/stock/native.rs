// SPDX-License-Identifier: MIT OR Apache-2.0
//! The binding hooks of the running libhwloc.
//!
//! They are hidden functions. libhwloc itself puts them into each topology
//! that it loads: so it loads the smallest machine that its synthetic
//! descriptions can name, which takes some memory and nothing else. Where the
//! environment makes another machine of that, it is given one to adopt: one
//! processor and one memory node, made here, in an anonymous file.

use crate::error::{Error, Result};
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use crate::hwloc::range::map::last_error;
use crate::hwloc::stock::library::{Library, Native, RawTopology};
use crate::hwloc::stock::minimal::{minimal, LENGTH};
use core::ffi::c_void;
use core::mem::zeroed;
use core::ptr::null_mut;
use core::sync::atomic::Ordering;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What `library` would put into an adopted topology: binding hooks and what
/// they support, native ones or those of another machine.
///
/// # Errors
/// ENOMEM, and what else there is not enough of; a later call tries again.
pub fn of(library: &Library, thissystem: bool) -> Result<&Native> {
    let slot = &library.native[usize::from(thissystem)];
    // SAFETY: null, or a box that is never freed.
    if let Some(known) = unsafe { slot.load(Ordering::Acquire).as_ref() } {
        return Ok(known);
    }
    let asked = Box::into_raw(memory::boxed(ask(library, thissystem)?)?);
    match slot.compare_exchange(null_mut(), asked, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: published, and never freed.
        Ok(_) => Ok(unsafe { &*asked }),
        Err(first) => {
            // SAFETY: not published: ours alone. The first stays.
            unsafe {
                drop(Box::from_raw(asked));
                Ok(&*first)
            }
        }
    }
}

/// What `library` puts into a topology of this system, or of another.
fn ask(library: &Library, thissystem: bool) -> Result<Native> {
    match loaded(library, thissystem)? {
        Some(native) => Ok(native),
        None => adopted(library, thissystem),
    }
}

/// Has `library` load a machine. `None` where the environment decides whose
/// machine that is.
fn loaded(library: &Library, thissystem: bool) -> Result<Option<Native>> {
    let mut topology: RawTopology = null_mut();
    // SAFETY: a place for the result.
    if unsafe { (library.init)(&mut topology) } != 0 {
        return Err(Error::NoMemory);
    }
    /// HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED, _IS_THISSYSTEM
    const FLAGS: [core::ffi::c_ulong; 2] = [1, 1 | 2];
    // SAFETY: a fresh topology and a C string, in the order hwloc wants.
    let loaded = unsafe {
        (library.set_flags)(topology, FLAGS[usize::from(thissystem)]) == 0
            && (library.set_synthetic)(topology, c"pu:1".as_ptr()) == 0
            && (library.load)(topology) == 0
    };
    let native = loaded.then(|| take(library, topology));
    // SAFETY: made above, used nowhere else.
    unsafe { (library.destroy)(topology) };
    // What was found of the machine is not the hooks' to support.
    Ok(native
        .filter(|(_, is_thissystem)| *is_thissystem == thissystem)
        .map(|(mut native, _)| {
            (native.support[0], native.support[3]) = ([0; 16], [0; 16]);
            native
        }))
}

/// Has `library` adopt the minimal machine.
fn adopted(library: &Library, thissystem: bool) -> Result<Native> {
    // SAFETY: integers, all zero is valid.
    let mut limit: libc::rlimit = unsafe { zeroed() };
    // SAFETY: a place for the result.
    let limited = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) } == 0;
    // The signal for it would end the program.
    if limited && limit.rlim_cur < LENGTH as libc::rlim_t {
        return Err(Error::NoMemory);
    }
    // SAFETY: a C string; the descriptor is owned below.
    let fd = unsafe { libc::memfd_create(c"hwloc".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(Error::NoMemory);
    }
    // SAFETY: just created, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // Another thread may take the range between the two calls: try again.
    for _ in 0..8 {
        // SAFETY: an anonymous mapping of our own, given back at once; it
        // finds an address that is free.
        let addr = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let addr = libc::mmap(null_mut(), LENGTH, libc::PROT_NONE, flags, -1, 0);
            if addr == libc::MAP_FAILED {
                return Err(last_error());
            }
            libc::munmap(addr, LENGTH);
            addr
        };
        let bytes = minimal(addr as Addr, thissystem)?;
        // SAFETY: the buffer is as long as said.
        let n = unsafe { libc::pwrite(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if n != bytes.len() as isize {
            return Err(Error::NoMemory);
        }
        let mut adopted: RawTopology = null_mut();
        // SAFETY: a file as stock's own write makes it.
        let rc = unsafe { (library.stock_adopt)(&mut adopted, fd.as_raw_fd(), 0, addr, LENGTH, 0) };
        if rc == 0 {
            let (native, _) = take(library, adopted);
            // SAFETY: adopted above, used nowhere else.
            unsafe { (library.destroy)(adopted) };
            return Ok(native);
        }
    }
    Err(Error::NoMemory)
}

/// Hooks, and whether the topology is of this system.
fn take(library: &Library, adopted: *mut c_void) -> (Native, bool) {
    // SAFETY: the caller proved the layout before it asked for hooks.
    let t = unsafe { adopted.cast::<Topology>().read() };
    let mut native = Native {
        hooks: t.binding_hooks,
        support: [[0; 16]; 4],
    };
    let arrays = [
        t.support_discovery,
        t.support_cpubind,
        t.support_membind,
        t.support_misc,
    ];
    for (i, (array, bytes)) in arrays.into_iter().zip(library.support_bytes()).enumerate() {
        // SAFETY: the library allocated its own size of each array.
        let from = unsafe { core::slice::from_raw_parts(array as *const u8, bytes) };
        native.support[i][..bytes].copy_from_slice(from);
    }
    (native, t.is_thissystem != 0)
}
