// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is mapped where in this address space, and which pages it has.
//!
//! Uses PROCMAP_QUERY (Linux 6.11) and PAGEMAP_SCAN (6.7), and reads the text
//! of /proc/self/maps and the words of /proc/self/pagemap where those are not
//! there. Nothing allocates.

#![forbid(unsafe_code)]

use super::maps::{classify, parse, Mapping, Reader};
use super::{hugetlb, sys, Span, Sys, PAGE};
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use core::ffi::CStr;

/// The address space of the calling task.
#[derive(Clone, Copy)]
pub struct Space {
    maps: Fd,
    pagemap: Fd,
    query: bool,
    scan: bool,
}

const QUERY: u64 = (3 << 30) | (104 << 16) | (0x66 << 8) | 17;
const SCAN: u64 = (3 << 30) | (96 << 16) | (0x66 << 8) | 16;
const COVERING_OR_NEXT: u64 = 0x10;

/// Page categories of [`Space::scan`].
pub const WRITTEN: u64 = 1 << 1;
pub const PRESENT: u64 = 1 << 3;
const HUGE_PAGE: u64 = 1 << 6;
pub const SWAPPED: u64 = 1 << 4;
const PFNZERO: u64 = 1 << 5;
const WP_MATCHING: u64 = 1;
const CHECK_WPASYNC: u64 = 1 << 1;

/// A run of pages with what they have in common.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Run {
    pub start: u64,
    pub end: u64,
    pub categories: u64,
}

impl Space {
    /// Opens the caller's own address space.
    pub fn open() -> Sys<Self> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let maps = crate::fd::open(c"/proc/self/maps", flags, 0)?;
        let pagemap = crate::fd::open(c"/proc/self/pagemap", flags, 0)?;
        let mut space = Self {
            maps: maps.keep(),
            pagemap: pagemap.keep(),
            query: true,
            scan: true,
        };
        space.query = space.find_by_query(0).is_ok();
        space.scan = space
            .scan_pages(Span::new(0, PAGE), 0, &mut [], false)
            .is_ok();
        Ok(space)
    }

    /// Opens the list of mappings anew. The kernel reads it as text for as long
    /// as the task lives that has opened it; whoever goes on after that task
    /// needs one of its own.
    pub fn reopen(&mut self) -> Sys<()> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let maps = crate::fd::open(c"/proc/self/maps", flags, 0)?;
        drop(OwnedFd::new(self.maps.number()));
        self.maps = maps.keep();
        Ok(())
    }

    /// Gives the descriptors back.
    #[cfg(feature = "tool")]
    pub fn close(self) {
        drop([self.maps, self.pagemap].map(|fd| OwnedFd::new(fd.number())));
    }

    /// Does as kernels before PROCMAP_QUERY and PAGEMAP_SCAN have it.
    pub fn forget_new_ways(&mut self) {
        (self.query, self.scan) = (false, false);
    }

    /// Whether PROCMAP_QUERY is there.
    pub fn has_query(&self) -> bool {
        self.query
    }

    /// Whether PAGEMAP_SCAN is there.
    pub fn has_scan(&self) -> bool {
        self.scan
    }

    /// The mapping that covers `addr`, or the next one above.
    pub fn find(&self, addr: usize) -> Sys<Option<Mapping>> {
        if self.query {
            // What cannot be seen is not what is not there: the kernel refuses
            // only where it is out of memory.
            super::insist(|| self.find_by_query(addr))
        } else {
            self.find_by_text(addr)
        }
    }

    /// The mapping that covers `addr`.
    pub fn at(&self, addr: usize) -> Sys<Option<Mapping>> {
        Ok(self.find(addr)?.filter(|m| m.start <= addr))
    }

    /// Whether pages of what `m` maps are mapped at other addresses, too.
    pub fn is_mapped_again(&self, m: &Mapping) -> Sys<bool> {
        let mut reader = Reader::new(self.maps);
        let mut line = [0u8; 256];
        let last = m.offset + (m.end - m.start);
        while let Some(len) = reader.line(&mut line)? {
            let again = parse(&line[..len]).is_some_and(|other| {
                (other.device, other.inode) == (m.device, m.inode)
                    && other.start.wrapping_sub(other.offset) != m.start.wrapping_sub(m.offset)
                    && other.offset < last
                    && m.offset < other.offset + (other.end - other.start)
            });
            if again {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first part of `span` that is sealed (mseal, Linux 6.10).
    pub fn first_sealed(&self, span: Span) -> Sys<Option<Span>> {
        let mut rest = span;
        // What has no query is older, but for 6.10.
        while self.query && !rest.is_empty() {
            let Some(m) = self.find(rest.start())?.filter(|m| m.start < span.end()) else {
                break;
            };
            if super::mem::is_sealed(m.start, PAGE) {
                return Ok(Some(m.span().cut_to(rest)));
            }
            rest = span.from(m.end);
        }
        Ok(None)
    }

    /// The size of the pages of a mapping.
    pub fn page_size(&self, m: &Mapping) -> usize {
        match self.query {
            true => m.page,
            // Private memory on other pages is of a file, too.
            false if m.inode == 0 && !m.shared => PAGE,
            false => hugetlb::page_at(m.start, m.end),
        }
    }

    /// The path of the file behind the mapping at `addr`.
    pub fn path_at<'a>(&self, addr: usize, name: &'a mut [u8; 4096]) -> Option<&'a CStr> {
        let mut reader = Reader::new(self.maps);
        loop {
            let len = reader.line(name).ok()??;
            let found = parse(&name[..len])?;
            if found.start <= addr && found.end > addr {
                let from = name[..len].iter().position(|&b| b == b'/')?;
                name.copy_within(from..len, 0);
                *name.get_mut(len - from)? = 0;
                return CStr::from_bytes_until_nul(name).ok();
            }
        }
    }

    fn find_by_query(&self, addr: usize) -> Sys<Option<Mapping>> {
        // Long enough for every prefix that `classify` knows.
        let mut name = [0u8; 256];
        let mut q = [0u64; 13];
        for wide in [true, false] {
            q = [0u64; 13];
            q[0] = 104;
            q[1] = COVERING_OR_NEXT;
            q[2] = addr as u64;
            if wide {
                q[10] = name.len() as u64;
                q[11] = name.as_mut_ptr().expose_provenance() as u64;
            }
            match sys!(libc::SYS_ioctl, self.maps, QUERY, q.as_mut_ptr()) {
                Ok(_) => break,
                Err(Errno::ENOENT) => return Ok(None),
                // The name does not fit: only a file's path can be that long.
                Err(Errno::ENAMETOOLONG) if wide => name[..2].copy_from_slice(b"/x"),
                Err(errno) => return Err(errno),
            }
        }
        let len = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        let flags = q[5];
        let (major, minor) = (q[9] as u32, (q[9] >> 32) as u32);
        Ok(Some(Mapping {
            start: q[3] as usize,
            end: q[4] as usize,
            read: flags & 1 != 0,
            write: flags & 2 != 0,
            exec: flags & 4 != 0,
            shared: flags & 8 != 0,
            offset: q[7] as usize,
            device: libc::makedev(major, minor),
            inode: q[8],
            page: q[6] as usize,
            name: classify(&name[..len]),
        }))
    }

    fn find_by_text(&self, addr: usize) -> Sys<Option<Mapping>> {
        let mut reader = Reader::new(self.maps);
        let mut line = [0u8; 256];
        while let Some(len) = reader.line(&mut line)? {
            if let Some(mapping) = parse(&line[..len]) {
                // The kernel's own vsyscall page is listed beyond user addresses.
                if mapping.end > addr && mapping.start < super::TOP {
                    return Ok(Some(mapping));
                }
            }
        }
        Ok(None)
    }

    /// Runs of populated pages in a range, with `WRITTEN` where they changed
    /// since they were write-protected. Answers how many runs there are and
    /// the address up to which the range was walked. With `checked`, EPERM
    /// where the range is not registered for asynchronous write protection, and
    /// what is answered is protected again: nobody goes on storing to it by an entry
    /// of his own, as a peer of the kernel module has it.
    pub fn populated(&self, span: Span, runs: &mut [Run], checked: bool) -> Sys<(usize, usize)> {
        if self.scan {
            self.scan_pages(span, PRESENT | SWAPPED, runs, checked)
        } else if checked {
            Err(Errno::ENOSYS)
        } else {
            self.read_pages(span, runs)
        }
    }

    /// Whether all of a range is on huge pages that are mapped as such. Where
    /// PAGEMAP_SCAN is not there it never is.
    pub fn is_huge(&self, span: Span) -> bool {
        let mut runs = [Run::default(); 2];
        let (start, end) = (span.start(), span.end());
        self.scan
            && self.scan_pages(span, HUGE_PAGE, &mut runs, false) == Ok((1, end))
            && (runs[0].start, runs[0].end) == (start as u64, end as u64)
    }

    fn scan_pages(
        &self,
        span: Span,
        any: u64,
        runs: &mut [Run],
        checked: bool,
    ) -> Sys<(usize, usize)> {
        let mut arg = [0u64; 12];
        arg[0] = 96;
        arg[1] = if checked {
            CHECK_WPASYNC | WP_MATCHING
        } else {
            0
        };
        arg[2] = span.start() as u64;
        arg[3] = span.end() as u64;
        arg[5] = runs.as_mut_ptr().expose_provenance() as u64;
        arg[6] = runs.len() as u64;
        // Pages that only map the zero page hold nothing.
        arg[8] = PFNZERO;
        arg[9] = PFNZERO;
        arg[10] = any;
        arg[11] = WRITTEN | PRESENT | SWAPPED;
        if runs.is_empty() {
            arg[5] = 0;
        }
        let n = sys!(libc::SYS_ioctl, self.pagemap, SCAN, arg.as_mut_ptr())?;
        Ok((n, arg[4] as usize))
    }

    fn read_pages(&self, span: Span, runs: &mut [Run]) -> Sys<(usize, usize)> {
        let (mut at, end) = (span.start(), span.end());
        let mut count = 0;
        let mut words = [0u64; 64];
        while at < end {
            let want = ((end - at) / PAGE).min(words.len());
            let off = at / PAGE * 8;
            let n = sys!(
                libc::SYS_pread64,
                self.pagemap,
                words.as_mut_ptr(),
                want * 8,
                off
            )? / 8;
            if n == 0 {
                break;
            }
            for word in &words[..n] {
                if word >> 62 != 0 {
                    let here = at as u64;
                    let end = here + PAGE as u64;
                    if count > 0 && runs[count - 1].end == here {
                        runs[count - 1].end = end;
                    } else if count == runs.len() {
                        return Ok((count, at));
                    } else {
                        runs[count] = Run {
                            start: here,
                            end,
                            categories: PRESENT,
                        };
                        count += 1;
                    }
                }
                at += PAGE;
            }
        }
        Ok((count, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_looking_agree() {
        let space = Space::open().expect("open");
        let mut at = 0;
        let mut seen = 0;
        // A moving target (the test harness has threads), so compare while
        // walking and allow growth of the last mapping.
        while let Some(text) = space.find_by_text(at).expect("text") {
            if space.query {
                let query = space.find_by_query(at).expect("query").expect("there");
                assert_eq!(text.start, query.start);
                assert_eq!(
                    (text.inode, text.offset, text.prot()),
                    (query.inode, query.offset, query.prot())
                );
                assert_eq!(text.name, query.name, "{text:x?}");
                assert_eq!(text.device, query.device);
            }
            at = text.end;
            seen += 1;
        }
        assert!(seen > 5);
    }
}
