// SPDX-License-Identifier: MIT OR Apache-2.0
//! The folder in which a user's processes find each other.
//!
//! `<base>/xpmem-<uid>`, with base /dev/shm, or /tmp where there is none. The
//! number is that of the user outside the user namespace, if there is one: so
//! the root of a container is not taken for root, and a user's containers find
//! each other and their host.
//!
//! Anybody can make a folder of that name first. It is used only if it is this
//! user's own and nobody else may write there. If it is not, the second place is
//! a folder with a longer name, `xpmem-<uid>-<random>`, found by a look through
//! the base: nobody can take a name that he does not know beforehand.

#![forbid(unsafe_code)]

use crate::debug_log;
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use crate::user::sys::dir::{self, About, Entries, NAME};
use crate::user::sys::{task, Sys};
use core::ffi::CStr;
use core::fmt::Write;

/// What everybody sees of it: that it is there. Its names cannot be guessed.
const MODE: u32 = 0o711;

/// The user that files of a user without a number here belong to.
const NOBODY: u32 = 65_534;

/// A name under construction, of at most `NAME` bytes.
pub struct Name {
    bytes: [u8; NAME],
    len: usize,
}

impl Name {
    pub fn new(args: core::fmt::Arguments<'_>) -> Self {
        let mut name = Self {
            bytes: [0; NAME],
            len: 0,
        };
        let _ = name.write_fmt(args);
        name
    }

    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Name {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let end = self.len + s.len();
        let room = self.bytes[..NAME - 1].get_mut(self.len..end);
        room.ok_or(core::fmt::Error)?.copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Opens the folder that holds the folders of all users: the one that was asked
/// for, or the first that will do.
pub fn open_base(asked: &CStr, uid: u32) -> Sys<OwnedFd> {
    let mut usual = [c"/dev/shm", c"/tmp"].into_iter();
    let mut asked = (!asked.is_empty()).then_some(asked).into_iter();
    let is_asked = asked.len() > 0;
    while let Some(path) = asked
        .next()
        .or_else(|| if is_asked { None } else { usual.next() })
    {
        let fd = match dir::open(path) {
            Ok(fd) => fd,
            Err(errno) => {
                debug_log!("{path:?} cannot be opened: errno {errno}");
                continue;
            }
        };
        match dir::about(fd.fd()) {
            Ok(about) if is_base(&about, is_asked, uid) => {
                debug_log!("processes meet below {path:?}");
                return Ok(fd);
            }
            Ok(about) => debug_log!(
                "{path:?} is no safe place: mode {:o}, user {}",
                about.mode & 0o7777,
                about.uid
            ),
            Err(errno) => debug_log!("{path:?} cannot be looked at: errno {errno}"),
        }
    }
    Err(Errno::ENOSYS)
}

/// Whether folders of users are safe there from other users.
fn is_base(about: &About, is_asked: bool, uid: u32) -> bool {
    if about.is_open_to_others() && !about.is_sticky() {
        return false;
    }
    if is_asked {
        [0, uid, NOBODY].contains(&about.uid)
    } else {
        // Where not everybody may make one, peers of other users' are elsewhere.
        about.mode & 0o002 != 0
    }
}

/// Opens this user's folder in `base`, made where there is none.
pub fn open(base: Fd, uid: u32) -> Sys<OwnedFd> {
    let number = outside(uid);
    let first = Name::new(format_args!("xpmem-{number}"));
    match dir::make_at(base, first.as_c_str(), MODE) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => {
            debug_log!("{:?} cannot be made: errno {errno}", first.as_c_str());
            return Err(Errno::ENOSYS);
        }
    }
    if let Some(fd) = open_own(base, first.as_c_str(), uid) {
        debug_log!("processes of this user meet in {:?}", first.as_c_str());
        return Ok(fd);
    }
    debug_log!("{:?} is not this user's own folder", first.as_c_str());
    if first_of_others(base, uid).is_none() {
        let mut random = [0u8; 8];
        task::random(&mut random)?;
        let random = u64::from_le_bytes(random);
        let second = Name::new(format_args!("xpmem-{number}-{random:016x}"));
        dir::make_at(base, second.as_c_str(), MODE)?;
    }
    // Who makes one at the same time looks, too: all take the same.
    let second = first_of_others(base, uid).ok_or(Errno::ENOSYS)?;
    debug_log!("{:?} is taken instead", second.as_c_str());
    open_own(base, second.as_c_str(), uid).ok_or(Errno::ENOSYS)
}

/// Opens a folder, if it is this user's own and safe.
fn open_own(base: Fd, name: &CStr, uid: u32) -> Option<OwnedFd> {
    let fd = match dir::open_at(base, name) {
        // Its user has been locked out, by an odd umask.
        Err(Errno::EACCES) => {
            dir::set_mode_at(base, name, MODE).ok()?;
            dir::open_at(base, name).ok()?
        }
        answer => answer.ok()?,
    };
    let safe = |about: &About| about.uid == uid && !about.is_open_to_others();
    match dir::about(fd.fd()) {
        Ok(about) if safe(&about) => {
            if about.mode & 0o700 != 0o700 {
                let _ = dir::set_mode_at(base, name, MODE);
            }
            Some(fd)
        }
        _ => None,
    }
}

/// Calls `body` with each folder of this user's in `base` until that has an answer.
pub fn find<T>(base: Fd, uid: u32, mut body: impl FnMut(Fd, &CStr) -> Option<T>) -> Option<T> {
    let prefix = Name::new(format_args!("xpmem-{}", outside(uid)));
    let (mut entries, mut buf) = (Entries::of(base), [0; NAME]);
    while let Some((name, _)) = entries.next(&mut buf) {
        let rest = name.to_bytes().strip_prefix(prefix.as_bytes());
        if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"-")) {
            continue;
        }
        if let Some(folder) = open_own(base, name, uid) {
            let answer = body(folder.fd(), name);
            if answer.is_some() {
                return answer;
            }
        }
    }
    None
}

/// The first, in the order of names, of this user's folders with longer names.
fn first_of_others(base: Fd, uid: u32) -> Option<Name> {
    let mut first: Option<Name> = None;
    let _ = find(base, uid, |_, name| -> Option<()> {
        let is_longer = name.to_bytes().iter().filter(|&&b| b == b'-').count() > 1;
        let is_before = |known: &Name| name.to_bytes() < known.as_bytes();
        if is_longer && first.as_ref().is_none_or(is_before) {
            first = name
                .to_str()
                .ok()
                .map(|name| Name::new(format_args!("{name}")));
        }
        None
    });
    first
}

/// The number of a user outside this user namespace; the same where there is none.
pub fn outside(uid: u32) -> u32 {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let Ok(fd) = crate::fd::open(c"/proc/self/uid_map", flags, 0) else {
        return uid;
    };
    let mut text = [0u8; 4096];
    let n = task::read_text(fd.fd(), &mut text);
    translate(&text[..n], uid).unwrap_or(uid)
}

/// Lines of `first inside, first outside, count`.
fn translate(map: &[u8], uid: u32) -> Option<u32> {
    map.split(|&b| b == b'\n').find_map(|line| {
        let mut numbers = core::str::from_utf8(line)
            .ok()?
            .split_ascii_whitespace()
            .map(|number| number.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let at = uid.checked_sub(inside).filter(|&at| at < count)?;
        outside.checked_add(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_by_its_number_outside() {
        let all = b"         0          0 4294967295\n";
        assert_eq!(translate(all, 1000), Some(1000));
        let container = b"0 1000 1\n1 100000 65536\n";
        assert_eq!(translate(container, 0), Some(1000));
        assert_eq!(translate(container, 33), Some(100_032));
        assert_eq!(translate(container, 70_000), None);
        assert_eq!(translate(b"", 5), None);
    }

    #[test]
    fn a_base_is_no_place_for_others_to_take_from() {
        let about = |mode, uid| About { mode, uid };
        assert!(is_base(&about(0o41777, 0), true, 5));
        assert!(is_base(&about(0o40755, 5), true, 5));
        assert!(!is_base(&about(0o40755, 6), true, 5));
        assert!(!is_base(&about(0o40777, 0), true, 5));
        assert!(!is_base(&about(0o40770, 5), true, 5));
        assert!(!is_base(&about(0o40755, 0), false, 5));
        assert!(is_base(&about(0o41777, 0), false, 5));
    }
}
