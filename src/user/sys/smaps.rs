// SPDX-License-Identifier: MIT OR Apache-2.0
//! The flags of a mapping, which /proc/PID/smaps alone tells.
//!
//! The kernel composes that file mapping by mapping, from the lowest address on,
//! and walks all pages of each: for a large process that takes seconds. But it
//! composes no more than is read. So the flags of the lowest mapping cost
//! little, if not a byte is read beyond them.

#![forbid(unsafe_code)]

use super::{sys, Sys};
use crate::errno::Errno;

/// What is told of a mapping. The flags are two letters each.
#[derive(Clone, Copy)]
pub struct Flags {
    text: [u8; 160],
    len: usize,
}

impl Flags {
    /// Whether a flag is set, as `b"wf"` is by `MADV_WIPEONFORK`.
    pub fn has(&self, flag: &[u8; 2]) -> bool {
        self.text[..self.len].chunks(3).any(|c| c.starts_with(flag))
    }
}

/// The first record is longer than that before its flags.
const HEAD: usize = 512;

/// Shorter than the line of flags.
const STEP: usize = 16;

const KEY: &[u8] = b"VmFlags: ";

/// The flags of the mapping that covers `addr`; `None` where nothing is mapped.
/// Cheap for the lowest mapping of the process.
pub fn flags_at(addr: usize) -> Sys<Option<Flags>> {
    let open = libc::O_RDONLY | libc::O_CLOEXEC;
    let file = crate::fd::open(c"/proc/self/smaps", open, 0)?;
    read_flags(addr, |buf| {
        sys!(libc::SYS_read, file.fd(), buf.as_mut_ptr(), buf.len())
    })
}

fn read_flags(addr: usize, mut read: impl FnMut(&mut [u8]) -> Sys<usize>) -> Sys<Option<Flags>> {
    let mut line = Flags {
        text: [0; 160],
        len: 0,
    };
    let mut covers = false;
    let mut chunk = [0u8; HEAD];
    let mut want = HEAD;
    loop {
        let n = match read(&mut chunk[..want]) {
            Ok(0) => return Ok(None),
            Err(Errno::EINTR) => continue,
            n => n?,
        };
        for &byte in &chunk[..n] {
            if byte != b'\n' {
                if line.len < line.text.len() {
                    line.text[line.len] = byte;
                    line.len += 1;
                }
                continue;
            }
            let text = &line.text[..line.len];
            if let Some((start, end)) = header(text) {
                if start > addr {
                    return Ok(None);
                }
                covers = addr < end;
            } else if covers && text.starts_with(KEY) {
                line.text.copy_within(KEY.len().., 0);
                line.len -= KEY.len();
                return Ok(Some(line));
            }
            line.len = 0;
        }
        let begun = &line.text[..line.len.min(KEY.len())];
        // Where another mapping is looked for, what is read beyond is of no harm.
        want = match covers {
            true if !begun.is_empty() && KEY.starts_with(begun) => 1,
            true => STEP,
            false => HEAD,
        };
    }
}

/// The range in the first line of a record.
fn header(line: &[u8]) -> Option<(usize, usize)> {
    let dash = line.iter().position(|&b| b == b'-')?;
    let space = line.iter().position(|&b| b == b' ')?;
    let number = |digits: &[u8]| {
        let digits = core::str::from_utf8(digits).ok()?;
        usize::from_str_radix(digits, 16).ok()
    };
    Some((number(&line[..dash])?, number(line.get(dash + 1..space)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Fd;

    const RECORD: &str = "Size:                  4 kB\nKernelPageSize:        4 kB\n\
        Rss:                   0 kB\nVSomething:            0 kB\n";

    fn text() -> Vec<u8> {
        let fill = RECORD.repeat(6);
        let one = format!(
            "00010000-00011000 rw-p 00000000 00:00 0 \n{fill}VmFlags: rd wr mr mw me ac wf dd \n"
        );
        let two = format!("00400000-00452000 r-xp 00000000 08:02 173521   /usr/bin/a-b\n{fill}VmFlags: rd ex mr mw me dc \n");
        (one + &two).into_bytes()
    }

    #[test]
    fn no_byte_is_read_beyond_the_flags_of_the_lowest() {
        let text = text();
        let line = text
            .split(|&b| b == b'\n')
            .position(|l| l.starts_with(KEY))
            .expect("flags");
        let last = text
            .split_inclusive(|&b| b == b'\n')
            .take(line + 1)
            .map(<[u8]>::len)
            .sum::<usize>();
        let mut at = 0;
        let flags = read_flags(0x10000, |buf| {
            let n = buf.len().min(text.len() - at);
            buf[..n].copy_from_slice(&text[at..at + n]);
            at += n;
            Ok(n)
        });
        let flags = flags.expect("reads").expect("is there");
        assert!(flags.has(b"wf") && flags.has(b"dd") && !flags.has(b"dc") && !flags.has(b"ex"));
        assert_eq!(at, last);
    }

    #[test]
    fn others_are_found_and_holes_are_none() {
        let text = text();
        let flags = |addr| {
            let mut at = 0;
            read_flags(addr, |buf| {
                let n = buf.len().min(text.len() - at).min(7);
                buf[..n].copy_from_slice(&text[at..at + n]);
                at += n;
                Ok(n)
            })
            .expect("reads")
        };
        assert!(flags(0x451fff).is_some_and(|f| f.has(b"dc") && !f.has(b"wf")));
        assert!(flags(0x11000).is_none() && flags(0x452000).is_none() && flags(0).is_none());
    }

    #[test]
    fn the_kernel_tells_of_this_process() {
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let addr = super::super::held::map(0, 0x3000, rw, kind, Fd::NONE, 0).expect("mmap");
        super::super::held::advise(addr + 0x1000, 0x1000, libc::MADV_WIPEONFORK).expect("madvise");
        let flags = |addr| flags_at(addr).expect("smaps").expect("mapped");
        assert!(flags(addr + 0x1000).has(b"wf") && !flags(addr).has(b"wf"));
        super::super::held::unmap(addr, 0x3000).expect("munmap");
    }
}
