// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mappings, as a line of /proc/PID/maps tells of one.

#![forbid(unsafe_code)]

use super::procfs::{number, proc_path};
use super::{sys, Span, Sys, PAGE};
use crate::fd::Fd;
use core::ffi::c_int;

/// What is needed to know of one mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: usize,
    pub end: usize,
    pub read: bool,
    pub write: bool,
    pub exec: bool,
    pub shared: bool,
    /// Offset in the file.
    pub offset: usize,
    /// Device, as `makedev` composes it; 0 for anonymous memory.
    pub device: u64,
    /// 0 for anonymous memory.
    pub inode: u64,
    /// The size of its pages, where the kernel tells it: see `Space::page_size`.
    pub page: usize,
    pub name: Name,
}

/// The kind of name that a mapping has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// None, the heap, or a name that the program gave.
    Plain,
    /// The main stack.
    Stack,
    /// vdso, vvar and their like.
    Special,
    /// `MAP_SHARED | MAP_ANONYMOUS`.
    SharedAnonymous,
    /// Below /dev, but not /dev/shm: it may be a device.
    Device,
    /// SysV shared memory.
    SysV,
    /// Any other file.
    File,
}

impl Mapping {
    /// Its addresses.
    pub fn span(&self) -> Span {
        Span::new(self.start, self.end)
    }

    /// mmap's protection bits.
    pub fn prot(&self) -> c_int {
        (if self.read { libc::PROT_READ } else { 0 })
            | (if self.write { libc::PROT_WRITE } else { 0 })
            | (if self.exec { libc::PROT_EXEC } else { 0 })
    }

    /// Whether what is mapped now may be taken for what was there before.
    pub fn is_still(&self, before: &Self) -> bool {
        self.prot() == before.prot()
            && self.shared == before.shared
            && (self.device, self.inode) == (before.device, before.inode)
            && (self.inode == 0
                || self.offset.wrapping_sub(self.start) == before.offset.wrapping_sub(before.start))
    }
}

pub fn classify(name: &[u8]) -> Name {
    match name {
        b"" | b"[heap]" => Name::Plain,
        b"[stack]" => Name::Stack,
        _ if name.starts_with(b"[anon_shmem:") || name.starts_with(b"/dev/zero (deleted)") => {
            Name::SharedAnonymous
        }
        _ if name.starts_with(b"[anon") => Name::Plain,
        _ if name.starts_with(b"[") => Name::Special,
        _ if name.starts_with(b"/SYSV") => Name::SysV,
        b"/dev/zero" => Name::File,
        _ if name.starts_with(b"/dev/shm/") || name.starts_with(b"/dev/hugepages/") => Name::File,
        _ if name.starts_with(b"/dev/") => Name::Device,
        _ => Name::File,
    }
}

/// Reads such a file line by line.
pub struct Reader {
    fd: Fd,
    at: usize,
    buf: [u8; 1024],
    have: usize,
    pos: usize,
}

impl Reader {
    /// From the beginning of an open file.
    pub fn new(fd: Fd) -> Self {
        Self {
            fd,
            at: 0,
            buf: [0; 1024],
            have: 0,
            pos: 0,
        }
    }

    /// The next line, cut to what fits; `None` at the end.
    pub fn line(&mut self, line: &mut [u8]) -> Sys<Option<usize>> {
        let mut len = 0;
        loop {
            if self.pos == self.have {
                let to = self.buf.as_mut_ptr();
                self.have = sys!(libc::SYS_pread64, self.fd, to, self.buf.len(), self.at)?;
                self.at += self.have;
                self.pos = 0;
                if self.have == 0 {
                    return Ok(None);
                }
            }
            let byte = self.buf[self.pos];
            self.pos += 1;
            if byte == b'\n' {
                return Ok(Some(len));
            }
            if len < line.len() {
                line[len] = byte;
                len += 1;
            }
        }
    }
}

/// One line of /proc/PID/maps.
pub fn parse(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |&b| b == b' ');
    let range = fields.next()?;
    let perms = fields.next()?;
    let offset = number(fields.next()?, 16)?;
    let device = fields.next()?;
    let inode = number(fields.next()?, 10)?;
    let name = fields.next().unwrap_or(b"");
    let name = &name[name.iter().position(|&b| b != b' ').unwrap_or(name.len())..];
    let dash = range.iter().position(|&b| b == b'-')?;
    let colon = device.iter().position(|&b| b == b':')?;
    let major = number(&device[..colon], 16)? as u32;
    let minor = number(&device[colon + 1..], 16)? as u32;
    if perms.len() < 4 {
        return None;
    }
    Some(Mapping {
        start: number(&range[..dash], 16)? as usize,
        end: number(&range[dash + 1..], 16)? as usize,
        read: perms[0] == b'r',
        write: perms[1] == b'w',
        exec: perms[2] == b'x',
        shared: perms[3] == b's',
        offset: offset as usize,
        device: libc::makedev(major, minor),
        inode,
        page: PAGE,
        name: classify(name),
    })
}

/// Whether process `pid` maps the given file. `Err` where that cannot be seen.
pub fn process_maps_file(pid: i32, device: u64, inode: u64) -> Sys<bool> {
    let mut path = [0u8; 32];
    let fd = crate::fd::open(
        proc_path(&mut path, pid, b"/maps"),
        libc::O_RDONLY | libc::O_CLOEXEC,
        0,
    )?;
    let mut reader = Reader::new(fd.fd());
    let mut line = [0u8; 256];
    while let Some(len) = reader.line(&mut line)? {
        if parse(&line[..len]).is_some_and(|m| m.inode == inode && m.device == device) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let m = parse(b"7f0000000000-7f0000003000 rw-s 00001000 00:01 1234                       /dev/zero (deleted)").expect("line");
        assert_eq!(
            (m.start, m.end, m.offset),
            (0x7f00_0000_0000, 0x7f00_0000_3000, 0x1000)
        );
        assert_eq!(m.name, Name::SharedAnonymous);
        assert!(m.shared && m.write && !m.exec);
        assert_eq!(
            parse(b"00400000-00401000 r-xp 00000000 08:01 77 /bin/x").map(|m| m.name),
            Some(Name::File)
        );
        assert_eq!(
            parse(b"7ffff000-80000000 rw-p 00000000 00:00 0 [stack]").map(|m| m.name),
            Some(Name::Stack)
        );
        assert_eq!(
            parse(b"7ffff000-80000000 r-xp 00000000 00:00 0 [vdso]").map(|m| m.name),
            Some(Name::Special)
        );
        assert_eq!(parse(b"garbage"), None);
        assert_eq!(parse(b""), None);
    }
}
