// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file of an adoption: opened, copied, inspected.

use crate::debug_log;
use crate::error::{Error, Result};
use crate::hwloc::image::{self, Image};
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use crate::hwloc::range::file;
use crate::hwloc::range::map::{self, Mapping, Place};
use crate::hwloc::validate::{self, Levels, Report};
use crate::hwloc::write;
use core::mem::{offset_of, size_of};
use std::os::fd::RawFd;

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
    /// Bytes of the file.
    pub size: u64,
    /// Bytes in use, as far as the writer says.
    pub used: usize,
    /// A part of what is in use has no blocks. Where the file system is full,
    /// touching a mapping there is a SIGBUS: it is copied.
    pub has_holes: bool,
    /// Whether the running release wants no address where there are no infos.
    pub strict_infos: bool,
}

/// Reads the start of the file and compares it with the arguments.
#[inline(never)]
pub fn open(fd: RawFd, fileoffset: u64, addr: usize, length: usize) -> Result<Source> {
    let offset = i64::try_from(fileoffset).map_err(|_| Error::Invalid)?;
    let mut start = [0u64; (size_of::<Header>() + TOPOLOGY_COMMON) / 8];
    // SAFETY: the same memory, as bytes.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut(start.as_mut_ptr().cast::<u8>(), size_of_val(&start))
    };
    let have = file::read_at(fd, bytes, offset)?;
    if have < bytes.len() {
        return Err(Error::Invalid);
    }
    // SAFETY: as long as both structures, aligned to 8.
    let (header, t) = unsafe {
        let at = start.as_ptr().cast::<u8>();
        (
            &*at.cast::<Header>(),
            &*at.add(size_of::<Header>()).cast::<Topology>(),
        )
    };
    let matches = validate::header(header, addr as u64, length as u64).is_ok();
    if !matches || t.abi != ABI {
        return Err(Error::Invalid);
    }
    write::check_range(fileoffset, addr, length)?;
    // Pages beyond the end of a file are a SIGBUS, not a read; the last may be cut
    // short, and is zeros from there on.
    let (size, blocks) = file::extent(fd)?;
    if size.next_multiple_of(map::page_size() as u64) < fileoffset + length as u64 {
        return Err(Error::Invalid);
    }
    let used = t.in_use(length as u64).unwrap_or(length as u64);
    let end = fileoffset + used;
    let has_holes = blocks < end && file::data(fd, fileoffset, end) != Some((fileoffset, end));
    Ok(Source {
        fd,
        offset,
        addr,
        length,
        size,
        used: used as usize,
        has_holes,
        strict_infos: false,
    })
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
    let levels = Levels::read(&image, &report.topology)?;
    let mut slots = memory::list(0)?;
    for addr in levels.iter().flat_map(|level| level.objs) {
        let obj: Obj = image.get(*addr).ok_or(Error::Invalid)?;
        if obj.infos_count == 0 && obj.infos != 0 {
            let slot = (addr - image.base()) as usize + offset_of!(Obj, infos);
            memory::push(&mut slots, slot)?;
        }
    }
    for slot in slots {
        let room = mapping.bytes_mut().get_mut(slot..slot + 8);
        room.ok_or(Error::Invalid)?.fill(0);
    }
    // Where parts overlap, this may have changed others.
    inspect(mapping, source.addr)
}

/// A private copy of the file, at `addr` or anywhere for 0.
#[inline(never)]
pub fn copy(source: &Source, addr: usize) -> Result<Mapping> {
    let mut mapping = map::map(addr, source.length, Place::Anonymous)?;
    let used = source.used;
    // For a page or two the call costs more than the faults that it saves.
    if !source.has_holes && used > 2 * map::page_size() {
        mapping.populate(used);
    }
    // Holes take no memory here either.
    let (start, end) = (source.offset as u64, source.offset as u64 + used as u64);
    let mut at = start;
    while let Some((from, to)) = next_part(source, at, end) {
        let part = (from - start) as usize..(to - start) as usize;
        let have = file::read_at(source.fd, &mut mapping.bytes_mut()[part], from as i64)?;
        if from + (have as u64) < to.min(source.size) {
            return Err(Error::Invalid);
        }
        at = to;
    }
    Ok(mapping)
}

/// The next part of the file that has to be read.
fn next_part(source: &Source, at: u64, end: u64) -> Option<(u64, u64)> {
    match source.has_holes {
        true => file::data(source.fd, at, end),
        false => (at < end).then_some((at, end)),
    }
}

/// Checks the bytes of a mapping that were written for `base`.
pub fn inspect(mapping: &Mapping, base: usize) -> Result<Report> {
    let len = mapping.len();
    let work = image::work_for(len);
    // SAFETY: a readable mapping of that size.
    let image = unsafe { Image::new(base as u64, mapping.addr() as *const u8, len, &work) };
    let image = image.ok_or(Error::Invalid)?;
    validate::image(&image).map_err(|corrupt| {
        debug_log!("hwloc: refused: {} (at {:#x})", corrupt.what, corrupt.at);
        Error::from(corrupt)
    })
}
