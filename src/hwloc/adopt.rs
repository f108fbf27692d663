// SPDX-License-Identifier: MIT OR Apache-2.0
//! `hwloc_shmem_topology_adopt`.
//!
//! libhwloc destroys what we return, so the structure has to be one of its
//! own: `hwloc_topology_init()` makes it, with the size, the references and
//! the defaults of the running release, and the fields of the file go over
//! it. What hwloc may write later (CPU kinds, caches of memory attributes and
//! distances) is copied behind the structure, into the same allocation, and
//! so is freed with it.

use super::image::{self, Image};
use super::layout::*;
use super::library::{Library, RawTopology};
use super::map::{self, Mapping, Place};
use super::resolve::Resolver;
use super::share::There;
use super::validate::{self, Levels, Report};
use super::{relocate, share, write};
use crate::debug;
use crate::debug_log;
use crate::error::{Error, Result};
use core::ffi::{c_ulong, c_void};
use core::mem::{offset_of, size_of};
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

/// Where the bytes are, once they are in this process and checked.
pub struct Held {
    pub mapping: Mapping,
    pub report: Report,
}

/// The file, as the caller named it.
#[derive(Clone, Copy)]
pub struct Source {
    pub fd: RawFd,
    pub offset: i64,
    pub addr: usize,
    pub length: usize,
    /// Bytes in use, as far as the writer says.
    pub used: usize,
    /// Whether the running release wants no address where there are no infos.
    pub strict_infos: bool,
}

/// Adopts a topology.
///
/// # Errors
/// EINVAL for flags other than 0, numbers that are not multiples of the page
/// size or do not match the file, and a file that is short, corrupt or of
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
    debug::enter();
    let library = Library::of_process().ok_or(Error::Unsupported)?;
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
    let held = match hold(&source, source.addr) {
        Err(Error::Busy) => occupied(&source).inspect_err(|_| {
            debug_log!("hwloc: addresses {:#x} are taken", source.addr);
        })?,
        other => Occupied::Mine(other?),
    };
    let (report, addr, owned) = match &held {
        Occupied::Mine(held) => (&held.report, held.mapping.addr(), length),
        // The first adopter's destroy unmaps, or nobody does.
        Occupied::Shared(report) => (report, source.addr, 0),
    };
    let adopted = build(fresh, report, addr, length, owned)?;
    let how = match &held {
        Occupied::Shared(_) => "shared",
        Occupied::Mine(_) if addr != source.addr => "moved",
        Occupied::Mine(_) => "there",
    };
    debug_log!(
        "hwloc: adopted {} objects at {addr:#x}, {how}",
        report.objects
    );
    if let Occupied::Mine(held) = held {
        share::remember(held.mapping.addr(), length);
        held.mapping.keep();
    }
    if std::env::var_os("HWLOC_DEBUG_CHECK").is_some() {
        // SAFETY: a whole topology of this library.
        unsafe { (library.check)(adopted) };
    }
    Ok(adopted)
}

/// Reads the start of the file and compares it with the arguments.
fn open(fd: RawFd, fileoffset: u64, addr: usize, length: usize) -> Result<Source> {
    let offset = i64::try_from(fileoffset).map_err(|_| Error::Invalid)?;
    let mut start = [0u64; (size_of::<Header>() + TOPOLOGY_COMMON) / 8];
    // SAFETY: the same memory, as bytes.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut(start.as_mut_ptr().cast::<u8>(), size_of_val(&start))
    };
    let have = map::read_at(fd, bytes, offset)?;
    if have < bytes.len() {
        return Err(Error::Invalid);
    }
    // SAFETY: as long as both structures, aligned to 8.
    let (header, t) = unsafe {
        let at = start.as_ptr().cast::<u8>();
        (
            at.cast::<Header>().read(),
            at.add(size_of::<Header>()).cast::<Topology>().read(),
        )
    };
    let matches = validate::header(&header, addr as u64, length as u64).is_ok();
    if !matches || t.abi != ABI {
        return Err(Error::Invalid);
    }
    write::check_range(fileoffset, addr, length)?;
    // Pages beyond the end of a file are a SIGBUS, not a read.
    if map::file_size(fd)? < fileoffset + length as u64 {
        return Err(Error::Invalid);
    }
    let used = usize::try_from(t.tma).unwrap_or(length);
    let plausible = (size_of_val(&start)..=length).contains(&used);
    Ok(Source {
        fd,
        offset,
        addr,
        length,
        used: if plausible { used } else { length },
        strict_infos: false,
    })
}

/// Brings the file to its address, and checks it there.
fn hold(source: &Source, addr: usize) -> Result<Held> {
    if private_wanted().unwrap_or(source.used <= COPY_LIMIT) {
        return hold_copy(source, addr);
    }
    let mapping = map::map(addr, source.length, Place::File(source.fd, source.offset))?;
    let report = inspect(&mapping, source.addr)?;
    if report.empty_infos && source.strict_infos {
        drop(mapping);
        return hold_copy(source, addr);
    }
    Ok(Held { mapping, report })
}

fn hold_copy(source: &Source, addr: usize) -> Result<Held> {
    let mut mapping = copy(source, addr)?;
    let report = inspect_copy(&mut mapping, source)?;
    mapping.seal()?;
    Ok(Held { mapping, report })
}

/// Checks a private copy, still with the file's own addresses, and makes it
/// what the running release wants.
pub fn inspect_copy(mapping: &mut Mapping, source: &Source) -> Result<Report> {
    let report = inspect(mapping, source.addr)?;
    if !report.empty_infos || !source.strict_infos {
        return Ok(report);
    }
    let work = image::work_for(source.length);
    // SAFETY: the mapping outlives the image.
    let image = unsafe {
        let at = mapping.addr() as *const u8;
        Image::new(source.addr as u64, at, source.length, &work)
    };
    let image = image.ok_or(Error::Invalid)?;
    let levels = Levels::read(&image, &report.topology).map_err(|_| Error::Invalid)?;
    let mut slots = Vec::new();
    for addr in levels.iter().flat_map(|level| level.objs) {
        let obj: Obj = image.get(*addr).ok_or(Error::Invalid)?;
        if obj.infos_count == 0 && obj.infos != 0 {
            slots.push((addr - image.base()) as usize + offset_of!(Obj, infos));
        }
    }
    for slot in slots {
        let room = mapping.bytes_mut().get_mut(slot..slot + 8);
        room.ok_or(Error::Invalid)?.fill(0);
    }
    // Where parts overlap, this may have changed others.
    inspect(mapping, source.addr)
}

/// `HWLOC_SHMEM_PRIVATE=1`: copy, whatever the size; `0`: map.
fn private_wanted() -> Option<bool> {
    let wanted = std::env::var_os("HWLOC_SHMEM_PRIVATE")?;
    match wanted.as_encoded_bytes() {
        b"1" => Some(true),
        b"0" => Some(false),
        _ => None,
    }
}

/// A private copy of the file, at `addr` or anywhere for 0.
pub fn copy(source: &Source, addr: usize) -> Result<Mapping> {
    let mut mapping = map::map(addr, source.length, Place::Anonymous)?;
    let used = source.used;
    mapping.populate(used);
    let have = map::read_at(source.fd, &mut mapping.bytes_mut()[..used], source.offset)?;
    if have < used {
        return Err(Error::Invalid);
    }
    Ok(mapping)
}

/// Checks the bytes of a mapping that were written for `base`.
pub fn inspect(mapping: &Mapping, base: usize) -> Result<Report> {
    inspect_at(mapping.addr(), mapping.len(), base)
}

/// As [`inspect`], for a range that somebody else mapped.
pub fn inspect_at(addr: usize, len: usize, base: usize) -> Result<Report> {
    let work = image::work_for(len);
    // SAFETY: callers pass a readable mapping of that size.
    let image = unsafe { Image::new(base as u64, addr as *const u8, len, &work) };
    let image = image.ok_or(Error::Invalid)?;
    validate::image(&image).map_err(|corrupt| {
        debug_log!("hwloc: refused: {} (at {:#x})", corrupt.what, corrupt.at);
        Error::Invalid
    })
}

enum Occupied {
    /// A mapping of this topology alone.
    Mine(Held),
    /// The mapping of an earlier adoption.
    Shared(Report),
}

/// The address is taken. By an earlier adoption of the same file? Or may the
/// topology go elsewhere?
fn occupied(source: &Source) -> Result<Occupied> {
    let anywhere = std::env::var_os("HWLOC_SHMEM_RELOCATE").is_some_and(|v| v == "1");
    let there = if share::is_remembered(source.addr, source.length) {
        share::share(source)
    } else {
        There::Other
    };
    match there {
        There::Shared(report) => Ok(Occupied::Shared(*report)),
        There::Other if !anywhere => Err(Error::Busy),
        There::Same | There::Other => relocate::relocate(source).map(Occupied::Mine),
    }
}

/// What is copied behind the structure.
struct Sidecar {
    base: usize,
    bytes: Vec<u8>,
}

impl Sidecar {
    /// Appends values; no values have no address: a copy of the topology
    /// frees what is not null.
    fn put<T: Plain>(&mut self, values: &[T]) -> Addr {
        if values.is_empty() {
            return 0;
        }
        let at = self.base + self.bytes.len();
        for value in values {
            // SAFETY: any plain value is its bytes.
            let bytes = unsafe {
                core::slice::from_raw_parts(core::ptr::from_ref(value).cast::<u8>(), size_of::<T>())
            };
            self.bytes.extend_from_slice(bytes);
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        at as Addr
    }
}

/// Makes the topology that the caller gets.
fn build(
    mut fresh: Fresh,
    report: &Report,
    addr: usize,
    length: usize,
    owned: usize,
) -> Result<RawTopology> {
    let library = fresh.library;
    let native = library
        .native(report.topology.is_thissystem != 0)
        .ok_or(Error::NoMemory)?;
    let mut t = report.topology;
    let from_file = [
        t.support_discovery,
        t.support_cpubind,
        t.support_membind,
        t.support_misc,
    ];

    // The addresses of the sidecar are known only when it is placed: so the
    // size comes first.
    let mut sizing = Sidecar {
        base: 0,
        bytes: Vec::new(),
    };
    sidecar(&mut sizing, &mut t, report, addr, length)?;
    let (raw, size) = enlarge(fresh.raw, sizing.bytes.len())?;
    let place = raw as usize + size;
    fresh.raw = raw;
    t = report.topology;
    let mut side = Sidecar {
        base: place,
        bytes: Vec::with_capacity(sizing.bytes.len()),
    };
    sidecar(&mut side, &mut t, report, addr, length)?;
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
    t.adopted_shmem_length = owned as u64;
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
        // SAFETY: the library's own arrays have its own sizes, and the
        // check found as many bytes in the file.
        unsafe {
            let from = from_file[i] as *const u8;
            let to = to[i] as *mut u8;
            for k in 0..bytes {
                *to.add(k) = *from.add(k) | native.support[i][k];
            }
        }
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

/// Copies what hwloc may write to, with every cache resolved.
fn sidecar(
    side: &mut Sidecar,
    t: &mut Topology,
    report: &Report,
    addr: usize,
    length: usize,
) -> Result<()> {
    let work = image::work_for(length);
    // SAFETY: the caller holds the mapping at `addr`; its pointers lead there.
    let image = unsafe { Image::new(addr as u64, addr as *const u8, length, &work) };
    let image = image.ok_or(Error::Invalid)?;
    if t.nr_cpukinds != 0 {
        let kinds = image.list::<Cpukind>(t.cpukinds, t.nr_cpukinds as usize);
        let kinds: Vec<Cpukind> = kinds.ok_or(Error::Invalid)?.iter().collect();
        t.cpukinds = side.put(&kinds);
        t.nr_cpukinds_allocated = t.nr_cpukinds;
    }
    if report.resolved {
        return Ok(());
    }
    let levels = Levels::read(&image, &report.topology).map_err(|_| Error::Invalid)?;
    let resolver = Resolver::new(&image, &levels);
    memattrs(side, t, &image, &resolver).ok_or(Error::Invalid)?;
    distances(side, t, &image, &resolver).ok_or(Error::Invalid)
}

fn memattrs(
    side: &mut Sidecar,
    t: &mut Topology,
    image: &Image<'_>,
    resolver: &Resolver<'_, '_>,
) -> Option<()> {
    let list = image.list::<Memattr>(t.memattrs, t.nr_memattrs as usize)?;
    let mut copies = Vec::with_capacity(list.len());
    for mut attr in list.iter() {
        let valid = attr.iflags & MEMATTR_CACHE_VALID != 0;
        let targets = image.list::<Target>(attr.targets, attr.nr_targets as usize)?;
        let mut kept = Vec::with_capacity(targets.len());
        for mut target in targets.iter() {
            let Some(found) = resolver.target(&target, valid) else {
                continue;
            };
            target.obj = found.addr;
            target.gp_index = found.gp_index;
            let count = target.nr_initiators as usize;
            let initiators = image.list::<Initiator>(target.initiators, count)?;
            let resolved: Vec<Initiator> = initiators
                .iter()
                .filter_map(|i| resolver.initiator(&i, valid))
                .collect();
            if resolved.is_empty() && attr.flags & MEMATTR_NEED_INITIATOR != 0 {
                continue;
            }
            target.nr_initiators = resolved.len() as u32;
            target.initiators = side.put(&resolved);
            kept.push(target);
        }
        attr.nr_targets = kept.len() as u32;
        attr.targets = side.put(&kept);
        attr.iflags |= MEMATTR_CACHE_VALID;
        copies.push(attr);
    }
    t.memattrs = side.put(&copies);
    Some(())
}

fn distances(
    side: &mut Sidecar,
    t: &mut Topology,
    image: &Image<'_>,
    resolver: &Resolver<'_, '_>,
) -> Option<()> {
    let mut list = Vec::new();
    let most = image.len() / size_of::<Distances>();
    let mut at = t.first_dist;
    while at != 0 {
        let mut d: Distances = image.get(at)?;
        at = d.next;
        // The check found an end; somebody may have taken it away since.
        if list.len() == most {
            return None;
        }
        if d.iflags & DIST_OBJS_VALID == 0 {
            // A matrix cannot be cut to size here, and no writer leaves one
            // with objects that are gone.
            let objs: Option<Vec<Addr>> = resolver.distances(&d)?.into_iter().collect();
            d.objs = side.put(&objs?);
            d.iflags |= DIST_OBJS_VALID;
        }
        list.push(d);
    }
    let size = size_of::<Distances>() as u64;
    let first = side.base as u64 + side.bytes.len() as u64;
    let count = list.len() as u64;
    for (i, d) in list.iter_mut().enumerate() {
        let i = i as u64;
        d.prev = if i == 0 { 0 } else { first + (i - 1) * size };
        d.next = if i + 1 == count {
            0
        } else {
            first + (i + 1) * size
        };
    }
    if count != 0 {
        t.first_dist = side.put(&list);
        t.last_dist = first + (count - 1) * size;
    }
    Some(())
}
