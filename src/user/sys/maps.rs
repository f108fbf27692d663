// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is mapped where in this address space, and which pages it has.
//!
//! Uses PROCMAP_QUERY (Linux 6.11) and PAGEMAP_SCAN (6.7), and reads the text
//! of /proc/self/maps and the words of /proc/self/pagemap where those are not
//! there. Nothing allocates.

use super::{sys, Sys, PAGE};
use core::ffi::{c_int, CStr};

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
    /// Pages of another size than the ordinary one.
    pub huge: bool,
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
    /// mmap's protection bits.
    pub fn prot(&self) -> c_int {
        (if self.read { libc::PROT_READ } else { 0 })
            | (if self.write { libc::PROT_WRITE } else { 0 })
            | (if self.exec { libc::PROT_EXEC } else { 0 })
    }
}

fn classify(name: &[u8]) -> Name {
    match name {
        b"" | b"[heap]" => Name::Plain,
        b"[stack]" => Name::Stack,
        _ if name.starts_with(b"[anon_shmem:") || name.starts_with(b"/dev/zero (deleted)") => {
            Name::SharedAnonymous
        }
        _ if name.starts_with(b"[anon") => Name::Plain,
        _ if name.starts_with(b"[") => Name::Special,
        _ if name.starts_with(b"/SYSV") => Name::SysV,
        _ if name.starts_with(b"/dev/shm/") || name == b"/dev/zero" => Name::File,
        _ if name.starts_with(b"/dev/") => Name::Device,
        _ => Name::File,
    }
}

/// The address space of the calling task.
#[derive(Clone, Copy)]
pub struct Space {
    maps: c_int,
    pagemap: c_int,
    query: bool,
    scan: bool,
}

const QUERY: u64 = (3 << 30) | (104 << 16) | (0x66 << 8) | 17;
const SCAN: u64 = (3 << 30) | (96 << 16) | (0x66 << 8) | 16;
const COVERING_OR_NEXT: u64 = 0x10;

/// Page categories of [`Space::scan`].
pub const WRITTEN: u64 = 1 << 1;
pub const PRESENT: u64 = 1 << 3;
pub const SWAPPED: u64 = 1 << 4;
const PFNZERO: u64 = 1 << 5;
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
        let maps = crate::rawsys::open(c"/proc/self/maps", flags, 0)?;
        let pagemap = match crate::rawsys::open(c"/proc/self/pagemap", flags, 0) {
            Ok(fd) => fd,
            Err(errno) => {
                crate::rawsys::close(maps);
                return Err(errno);
            }
        };
        let mut space = Self {
            maps,
            pagemap,
            query: true,
            scan: true,
        };
        space.query = space.find_by_query(0).is_ok();
        space.scan = space.scan_pages(0, PAGE, 0, &mut [], false).is_ok();
        Ok(space)
    }

    /// Opens the list of mappings anew. The kernel reads it as text for as long
    /// as the task lives that has opened it; whoever goes on after that task
    /// needs one of its own.
    pub fn reopen(&mut self) -> Sys<()> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let maps = crate::rawsys::open(c"/proc/self/maps", flags, 0)?;
        crate::rawsys::close(self.maps);
        self.maps = maps;
        Ok(())
    }

    /// Gives the descriptors back.
    #[cfg(feature = "tool")]
    pub fn close(self) {
        crate::rawsys::close(self.maps);
        crate::rawsys::close(self.pagemap);
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

    /// The path of the file behind the mapping at `addr`.
    pub fn path_at<'a>(&self, addr: usize, name: &'a mut [u8; 4096]) -> Option<&'a CStr> {
        let mut reader = Reader {
            fd: self.maps,
            at: 0,
            buf: [0; 1024],
            have: 0,
            pos: 0,
        };
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
                Err(libc::ENOENT) => return Ok(None),
                // The name does not fit: only a file's path can be that long.
                Err(libc::ENAMETOOLONG) if wide => name[..2].copy_from_slice(b"/x"),
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
            huge: q[6] != PAGE as u64,
            name: classify(&name[..len]),
        }))
    }

    fn find_by_text(&self, addr: usize) -> Sys<Option<Mapping>> {
        let mut reader = Reader {
            fd: self.maps,
            at: 0,
            buf: [0; 1024],
            have: 0,
            pos: 0,
        };
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
    /// where the range is not registered for asynchronous write protection.
    pub fn populated(
        &self,
        start: usize,
        end: usize,
        runs: &mut [Run],
        checked: bool,
    ) -> Sys<(usize, usize)> {
        if self.scan {
            self.scan_pages(start, end, PRESENT | SWAPPED, runs, checked)
        } else if checked {
            Err(libc::ENOSYS)
        } else {
            self.read_pages(start, end, runs)
        }
    }

    fn scan_pages(
        &self,
        start: usize,
        end: usize,
        any: u64,
        runs: &mut [Run],
        checked: bool,
    ) -> Sys<(usize, usize)> {
        let mut arg = [0u64; 12];
        arg[0] = 96;
        arg[1] = if checked { CHECK_WPASYNC } else { 0 };
        arg[2] = start as u64;
        arg[3] = end as u64;
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

    fn read_pages(&self, start: usize, end: usize, runs: &mut [Run]) -> Sys<(usize, usize)> {
        let mut count = 0;
        let mut at = start;
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

struct Reader {
    fd: c_int,
    at: usize,
    buf: [u8; 1024],
    have: usize,
    pos: usize,
}

impl Reader {
    /// The next line, cut to what fits; `None` at the end.
    fn line(&mut self, line: &mut [u8]) -> Sys<Option<usize>> {
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
        huge: name.starts_with(b"/anon_hugepage") || name.starts_with(b"/dev/hugepages"),
        name: classify(name),
    })
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
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

/// Whether process `pid` maps the given file. `Err` where that cannot be seen.
pub fn process_maps_file(pid: i32, device: u64, inode: u64) -> Sys<bool> {
    let mut path = [0u8; 32];
    let fd = crate::rawsys::open(
        proc_path(&mut path, pid, b"/maps"),
        libc::O_RDONLY | libc::O_CLOEXEC,
        0,
    )?;
    let mut reader = Reader {
        fd,
        at: 0,
        buf: [0; 1024],
        have: 0,
        pos: 0,
    };
    let mut line = [0u8; 256];
    let mut found = Ok(false);
    loop {
        match reader.line(&mut line) {
            Ok(Some(len)) => {
                if parse(&line[..len]).is_some_and(|m| m.inode == inode && m.device == device) {
                    found = Ok(true);
                    break;
                }
            }
            Ok(None) => break,
            Err(errno) => {
                found = Err(errno);
                break;
            }
        }
    }
    crate::rawsys::close(fd);
    found
}

/// An address of the main stack of the calling task's address space: the
/// stack pointer that the program began with. The name `[stack]` tells it only
/// as long as that part of the stack is ordinary memory.
pub fn stack_begin() -> Option<usize> {
    const STARTSTACK: usize = 28;
    let fd = crate::rawsys::open(c"/proc/self/stat", libc::O_RDONLY | libc::O_CLOEXEC, 0).ok()?;
    let mut text = [0u8; 512];
    let n = super::task::read_text(fd, &mut text);
    crate::rawsys::close(fd);
    // `PID (name) STATE ...`, and the name may hold anything; fields count from 1.
    let text = &text[..n];
    let after_name = text.iter().rposition(|&b| b == b')')?;
    let field = text[after_name + 1..]
        .split(|&b| b == b' ')
        .filter(|field| !field.is_empty())
        .nth(STARTSTACK - 3)?;
    core::str::from_utf8(field).ok()?.parse().ok()
}

/// Composes `/proc/PID<tail>`.
pub fn proc_path<'a>(buf: &'a mut [u8; 32], pid: i32, tail: &[u8]) -> &'a core::ffi::CStr {
    let mut len = 6;
    buf[..6].copy_from_slice(b"/proc/");
    let mut digits = [0u8; 12];
    let mut n = 0;
    let mut rest = pid.max(0) as u32;
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
    core::ffi::CStr::from_bytes_until_nul(buf).unwrap_or(c"/dev/null")
}

/// Composes `/proc/self/map_files/START-END`.
pub fn map_file_path<'a>(buf: &'a mut [u8; 64], m: &Mapping) -> &'a CStr {
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        buf[len..len + bytes.len()].copy_from_slice(bytes);
        len += bytes.len();
    };
    put(b"/proc/self/map_files/");
    for (value, end) in [(m.start, b'-'), (m.end, 0)] {
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
    fd: c_int,
    buf: [u64; 128],
    have: usize,
    pos: usize,
    cut: bool,
}

impl Numbers {
    /// Reads from the beginning of an open directory.
    pub fn from_start(fd: c_int) -> Self {
        Self {
            fd,
            buf: [0; 128],
            have: 0,
            pos: 0,
            cut: sys!(libc::SYS_lseek, fd, 0, libc::SEEK_SET).is_err(),
        }
    }

    /// Whether names may be missing, because the directory could not be read.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    fn refill(&mut self) {
        let size = core::mem::size_of_val(&self.buf);
        let read = sys!(libc::SYS_getdents64, self.fd, self.buf.as_mut_ptr(), size);
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

    #[test]
    fn the_stack_is_where_the_program_began() {
        let begin = stack_begin().expect("stat");
        let space = Space::open().expect("maps");
        let found = space.at(begin).expect("query").expect("mapped");
        assert_eq!(found.name, Name::Stack);
    }

    #[test]
    fn own_tasks_are_listed() {
        let fd = crate::rawsys::open(c"/proc/self/task", libc::O_RDONLY | libc::O_DIRECTORY, 0)
            .expect("task");
        let own = super::super::task::gettid();
        assert!(Numbers::from_start(fd).any(|tid| tid == own));
        assert!(
            Numbers::from_start(fd).any(|tid| tid == own),
            "again from the start"
        );
        crate::rawsys::close(fd);
    }
}
