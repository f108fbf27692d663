// SPDX-License-Identifier: MIT OR Apache-2.0
//! Directories, by descriptor: no path that somebody else may change is walked
//! twice, and no link is followed but in the name that a user has given.

#![forbid(unsafe_code)]

use super::{file, owned, sys, Sys};
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use core::ffi::{c_int, CStr};

/// What is needed to know of a file.
#[derive(Clone, Copy, Debug)]
pub struct About {
    pub mode: u32,
    pub uid: u32,
}

impl About {
    /// Whether others than its owner may put something there.
    pub fn is_open_to_others(&self) -> bool {
        self.mode & 0o022 != 0
    }

    /// Whether what one user has put there no other can take away.
    pub fn is_sticky(&self) -> bool {
        self.mode & libc::S_ISVTX != 0
    }
}

/// What an open file is.
pub fn about(fd: Fd) -> Sys<About> {
    let stat = file::stat(fd)?;
    Ok(About {
        mode: stat.st_mode,
        uid: stat.st_uid,
    })
}

/// Opens a directory; one that may not be listed, to walk through.
pub fn open(path: &CStr) -> Sys<OwnedFd> {
    match open_in(Fd::HERE, path, 0) {
        Err(Errno::EACCES) => open_in(Fd::HERE, path, libc::O_PATH),
        answer => answer,
    }
}

/// Opens a directory in another one; a link is ENOTDIR.
pub fn open_at(dir: Fd, name: &CStr) -> Sys<OwnedFd> {
    open_in(dir, name, libc::O_NOFOLLOW)
}

fn open_in(dir: Fd, name: &CStr, more: c_int) -> Sys<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | more;
    sys!(libc::SYS_openat, dir, name.as_ptr(), flags, 0).map(owned)
}

/// mkdirat(2).
pub fn make_at(dir: Fd, name: &CStr, mode: u32) -> Sys<()> {
    sys!(libc::SYS_mkdirat, dir, name.as_ptr(), mode).map(drop)
}

/// Gives a directory that nobody else can replace another mode.
pub fn set_mode_at(dir: Fd, name: &CStr, mode: u32) -> Sys<()> {
    sys!(libc::SYS_fchmodat, dir, name.as_ptr(), mode).map(drop)
}

/// The caller's working directory from now on.
pub fn enter(dir: Fd) -> Sys<()> {
    sys!(libc::SYS_fchdir, dir).map(drop)
}

/// The bits that are taken from the mode of what the caller makes.
pub fn set_umask(mask: u32) {
    let _ = sys!(libc::SYS_umask, mask);
}

/// Renames in the working directory.
pub fn rename(from: &CStr, to: &CStr) -> Sys<()> {
    let here = libc::AT_FDCWD;
    sys!(
        libc::SYS_renameat2,
        here,
        from.as_ptr(),
        here,
        to.as_ptr(),
        0
    )
    .map(drop)
}

/// Removes from the working directory.
pub fn unlink(name: &CStr) -> Sys<()> {
    sys!(libc::SYS_unlinkat, libc::AT_FDCWD, name.as_ptr(), 0).map(drop)
}

/// Makes a link in the working directory that says `what`.
pub fn note(name: &CStr, what: &CStr) -> Sys<()> {
    sys!(
        libc::SYS_symlinkat,
        what.as_ptr(),
        libc::AT_FDCWD,
        name.as_ptr()
    )
    .map(drop)
}

/// Reads what a link in the working directory says; answers how much came.
pub fn noted(name: &CStr, to: &mut [u8]) -> Sys<usize> {
    let (at, len) = (to.as_mut_ptr(), to.len());
    sys!(libc::SYS_readlinkat, libc::AT_FDCWD, name.as_ptr(), at, len)
}

/// Longest name of a file, terminator included.
pub const NAME: usize = 256;

/// The entries of an open directory, from its start.
pub struct Entries {
    fd: Fd,
    buf: [u64; 256],
    have: usize,
    pos: usize,
}

impl Entries {
    pub fn of(fd: Fd) -> Self {
        let _ = file::rewind(fd);
        Self {
            fd,
            buf: [0; 256],
            have: 0,
            pos: 0,
        }
    }

    /// The next one: its name, and its type as a directory tells it.
    pub fn next<'a>(&mut self, name: &'a mut [u8; NAME]) -> Option<(&'a CStr, u8)> {
        if self.pos >= self.have {
            self.have = file::read_records(self.fd, &mut self.buf).ok()?;
            self.pos = 0;
            if self.have == 0 {
                return None;
            }
        }
        // A record: inode 8, offset 8, length 2, type 1, name.
        let buf = &self.buf;
        let byte = |at: usize| {
            buf.get(at / 8)
                .map_or(0, |word| (word >> (at % 8 * 8)) as u8)
        };
        let at = self.pos;
        let length = usize::from(u16::from_le_bytes([byte(at + 16), byte(at + 17)]));
        for (i, place) in name.iter_mut().enumerate() {
            *place = if 19 + i < length {
                byte(at + 19 + i)
            } else {
                0
            };
        }
        name[NAME - 1] = 0;
        self.pos += length.max(1);
        CStr::from_bytes_until_nul(name)
            .ok()
            .map(|name| (name, byte(at + 18)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_directory_is_listed_whole() {
        let path = std::env::temp_dir().join(format!("xpmem-dir-{}", std::process::id()));
        std::fs::create_dir(&path).expect("mkdir");
        let names: BTreeSet<String> = (0..200).map(|i| format!("{i}-{}", "x".repeat(i))).collect();
        for name in &names {
            std::fs::write(path.join(name), "").expect("write");
        }
        let c_path = std::ffi::CString::new(path.to_str().expect("name")).expect("name");
        let dir = open(&c_path).expect("open");
        let (mut entries, mut name) = (Entries::of(dir.fd()), [0; NAME]);
        let mut found = BTreeSet::new();
        while let Some((name, kind)) = entries.next(&mut name) {
            let name = name.to_str().expect("name").to_owned();
            assert_eq!(kind == libc::DT_REG, !name.starts_with('.'));
            found.insert(name);
        }
        found.retain(|name| !name.starts_with('.'));
        std::fs::remove_dir_all(&path).expect("rmdir");
        assert_eq!(found, names);
    }
}
