// SPDX-License-Identifier: MIT OR Apache-2.0
//! `hwloc_shmem_topology_adopt`.
//!
//! libhwloc destroys what we return, so the structure has to be one of its
//! own: `hwloc_topology_init()` makes it, with the size, the references and
//! the defaults of the running release, and the fields of the file go over
//! it. What hwloc may write later (CPU kinds, caches of memory attributes and
//! distances) is copied behind the structure, into the same allocation, and
//! so is freed with it.

pub mod relocate;
pub mod second;
pub mod sidecar;
pub mod source;

use self::source::{copy, inspect, inspect_copy, open, Held, Source};
use crate::debug;
use crate::debug_log;
use crate::error::{Error, Result};
use crate::hwloc::adopt::sidecar::Sidecar;
use crate::hwloc::encode::without_kept_if_short;
use crate::hwloc::environment;
use crate::hwloc::layout::*;
use crate::hwloc::range::map::{self, Place};
use crate::hwloc::stock::library::{Library, RawTopology};
use crate::hwloc::stock::native;
use crate::hwloc::validate::Report;
use core::ffi::{c_ulong, c_void};
use core::ptr::null_mut;
use std::os::fd::RawFd;

/// A file whose bytes in use are no more than this is copied into private
/// memory: nobody can change or cut it under us then. Larger ones are mapped,
/// which is what sharing is for.
///
/// The limit is a price, not the point where copying wins: it never does.
/// `make bench-hwloc` shows adopt, walk and destroy by size. Beside stock's a
/// mapped file takes 1.15 to 1.25 times as long at any size; a copied one 1.45
/// times at 4 KiB, 2 at 48 KiB and 184 KiB (256 processors), where no more
/// than 1.5 is wanted. Up to here safety costs some 20 microseconds, once.
pub const COPY_LIMIT: usize = 64 << 10;

/// The first API version whose releases may check for addresses of no infos:
/// 2.15 does, and says that its API is that of 2.12.
const STRICT_INFOS: u32 = 0x2_0c00;

/// A structure made by `hwloc_topology_init`, destroyed unless it is used.
struct Fresh {
    library: &'static Library,
    raw: RawTopology,
}

impl Fresh {
    fn new(library: &'static Library) -> Result<Self> {
        let mut raw = null_mut();
        // SAFETY: a place for the result.
        if unsafe { (library.init)(&mut raw) } != 0 {
            return Err(Error::NoMemory);
        }
        Ok(Fresh { library, raw })
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // SAFETY: made by `init`, handed to nobody.
        unsafe { (self.library.destroy)(self.raw) };
    }
}

/// Adopts a topology.
///
/// # Errors
/// EINVAL for flags other than 0, an offset or address inside of a page, numbers
/// that do not match the file, and a file that is short, corrupt or of
/// another layout; EBUSY if the range is taken; EBADF, ESPIPE and what else
/// the file answers; ENOMEM; ENOSYS without libhwloc.
///
/// # Safety
/// The file must not be cut shorter while the topology is in use.
pub unsafe fn adopt(
    fd: RawFd,
    fileoffset: u64,
    addr: *mut c_void,
    length: usize,
    flags: c_ulong,
) -> Result<RawTopology> {
    debug::enter_uncounted();
    let library = Library::of_caller()?;
    let fresh = Fresh::new(library)?;
    if !library.is_served(fresh.raw) {
        drop(fresh);
        debug_log!("hwloc: layout is not ours: stock's functions serve");
        let mut adopted = null_mut();
        // SAFETY: the caller's arguments for the function they are for.
        let rc =
            unsafe { (library.stock_adopt)(&mut adopted, fd, fileoffset, addr, length, flags) };
        return if rc == 0 {
            Ok(adopted)
        } else {
            Err(map::last_error())
        };
    }
    if flags != 0 {
        return Err(Error::Invalid);
    }
    let mut source = open(fd, fileoffset, addr as usize, length)?;
    source.strict_infos = library.version() >= STRICT_INFOS;
    let held = without_kept_if_short(|| bring(&source))?;
    let checking = environment::get(c"HWLOC_DEBUG_CHECK").is_some();
    if checking && held.report.odd {
        debug_log!("hwloc: refused: its own check would abort");
        return Err(Error::Invalid);
    }
    let addr = held.mapping.addr();
    let adopted = build(fresh, &held.report, addr, length)?;
    debug_log!(
        "hwloc: adopted {} objects at {addr:#x}, {}",
        held.report.objects,
        if addr == source.addr {
            "there"
        } else {
            "moved"
        }
    );
    held.mapping.keep();
    if checking {
        // SAFETY: a whole topology of this library.
        unsafe { (library.check)(adopted) };
    }
    Ok(adopted)
}

/// Threads that adopt and destroy at once can find the address taken, and what
/// took it gone when they look.
const TRIES: usize = 8;

/// Brings the file to its address, or to another where an adoption of the
/// same file holds that, and checks it there.
#[inline(never)]
fn bring(source: &Source) -> Result<Held> {
    let mut moved = None;
    for _ in 0..TRIES {
        match hold(source) {
            Err(Error::Busy) => {}
            other => return other,
        }
        let filling = second::is_filling(source.addr);
        let mapping = match moved.take() {
            Some(mapping) => mapping,
            None => copy(source, 0)?,
        };
        let anywhere = environment::is(c"HWLOC_SHMEM_RELOCATE", c"1");
        if anywhere || filling || second::is_there(source, &mapping)? {
            return relocate::relocate(source, mapping);
        }
        moved = Some(mapping);
    }
    debug_log!("hwloc: addresses {:#x} are taken", source.addr);
    Err(Error::Busy)
}

/// Brings the file to its address, and checks it there.
fn hold(source: &Source) -> Result<Held> {
    let _filling = second::Filling::at(source.addr);
    let wanted = private_wanted();
    if wanted.unwrap_or(source.used <= COPY_LIMIT || source.has_holes) {
        match hold_copy(source, source.addr) {
            // Private memory may be short where there is room for a mapping.
            Err(Error::NoMemory) if wanted.is_none() => {}
            other => return other,
        }
    }
    let place = Place::File(source.fd, source.offset);
    let mapping = map::map(source.addr, source.length, place)?;
    let report = inspect(&mapping, source.addr)?;
    if report.empty_infos && source.strict_infos {
        drop(mapping);
        return hold_copy(source, source.addr);
    }
    Ok(Held { mapping, report })
}

#[inline(never)]
fn hold_copy(source: &Source, addr: usize) -> Result<Held> {
    let mut mapping = copy(source, addr)?;
    let report = inspect_copy(&mut mapping, source)?;
    mapping.seal();
    Ok(Held { mapping, report })
}

/// `HWLOC_SHMEM_PRIVATE=1`: copy, whatever the size; `0`: map.
fn private_wanted() -> Option<bool> {
    match environment::get(c"HWLOC_SHMEM_PRIVATE")?.to_bytes() {
        b"1" => Some(true),
        b"0" => Some(false),
        _ => None,
    }
}

/// Makes the topology that the caller gets.
#[inline(never)]
fn build(mut fresh: Fresh, report: &Report, addr: usize, length: usize) -> Result<RawTopology> {
    let library = fresh.library;
    let native = native::of(library, report.topology.is_thissystem != 0)?;
    let mut t = *report.topology;
    let from_file = [
        t.support_discovery,
        t.support_cpubind,
        t.support_membind,
        t.support_misc,
    ];

    // The addresses of the sidecar are known only when it is placed: so the
    // size comes first.
    let mut sizing = Sidecar::new(0, 0)?;
    sizing.fill(&mut t, report, addr, length)?;
    let (raw, size) = enlarge(fresh.raw, sizing.bytes.len())?;
    let place = raw as usize + size;
    fresh.raw = raw;
    t = *report.topology;
    let mut side = Sidecar::new(place, sizing.bytes.len())?;
    side.fill(&mut t, report, addr, length)?;
    // Another size means that somebody writes to the file meanwhile.
    if side.bytes.len() != sizing.bytes.len() {
        return Err(Error::Invalid);
    }
    // From here on nothing fails.
    core::mem::forget(fresh);
    // SAFETY: the running library's own structure, layout proven.
    let own = unsafe { raw.cast::<Topology>().read() };
    discard_defaults(&own);
    // SAFETY: `enlarge` made room for as many bytes.
    unsafe {
        let to = place as *mut u8;
        to.copy_from_nonoverlapping(side.bytes.as_ptr(), side.bytes.len());
    }

    // hwloc takes "keep important" for groups as "keep all", and then aborts
    // when it checks the topology.
    if t.type_filter[ty::GROUP as usize] == KEEP_ALL {
        t.type_filter[ty::GROUP as usize] = KEEP_STRUCTURE;
    }
    t.binding_hooks = native.hooks;
    t.userdata = 0;
    (t.userdata_export_cb, t.userdata_import_cb) = (0, 0);
    t.adopted_shmem_addr = addr as Addr;
    t.adopted_shmem_length = length as u64;
    t.support_discovery = own.support_discovery;
    t.support_cpubind = own.support_cpubind;
    t.support_membind = own.support_membind;
    t.support_misc = own.support_misc;
    let to = [
        own.support_discovery,
        own.support_cpubind,
        own.support_membind,
        own.support_misc,
    ];
    for i in 0..4 {
        let bytes = library.support_bytes()[i];
        let native = native.support[i].get(..bytes).unwrap_or(&[]);
        // SAFETY: the library's own arrays have its own sizes, and the
        // check found as many bytes in the file.
        unsafe { merge(to[i] as *mut u8, from_file[i] as *const u8, native) };
    }
    // SAFETY: the allocation holds `size` bytes, which is more. Behind what is
    // adopted stands scratch of a discovery, which `init` does not set and a
    // copy of the topology may want to be zero.
    unsafe {
        let from = (&raw const t).cast::<u8>();
        let to = raw.cast::<u8>();
        to.copy_from_nonoverlapping(from, TOPOLOGY_ADOPTED);
        to.add(TOPOLOGY_ADOPTED)
            .write_bytes(0, size - TOPOLOGY_ADOPTED);
    }
    Ok(raw)
}

/// What the file supports, or the running release.
///
/// # Safety
/// Both have as many bytes as `more`.
unsafe fn merge(to: *mut u8, from: *const u8, more: &[u8]) {
    for (k, more) in more.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { *to.add(k) = *from.add(k) | more };
    }
}

/// Frees what `init` put into a topology and the file replaces.
fn discard_defaults(own: &Topology) {
    // SAFETY: a topology that was only initialised has one level with one
    // object, and hwloc allocates each part of it with malloc.
    unsafe {
        let levels = own.levels as *mut *mut *mut Obj;
        let root = **levels;
        libc::free((*root).attr as *mut c_void);
        libc::free(root.cast());
        libc::free((*levels).cast());
        libc::free(levels.cast());
        libc::free(own.level_nbobjects as *mut c_void);
    }
}

/// Makes the allocation of a structure larger, and answers how many of its
/// bytes are the structure's: no release needs more. The new room follows.
fn enlarge(raw: RawTopology, more: usize) -> Result<(RawTopology, usize)> {
    // SAFETY: from hwloc's malloc, which is this process's.
    let usable = unsafe { libc::malloc_usable_size(raw) };
    if more == 0 {
        return Ok((raw, usable));
    }
    let start = usable.next_multiple_of(16).max(1024);
    // SAFETY: as above; nobody else holds the pointer.
    let moved = unsafe { libc::realloc(raw, start + more) };
    if moved.is_null() {
        return Err(Error::NoMemory);
    }
    Ok((moved, start))
}
