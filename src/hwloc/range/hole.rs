// SPDX-License-Identifier: MIT OR Apache-2.0
//! An address range that is free in several processes, and keeping it free.
//!
//! Whoever writes a topology chooses its address for all adopters. The
//! choice here is well inside the largest hole that all given processes
//! share, away from both ends: mappings grow into a hole from its ends. It
//! is not the middle, where other software that looks for holes puts its own.
//!
//! `proc-maps` would read the list, but wants each path to be UTF-8, which one
//! mapping of a foreign process need not be, and aborts where there is no memory.

use crate::error::{Error, Result};
use crate::hwloc::memory;
use crate::hwloc::range::map::{self, Mapping, Place};
use crate::hwloc::range::reserved;
use std::io::{Read, Write};

/// One line of `/proc/PID/maps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub start: usize,
    pub end: usize,
}

/// Lowest address that is offered: below are 32-bit pointers' grounds.
const LOWEST: usize = 4 << 30;
/// End of what user space has without asking for more, less the stack's
/// room and a guard.
const HIGHEST: usize = (1 << 47) - (1 << 30);

/// Parses the addresses of a line of a maps file. What is mapped is a path,
/// which may be any bytes.
fn parse(line: &[u8]) -> Option<Region> {
    let line = line.get(..line.len().min(LINE))?;
    let mut ends = line.split(|b| *b == b' ').next()?.split(|b| *b == b'-');
    let mut number = || {
        let digits = core::str::from_utf8(ends.next()?).ok()?;
        usize::from_str_radix(digits, 16).ok()
    };
    Some(Region {
        start: number()?,
        end: number()?,
    })
}

/// What is looked at of a line: two addresses.
const LINE: usize = 48;

/// Adds the mappings that a maps file lists, read in parts; lines that it does
/// not know are left out.
fn read_regions(mut file: impl Read, regions: &mut Vec<Region>) -> Result<()> {
    let mut part = [0; 4096];
    let mut line = [0; LINE];
    let mut length = 0;
    loop {
        let n = match file.read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(of_process(&e)),
        };
        for byte in part.get(..n).unwrap_or(&[]) {
            if *byte != b'\n' {
                if let Some(place) = line.get_mut(length) {
                    *place = *byte;
                    length += 1;
                }
                continue;
            }
            if let Some(region) = parse(&line[..length]) {
                memory::push(regions, region)?;
            }
            length = 0;
        }
    }
}

fn of_process(error: &std::io::Error) -> Error {
    let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
    Error::from_errno(if errno == libc::ESRCH {
        libc::ENOENT
    } else {
        errno
    })
}

/// Adds the mappings of a process: a number, or `self`.
///
/// # Errors
/// ENOENT if there is no such process, EACCES if it may not be looked at.
fn read_maps(process: core::fmt::Arguments<'_>, regions: &mut Vec<Region>) -> Result<()> {
    let mut path = [0; 40];
    let mut room = &mut path[..];
    write!(room, "/proc/{process}/maps").map_err(|_| Error::Invalid)?;
    let left = room.len();
    let length = path.len() - left;
    let path = core::str::from_utf8(&path[..length]).map_err(|_| Error::Invalid)?;
    // Short paths are opened without an allocation.
    let file = std::fs::File::open(path).map_err(|e| of_process(&e))?;
    read_regions(file, regions)
}

/// A free range for `length` bytes among mappings of any number of
/// processes, in any order.
pub fn choose(mut taken: Vec<Region>, length: usize) -> Option<usize> {
    taken.sort_unstable_by_key(|r| r.start);
    let mut best = (0, 0);
    let mut free_from = LOWEST;
    let end = Region {
        start: HIGHEST,
        end: HIGHEST,
    };
    for region in taken.iter().chain([&end]) {
        let free_to = region.start.min(HIGHEST);
        if free_to > free_from && free_to - free_from > best.1 - best.0 {
            best = (free_from, free_to);
        }
        free_from = free_from.max(region.end);
    }
    place(best.0, best.1, length)
}

/// Where in a hole: three eighths in, on the largest boundary that leaves a
/// margin at both ends.
fn place(start: usize, end: usize, length: usize) -> Option<usize> {
    let hole = end - start;
    let free = hole.checked_sub(length)?;
    for align in [1 << 30, 2 << 20, map::page_size()] {
        let margin = (free / 8).min(64 << 30);
        let wish = start + free / 8 * 3;
        let at = wish.next_multiple_of(align);
        if at >= start + margin && at + length <= end - margin {
            return Some(at);
        }
    }
    None
}

/// Finds a range of `length` bytes that is free in each of `pids` and in
/// this process.
///
/// # Errors
/// EINVAL for a length of 0; ENOENT, EACCES for a process that is not there
/// or may not be looked at; ENOMEM if there is no such range.
pub fn find(pids: &[u32], length: usize) -> Result<usize> {
    if length == 0 {
        return Err(Error::Invalid);
    }
    let length = length
        .checked_next_multiple_of(map::page_size())
        .ok_or(Error::NoMemory)?;
    let mut taken = Vec::new();
    read_maps(format_args!("self"), &mut taken)?;
    for pid in pids {
        read_maps(format_args!("{pid}"), &mut taken)?;
    }
    choose(taken, length).ok_or(Error::NoMemory)
}

/// Takes a range so that nothing else is mapped there, until it is adopted
/// at or released.
///
/// # Errors
/// EBUSY if the range is not free; EINVAL if it is not made of whole pages;
/// ENOMEM if too many are reserved.
pub fn reserve(addr: usize, length: usize) -> Result<()> {
    let page = map::page_size();
    if addr == 0 || addr % page != 0 || length == 0 || length % page != 0 {
        return Err(Error::Invalid);
    }
    let mapping = map::map(addr, length, Place::Reserved)?;
    reserved::note(addr, length)?;
    mapping.keep();
    Ok(())
}

/// Gives a reserved range back.
///
/// # Errors
/// EINVAL if it is not reserved.
pub fn release(addr: usize, length: usize) -> Result<()> {
    if !reserved::take(addr, length) {
        return Err(Error::Invalid);
    }
    drop(Mapping::adopt_range(addr, length));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: usize, end: usize) -> Region {
        Region { start, end }
    }

    #[test]
    fn lines_of_the_kernel() {
        // The path is not UTF-8, and longer than what is read at a time.
        let mut text = b"55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0   /\xff\xfe".to_vec();
        text.extend([b'x'; 5000]);
        text.extend(b"\n7ffd8b5c6000-7ffd8b5c8000 r-xp 00000000 00:00 0   [vdso]\nrubbish\n");
        let mut all = Vec::new();
        read_regions(text.as_slice(), &mut all).expect("lines");
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].start, 0x55d0_c000_0000);
        assert_eq!(all[1].end, 0x7ffd_8b5c_8000);
    }

    #[test]
    fn hole_is_common_and_has_margins() {
        let one = vec![
            region(0x5500_0000_0000, 0x5500_1000_0000),
            region(0x7f00_0000_0000, 0x7fff_0000_0000),
        ];
        let mut both = one.clone();
        // A second process has something where the first alone would go.
        let first = choose(one, 1 << 20).expect("room");
        both.push(region(first - (1 << 30), first + (1 << 30)));
        let second = choose(both.clone(), 1 << 20).expect("room");
        for r in &both {
            assert!(second + (1 << 20) <= r.start || second >= r.end);
            let gap = if second >= r.end {
                second - r.end
            } else {
                r.start - second - (1 << 20)
            };
            assert!(gap > 1 << 30, "no margin to {r:x?} at {second:x}");
        }
    }

    #[test]
    fn no_room_is_no_answer() {
        let full = vec![region(0, HIGHEST)];
        assert_eq!(choose(full, 4096), None);
        assert_eq!(choose(Vec::new(), usize::MAX / 2), None);
    }

    #[test]
    fn reservation_blocks_and_is_given_back() {
        let at = find(&[], 1 << 20).expect("a hole");
        reserve(at, 1 << 20).expect("free");
        assert_eq!(reserve(at, 1 << 20), Err(Error::Busy));
        assert!(map::map(at, 4096, Place::Anonymous).is_err());
        assert_eq!(release(at, 4096), Err(Error::Invalid));
        release(at, 1 << 20).expect("ours");
        assert_eq!(release(at, 1 << 20), Err(Error::Invalid));
        drop(map::map(at, 4096, Place::Anonymous).expect("free again"));
    }
}
