// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much memory the memory cgroups of a process have left.

#![forbid(unsafe_code)]

use super::maps::Reader;
use super::procfs::{number, proc_path};
use core::ffi::CStr;

/// Longest path of a file of a cgroup.
const LONGEST: usize = 1024;

/// Where the files of a hierarchy are, and what they are called.
struct Hierarchy {
    base: &'static [u8],
    limit: &'static [u8],
    usage: &'static [u8],
    /// Pages of files that the kernel can take back, in memory.stat.
    cache: &'static [u8],
}

const FIRST: Hierarchy = Hierarchy {
    base: b"/sys/fs/cgroup/memory",
    limit: b"/memory.limit_in_bytes",
    usage: b"/memory.usage_in_bytes",
    cache: b"total_inactive_file ",
};

const SECOND: Hierarchy = Hierarchy {
    base: b"/sys/fs/cgroup",
    limit: b"/memory.max",
    usage: b"/memory.current",
    cache: b"inactive_file ",
};

/// Bytes that process `pid` can still be charged for, before the kernel ends something
/// in its cgroup. `None` where no limit is seen. Where less than `enough` is free, what
/// can be taken back is counted as well.
pub fn memory_left(pid: i32, enough: usize) -> Option<usize> {
    let mut path = [0u8; LONGEST];
    let (hierarchy, mut len) = group_of(pid, &mut path)?;
    let mut least = None;
    loop {
        if let Some(left) = hierarchy.left(&mut path, len, enough) {
            least = Some(least.map_or(left, |least: usize| least.min(left)));
        }
        if len <= hierarchy.base.len() {
            return least;
        }
        // The group above counts what is in this one.
        len = path[..len].iter().rposition(|&b| b == b'/')?;
    }
}

/// The hierarchy with the memory of a process, and its folder there, in `path`: how
/// long it is.
fn group_of(pid: i32, path: &mut [u8; LONGEST]) -> Option<(Hierarchy, usize)> {
    let mut name = [0u8; 32];
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let fd = crate::fd::open(proc_path(&mut name, pid, b"/cgroup"), flags, 0).ok()?;
    let mut reader = Reader::new(fd.fd());
    let mut line = [0u8; LONGEST - 64];
    let mut found = None;
    while let Ok(Some(len)) = reader.line(&mut line) {
        let Some((hierarchy, group)) = parse(&line[..len]) else {
            continue;
        };
        let base = hierarchy.base.len();
        let is_first = hierarchy.base == FIRST.base;
        path[..base].copy_from_slice(hierarchy.base);
        path[base..base + group.len()].copy_from_slice(group);
        found = Some((hierarchy, base + group.len()));
        if is_first {
            break;
        }
    }
    found
}

/// The folder that a line names, without a slash at its end.
fn parse(line: &[u8]) -> Option<(Hierarchy, &[u8])> {
    let mut fields = line.splitn(3, |&b| b == b':');
    let (number, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
    let hierarchy = if controllers.split(|&b| b == b',').any(|c| c == b"memory") {
        FIRST
    } else if number == b"0" && controllers.is_empty() {
        SECOND
    } else {
        return None;
    };
    Some((hierarchy, group.strip_suffix(b"/").unwrap_or(group)))
}

impl Hierarchy {
    /// Of the group whose folder is the first `len` bytes of `path`.
    fn left(&self, path: &mut [u8], len: usize, enough: usize) -> Option<usize> {
        let limit = first_line(named(path, len, self.limit)?)?;
        let usage = first_line(named(path, len, self.usage)?)?;
        let left = limit.saturating_sub(usage) as usize;
        if left >= enough {
            return Some(left);
        }
        let cache = named(path, len, b"/memory.stat").and_then(|path| find(path, self.cache));
        Some(left.saturating_add(cache.unwrap_or(0) as usize))
    }
}

fn named<'a>(path: &'a mut [u8], len: usize, file: &[u8]) -> Option<&'a CStr> {
    let end = len + file.len();
    path.get_mut(len..end)?.copy_from_slice(file);
    *path.get_mut(end)? = 0;
    CStr::from_bytes_until_nul(path).ok()
}

/// The number in a file of one line; `None` for `max`.
fn first_line(path: &CStr) -> Option<u64> {
    find(path, b"")
}

/// The number behind a key at the beginning of a line.
fn find(path: &CStr, key: &[u8]) -> Option<u64> {
    let fd = crate::fd::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0).ok()?;
    let mut reader = Reader::new(fd.fd());
    let mut line = [0u8; 64];
    let mut found = None;
    while let Ok(Some(len)) = reader.line(&mut line) {
        if let Some(digits) = line[..len].strip_prefix(key) {
            found = number(digits, 10);
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_a_hierarchy_and_a_folder() {
        let group = |line| parse(line).map(|(h, group)| (h.base, group));
        assert_eq!(group(b"0::/a/b"), Some((SECOND.base, &b"/a/b"[..])));
        assert_eq!(group(b"0::/"), Some((SECOND.base, &b""[..])));
        assert_eq!(
            group(b"7:cpu,memory:/x:y"),
            Some((FIRST.base, &b"/x:y"[..]))
        );
        assert_eq!(group(b"3:cpuset:/"), None);
        assert_eq!(group(b"nothing"), None);
    }

    #[test]
    fn what_is_left_is_a_number_or_no_limit() {
        let pid = crate::rawsys::getpid();
        if let Some(left) = memory_left(pid, 1 << 20) {
            assert!(left > 0);
        }
        assert_eq!(memory_left(-1, 0), None);
    }
}
