// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths, numbers and lists of /proc.

#![forbid(unsafe_code)]

use super::file;
use crate::errno::Errno;
use crate::fd::Fd;
use core::ffi::CStr;

/// An address of the main stack of the calling task's address space: the
/// stack pointer that the program began with. The name `[stack]` tells it only
/// as long as that part of the stack is ordinary memory.
pub fn stack_begin() -> Option<usize> {
    const STARTSTACK: usize = 28;
    let fd = crate::fd::open(c"/proc/self/stat", libc::O_RDONLY | libc::O_CLOEXEC, 0).ok()?;
    let mut text = [0u8; 512];
    let n = super::task::read_text(fd.fd(), &mut text);
    field(&text[..n], STARTSTACK)
}

/// A field of /proc/PID/stat, counted from 1; one behind the name.
pub fn field(stat: &[u8], number: usize) -> Option<usize> {
    // `PID (name) STATE ...`, and the name may hold anything.
    let after_name = stat.iter().rposition(|&b| b == b')')?;
    let field = stat[after_name + 1..]
        .split(|&b| b == b' ')
        .filter(|field| !field.is_empty())
        .nth(number - 3)?;
    self::number(field, 10).map(|number| number as usize)
}

/// The number that some digits are.
pub fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for &b in digits {
        let digit = (b as char).to_digit(radix)?;
        value = value.checked_mul(radix.into())?.checked_add(digit.into())?;
    }
    Some(value)
}

/// Composes `/sys/devices/system/cpu/cpuPROCESSOR/nodeNODE`.
pub fn node_of_processor_path(buf: &mut [u8; 64], processor: usize, node: u32) -> &CStr {
    let mut tail = [0u8; 16];
    let tail = numbered(&mut tail, b"/node", node as i32, b"");
    let head = b"/sys/devices/system/cpu/cpu";
    numbered(buf, head, processor as i32, tail.to_bytes())
}

/// Composes `/proc/PID<tail>`.
pub fn proc_path<'a>(buf: &'a mut [u8; 32], pid: i32, tail: &[u8]) -> &'a CStr {
    numbered(buf, b"/proc/", pid, tail)
}

/// Composes `/proc/self/fd/NUMBER`.
pub fn descriptor_path(buf: &mut [u8; 32], fd: Fd) -> &CStr {
    numbered(buf, b"/proc/self/fd/", fd.number(), b"")
}

fn numbered<'a>(buf: &'a mut [u8], head: &[u8], number: i32, tail: &[u8]) -> &'a CStr {
    let mut len = head.len();
    buf[..len].copy_from_slice(head);
    let mut digits = [0u8; 12];
    let mut n = 0;
    let mut rest = number.max(0) as u32;
    loop {
        digits[n] = b'0' + (rest % 10) as u8;
        rest /= 10;
        n += 1;
        if rest == 0 {
            break;
        }
    }
    for digit in digits[..n].iter().rev() {
        buf[len] = *digit;
        len += 1;
    }
    buf[len..len + tail.len()].copy_from_slice(tail);
    buf[len + tail.len()] = 0;
    CStr::from_bytes_until_nul(buf).unwrap_or(c"/dev/null")
}

/// Composes `/proc/self/map_files/START-END`, of a mapping.
pub fn map_file_path(buf: &mut [u8; 64], (start, end): (usize, usize)) -> &CStr {
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        buf[len..len + bytes.len()].copy_from_slice(bytes);
        len += bytes.len();
    };
    put(b"/proc/self/map_files/");
    for (value, end) in [(start, b'-'), (end, 0)] {
        let digits = (usize::BITS - value.leading_zeros()).div_ceil(4).max(1);
        for k in (0..digits).rev() {
            put(&[b"0123456789abcdef"[value >> (4 * k) & 15]]);
        }
        put(&[end]);
    }
    CStr::from_bytes_until_nul(buf).unwrap_or(c"/dev/null")
}

/// The numeric names in an open /proc directory, from its start.
pub struct Numbers {
    fd: Fd,
    buf: [u64; 128],
    have: usize,
    pos: usize,
    cut: bool,
}

impl Numbers {
    /// Reads from the beginning of an open directory.
    pub fn from_start(fd: Fd) -> Self {
        Self {
            fd,
            buf: [0; 128],
            have: 0,
            pos: 0,
            cut: file::rewind(fd).is_err(),
        }
    }

    /// Whether names may be missing, because the directory could not be read.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    fn refill(&mut self) {
        let (fd, buf) = (self.fd, &mut self.buf);
        // What is gone has no names any more; else who is left out runs on.
        let read = super::insist(|| match file::read_records(fd, buf) {
            Err(errno @ (Errno::ENOENT | Errno::ESRCH)) => Ok(Err(errno)),
            answer => answer.map(Ok),
        });
        let read = read.and_then(|read| read);
        self.cut |= read.is_err();
        self.have = read.unwrap_or(0);
        self.pos = 0;
    }
}

impl Iterator for Numbers {
    type Item = i32;

    fn next(&mut self) -> Option<i32> {
        loop {
            if self.pos >= self.have {
                self.refill();
                if self.have == 0 {
                    return None;
                }
            }
            // A record: inode 8, offset 8, length 2, type 1, name.
            let byte = |at: usize| (self.buf[at / 8] >> (at % 8 * 8)) as u8;
            let at = self.pos;
            let length = u16::from_le_bytes([byte(at + 16), byte(at + 17)]) as usize;
            let mut value = 0i32;
            let mut digits = 0;
            let mut number = true;
            for i in at + 19..at + length.max(19) {
                match byte(i) {
                    0 => break,
                    b @ b'0'..=b'9' if digits < 9 => {
                        value = value * 10 + i32::from(b - b'0');
                        digits += 1;
                    }
                    _ => {
                        number = false;
                        break;
                    }
                }
            }
            self.pos = if length == 0 { self.have } else { at + length };
            if number && digits > 0 {
                return Some(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::sys::maps::Name;
    use crate::user::sys::space::Space;

    #[test]
    fn the_stack_is_where_the_program_began() {
        let begin = stack_begin().expect("stat");
        let space = Space::open().expect("maps");
        let found = space.at(begin).expect("query").expect("mapped");
        assert_eq!(found.name, Name::Stack);
    }

    #[test]
    fn numbers_stand_in_paths() {
        let mut buf = [0; 64];
        for (processor, node, wanted) in [
            (0, 0, c"/sys/devices/system/cpu/cpu0/node0"),
            (1023, 10, c"/sys/devices/system/cpu/cpu1023/node10"),
        ] {
            let path = node_of_processor_path(&mut buf, processor, node);
            assert_eq!(path, wanted);
        }
    }

    #[test]
    fn own_tasks_are_listed() {
        let dir = crate::fd::open(c"/proc/self/task", libc::O_RDONLY | libc::O_DIRECTORY, 0)
            .expect("task");
        let own = super::super::task::gettid();
        assert!(Numbers::from_start(dir.fd()).any(|tid| tid == own));
        assert!(
            Numbers::from_start(dir.fd()).any(|tid| tid == own),
            "again from the start"
        );
    }
}
