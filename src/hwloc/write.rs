// SPDX-License-Identifier: MIT OR Apache-2.0
//! `hwloc_shmem_topology_get_length` and `hwloc_shmem_topology_write`.

use crate::debug;
use crate::debug_log;
use crate::error::{Error, Result};
use crate::hwloc::encode::{self, Encoded};
use crate::hwloc::image::{work_for, Image};
use crate::hwloc::layout::{Header, Topology, ABI};
use crate::hwloc::length;
use crate::hwloc::memory;
use crate::hwloc::range::file;
use crate::hwloc::range::map::{self, Place};
use crate::hwloc::range::reserved;
use crate::hwloc::stock::library::{Library, RawTopology};
use crate::hwloc::validate;
use core::ffi::{c_int, c_ulong, c_void};
use std::os::fd::RawFd;

/// What stands between a caller and our own code.
pub enum Route {
    /// A layout we know, made by this library.
    Own(&'static Library),
    /// Another layout: stock's function has to do it.
    Stock(&'static Library),
}

/// Who serves a live topology.
///
/// # Safety
/// `topology` is a live topology of hwloc 2 or later.
unsafe fn route(topology: RawTopology) -> Result<Route> {
    debug::enter_uncounted();
    if topology.is_null() {
        return Err(Error::Invalid);
    }
    // SAFETY: the caller's promise.
    let library = unsafe { Library::of_topology(topology) }?;
    // SAFETY: each layout of hwloc 2 begins with its ABI.
    let abi = unsafe { topology.cast::<u32>().read() };
    Ok(if abi == ABI && library.is_served_here()? {
        Route::Own(library)
    } else {
        debug_log!("hwloc: layout {abi:#x} is not ours: stock's functions serve");
        Route::Stock(library)
    })
}

/// Turns stock's answer into ours.
fn of_stock(rc: c_int) -> Result<()> {
    if rc == 0 {
        Ok(())
    } else {
        Err(map::last_error())
    }
}

/// Reads the structure of a live, loaded topology.
///
/// # Safety
/// `topology` is live and of layout [`ABI`].
unsafe fn loaded(topology: RawTopology) -> Result<Topology> {
    // SAFETY: the caller's promise.
    let t = unsafe { topology.cast::<Topology>().read() };
    if t.is_loaded == 0 {
        return Err(Error::Invalid);
    }
    Ok(t)
}

/// How many bytes stock hwloc would need for `topology`, in whole pages.
/// Enough for [`write`] and for a stock `write` in another process.
///
/// # Errors
/// EINVAL for flags other than 0 or a topology that is not loaded; ENOSYS
/// without libhwloc in the process.
///
/// # Safety
/// `topology` is a live topology that nobody changes meanwhile.
pub unsafe fn get_length(topology: RawTopology, flags: c_ulong) -> Result<usize> {
    // SAFETY: the caller's promise.
    match unsafe { route(topology) }? {
        Route::Own(_) if flags != 0 => Err(Error::Invalid),
        Route::Own(library) => {
            // SAFETY: `route` proved the layout.
            let t = unsafe { loaded(topology) }?;
            // SAFETY: only the topology's own pointers are followed.
            let image = unsafe { Image::process() };
            length::stock(image, &t, library.structure(), map::page_size()).map_err(Error::from)
        }
        Route::Stock(library) => {
            let mut length = 0;
            // SAFETY: the caller's arguments for the function they are for.
            of_stock(unsafe { (library.stock_get_length)(topology, &mut length, flags) })?;
            Ok(length)
        }
    }
}

/// Nothing is mapped below, though root might.
const LOWEST: usize = 64 << 10;

/// Checks what `write` and `adopt` document about their numbers. hwloc documents
/// whole pages for the length too, and takes any.
pub fn check_range(fileoffset: u64, addr: usize, length: usize) -> Result<i64> {
    let page = map::page_size();
    let end = fileoffset.checked_add(length as u64);
    let aligned = fileoffset % page as u64 == 0 && addr % page == 0;
    if !aligned || length == 0 || end.is_none_or(|e| i64::try_from(e).is_err()) {
        return Err(Error::Invalid);
    }
    let last = addr
        .checked_add(length)
        .and_then(|end| end.checked_add(page));
    if addr < LOWEST || last.is_none() {
        return Err(Error::Busy);
    }
    Ok(fileoffset as i64)
}

/// Writes `topology` into a file for adoption at `addr`. Neither the
/// topology, the file's position nor, on failure, the file is changed. A file
/// that is longer stays as long as it is.
///
/// # Errors
/// EINVAL for flags other than 0, a topology that is not loaded, an offset or
/// address inside of a page, or a length that is too short; EBUSY
/// if the range is taken in this process; EBADF, EACCES, ESPIPE, ENOSPC and
/// what else the file answers; ENOMEM; ENOSYS without libhwloc.
///
/// # Safety
/// As for [`get_length`].
pub unsafe fn write(
    topology: RawTopology,
    fd: RawFd,
    fileoffset: u64,
    addr: *mut c_void,
    length: usize,
    flags: c_ulong,
) -> Result<()> {
    // SAFETY: the caller's promise.
    let library = match unsafe { route(topology) }? {
        Route::Own(library) => library,
        Route::Stock(library) => {
            // SAFETY: the caller's arguments for the function they are for.
            return of_stock(unsafe {
                (library.stock_write)(topology, fd, fileoffset, addr, length, flags)
            });
        }
    };
    if flags != 0 {
        return Err(Error::Invalid);
    }
    // SAFETY: `route` proved the layout.
    let t = unsafe { loaded(topology) }?;
    file::seekable(fd)?;
    let append = file::appends(fd)?;
    let offset = check_range(fileoffset, addr as usize, length)?;
    // Adopters could not map it where the writer cannot.
    if !reserved::is_reserved(addr as usize, length) {
        let reserve = || map::map(addr as usize, length, Place::Reserved);
        drop(encode::without_kept_if_short(reserve)?);
    }
    // SAFETY: only the topology's own pointers are followed.
    let image = unsafe { Image::process() };
    let support = library.support_bytes();
    let encoded = encode::encode(&image, &t, support, addr as u64, length)?;
    let stored = check(&encoded, addr as u64, length)
        .and_then(|()| store(fd, append, encoded.bytes.as_slice(), offset, length));
    encoded.bytes.release();
    stored
}

/// What adopters would refuse is not written.
fn check(encoded: &Encoded, addr: u64, length: usize) -> Result<()> {
    let bytes = encoded.bytes.as_slice();
    if bytes.len() > length {
        return Err(Error::Invalid);
    }
    let work = work_for(length);
    // SAFETY: the bytes outlive the image.
    let image = unsafe { Image::new(addr, bytes.as_ptr(), bytes.len(), &work) };
    let image = image.ok_or(Error::Invalid)?;
    let whole = || {
        work.set(work_for(length).get());
        validate::contents(&image).map(|_| ())
    };
    let checked = if encoded.sure {
        let checked = validate::around(&image);
        debug_assert!(checked.is_err() || whole().is_ok(), "{:?}", whole());
        checked
    } else {
        whole()
    };
    checked.map_err(|corrupt| {
        debug_log!("hwloc: not written: {}", corrupt.what);
        Error::from(corrupt)
    })
}

/// Puts the bytes into the file, all or nothing.
fn store(fd: RawFd, append: bool, bytes: &[u8], offset: i64, length: usize) -> Result<()> {
    let start = offset as u64;
    let end = start + length as u64;
    let before = file::size(fd)?;
    let overlap = before.saturating_sub(start).min(bytes.len() as u64);
    let mut saved = memory::filled(0, overlap as usize)?;
    let have = file::read_at(fd, &mut saved, offset)?;
    saved.truncate(have);
    // The header last: until then no reader takes it for a topology.
    let (header, rest) = bytes.split_at(core::mem::size_of::<Header>());
    let mapped = || file::write_mapped(fd, bytes, offset, header.len());
    let written = grow(fd, before, end, (header, offset)).and_then(|()| {
        if append {
            return mapped();
        }
        match file::write_at(fd, rest, offset + header.len() as i64) {
            Ok(()) => file::write_at(fd, header, offset),
            Err(error) if file::is_refused(error) => mapped(),
            Err(error) => Err(error),
        }
    });
    if written.is_err() {
        // Of a mapping nothing was written.
        if !append && !saved.is_empty() {
            let _ = file::write_at(fd, &saved, offset);
        }
        if before < end {
            let _ = file::resize(fd, before);
        }
        return written;
    }
    let tail = start + bytes.len() as u64;
    if before > tail {
        file::punch(fd, tail, before.min(end));
    }
    Ok(())
}

/// Makes the file long enough. What has no length, a device, fails as it does
/// when a header is written to it.
fn grow(fd: RawFd, before: u64, end: u64, (header, offset): (&[u8], i64)) -> Result<()> {
    if before >= end {
        return Ok(());
    }
    let resized = file::resize(fd, end);
    if resized == Err(Error::Invalid) && !file::is_regular(fd) {
        file::write_at(fd, header, offset)?;
    }
    resized
}
