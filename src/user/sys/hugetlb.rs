// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages of a size of their own (hugetlbfs), of which no part can be mapped, and
//! which ordinary memory gets huge ones.
//!
//! The kernel rounds what is mapped up to whole pages, over whatever stands
//! behind. So nobody maps such a file before its page size is known.

#![forbid(unsafe_code)]

use super::{sys, task, PAGE};
use crate::errno::Errno;
use crate::fd::{self, Fd};
use core::ffi::CStr;

/// Larger pages there are none.
const LARGEST: usize = 16 << 30;

/// The page size of an open file; that of ordinary pages for all other files.
pub fn page_of_file(fd: Fd) -> usize {
    const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;
    let mut about = [0u64; 32];
    match sys!(libc::SYS_fstatfs, fd, about.as_mut_ptr()) {
        Ok(_) if about[0] == HUGETLBFS_MAGIC => sane(about[1] as usize).unwrap_or(LARGEST),
        _ => PAGE,
    }
}

/// A size that pages can have.
pub fn sane(size: usize) -> Option<usize> {
    (size.is_power_of_two() && (PAGE..=LARGEST).contains(&size)).then_some(size)
}

/// The page size of one mapping of this process, where the kernel does not tell it
/// (before PROCMAP_QUERY): only at the beginning of a page it lets an mremap that
/// changes nothing be.
pub fn page_at(start: usize, end: usize) -> usize {
    let mut size = PAGE;
    while start + size < end {
        if sys!(libc::SYS_mremap, start + size, PAGE, PAGE, 0, 0) != Err(Errno::EINVAL) {
            return size;
        }
        size *= 2;
    }
    if size > PAGE {
        // It has one page.
        end - start
    } else {
        PAGE
    }
}

/// Whether this machine may have such pages, as last seen. All zero: not yet.
pub struct Seen {
    none_until: u64,
}

impl Seen {
    /// For so many nanoseconds a machine that had none is taken to have none.
    const NONE_FOR: u64 = 5_000_000;

    /// Whether this machine may have such pages.
    pub fn any(&mut self) -> bool {
        let now = task::now();
        if now < self.none_until {
            return false;
        }
        let any = any();
        if !any {
            self.none_until = now + Self::NONE_FOR;
        }
        any
    }
}

/// Whether this machine may have such pages just now: of its default size, or of the
/// largest that is in use.
fn any() -> bool {
    let files = [
        c"/proc/sys/vm/nr_hugepages",
        c"/proc/sys/vm/nr_overcommit_hugepages",
        c"/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages",
    ];
    files.into_iter().any(is_some)
}

fn is_some(path: &CStr) -> bool {
    let mut text = [0u8; 2];
    read_file(path, &mut text).is_some_and(|n| n != 2 || text != *b"0\n")
}

/// How many bytes of a file have been read; `None`: it cannot be opened.
fn read_file(path: &CStr, into: &mut [u8]) -> Option<usize> {
    let file = fd::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0).ok()?;
    Some(task::read_text(file.fd(), into))
}

/// Which ordinary memory this machine gives huge pages when it is touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transparent {
    Always,
    /// Where the program has asked for them.
    Advised,
    Never,
}

impl Transparent {
    /// As it is just now.
    pub fn of_machine() -> Self {
        let mut text = [0u8; 64];
        let path = c"/sys/kernel/mm/transparent_hugepage/enabled";
        let n = read_file(path, &mut text).unwrap_or(0);
        Self::of_text(&text[..n])
    }

    fn of_text(text: &[u8]) -> Self {
        let chosen = |word: &[u8]| text.windows(word.len()).any(|part| part == word);
        if chosen(b"[always]") {
            Self::Always
        } else if chosen(b"[madvise]") {
            Self::Advised
        } else {
            Self::Never
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::sys::{held, mem, HUGE};

    #[test]
    fn ordinary_memory_has_ordinary_pages() {
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let addr = held::map(0, 3 * PAGE, rw, kind, Fd::NONE, 0).expect("mmap");
        assert_eq!(page_at(addr, addr + 3 * PAGE), PAGE);
        assert_eq!(page_at(addr, addr + PAGE), PAGE);
        held::unmap(addr, 3 * PAGE).expect("munmap");
        let file = mem::memfd(c"ordinary").expect("memfd");
        assert_eq!(page_of_file(file.fd()), PAGE);
        assert_eq!(page_of_file(Fd::NONE), PAGE);
    }

    #[test]
    fn other_pages_are_known_by_their_size() {
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
        for pages in [1, 3] {
            let kind = kind | libc::MAP_NORESERVE;
            let Ok(addr) = held::map(0, pages * HUGE, rw, kind, Fd::NONE, 0) else {
                return;
            };
            // Another size is the default here.
            let size = page_at(addr, addr + pages * HUGE);
            assert!(size > PAGE && addr % size == 0, "{size:#x}");
            held::unmap(addr, (pages * HUGE).next_multiple_of(size)).expect("munmap");
        }
    }

    #[test]
    fn the_chosen_word_is_the_one_in_brackets() {
        let of = Transparent::of_text;
        assert_eq!(of(b"[always] madvise never\n"), Transparent::Always);
        assert_eq!(of(b"always [madvise] never\n"), Transparent::Advised);
        assert_eq!(of(b"always madvise [never]\n"), Transparent::Never);
        assert_eq!(of(b""), Transparent::Never);
    }

    #[test]
    fn sizes_that_no_page_has_are_none() {
        assert_eq!(sane(HUGE), Some(HUGE));
        for size in [0, 1, 3 * PAGE, 1 << 40, usize::MAX] {
            assert_eq!(sane(size), None);
        }
    }
}
