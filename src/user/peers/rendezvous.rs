// SPDX-License-Identifier: MIT OR Apache-2.0
//! How processes find each other: by sockets in their user's [folder].
//!
//! A socket's name is the token of its process, which cannot be guessed, and the
//! folder cannot be listed by others. Sockets in the file system work across
//! network and PID namespaces that share the folder.
//!
//! The service works in that folder: it is its working directory, so that no
//! path is walked again, and what it removes at its end is there and nowhere
//! else. The name of that comes from the kernel, and not from memory that the
//! program can write.

#![forbid(unsafe_code)]

use super::{folder, Peers};
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use crate::user::protocol::ids::TOKEN_BITS;
use crate::user::sys::dir::{self, Entries, NAME};
use crate::user::sys::net::{self, Address};
use crate::user::sys::{task, Sys};
use crate::{debug_log, environment};
use core::ffi::CStr;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

/// Length of a socket's name.
pub const DIGITS: usize = 10;

/// What a name ends with until somebody listens.
const EARLY: &[u8] = b".new";

/// A name in the folder, terminated.
pub type Name = [u8; 16];

/// Whether another user's process goes by this token.
pub fn belongs_to_another_user(token: u64) -> bool {
    let name = hex(token, b"");
    let name = OsStr::from_bytes(&name[..DIGITS]);
    let bases: Vec<PathBuf> = match environment::get(&environment::DIR) {
        Some(dir) => vec![OsStr::from_bytes(dir.to_bytes()).into()],
        None => vec!["/dev/shm".into(), "/tmp".into()],
    };
    let entries = bases.iter().filter_map(|base| base.read_dir().ok());
    entries
        .flatten()
        .flatten()
        .filter(|e| e.file_name().as_bytes().starts_with(b"xpmem-"))
        .map(|e| e.path())
        .filter(|path| {
            let about = path.symlink_metadata();
            about.is_ok_and(|m| m.is_dir() && m.uid() != task::geteuid())
        })
        .any(|path| {
            let about = path.join(name).symlink_metadata();
            about.is_ok_and(|m| m.file_type().is_socket())
        })
}

/// The name of a socket: ten digits, and `tail`.
pub fn hex(token: u64, tail: &[u8]) -> Name {
    let mut name = [0; 16];
    for (i, place) in name[..DIGITS].iter_mut().enumerate() {
        *place = b"0123456789abcdef"[(token >> (36 - 4 * i) & 15) as usize];
    }
    let room = name.len() - 1 - DIGITS;
    let tail = &tail[..tail.len().min(room)];
    name[DIGITS..DIGITS + tail.len()].copy_from_slice(tail);
    name
}

/// A name that [`hex`] makes, as bytes that anybody may have written.
fn checked(bytes: &[u8]) -> Option<Name> {
    let (digits, rest) = bytes.split_at_checked(DIGITS)?;
    let is_digit = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if !digits.iter().all(is_digit) || !(rest.is_empty() || rest == EARLY) {
        return None;
    }
    let mut name = [0; 16];
    name[..bytes.len()].copy_from_slice(bytes);
    Some(name)
}

fn as_c_str(name: &Name) -> &CStr {
    CStr::from_bytes_until_nul(name).unwrap_or(c"")
}

/// Removes sockets of processes that are gone, in the working directory, and links
/// that lead to them.
fn sweep(folder: Fd) {
    let (mut entries, mut buf) = (Entries::of(folder), [0; NAME]);
    while let Some((name, kind)) = entries.next(&mut buf) {
        let mut said = [0; DIGITS];
        let socket = match kind {
            libc::DT_SOCK => checked(name.to_bytes()),
            libc::DT_LNK if dir::noted(name, &mut said).is_ok() => checked(&said),
            _ => None,
        };
        let Some(socket) = socket else { continue };
        let address = Address::new(as_c_str(&socket));
        if address.is_some_and(|address| !net::is_bound(&address)) {
            let _ = dir::unlink(name);
        }
    }
}

impl Peers {
    /// Goes to the folder (in `asked`, if that is not empty), chooses a token and listens under it. The name appears
    /// only when a connection will be taken.
    pub fn rendezvous(&mut self, asked: &CStr) -> Sys<()> {
        dir::set_umask(0);
        self.base = folder::open_base(asked, self.uid)?.keep();
        self.folder = folder::open(self.base, self.uid)?.keep();
        dir::enter(self.folder)?;
        sweep(self.folder);
        for _ in 0..16 {
            let mut random = [0u8; 8];
            task::random(&mut random)?;
            let token = u64::from_le_bytes(random) % (1 << TOKEN_BITS);
            if token == 0 {
                continue;
            }
            let (early, name) = (hex(token, EARLY), hex(token, b""));
            let (early, name) = (as_c_str(&early), as_c_str(&name));
            let address = Address::new(early).ok_or(Errno::ENAMETOOLONG)?;
            let socket = net::socket()?;
            let fd = socket.fd();
            if net::set_mode(fd, 0o600).is_ok() && net::bind(fd, &address).is_ok() {
                net::refuse_descriptors(fd);
                let ready = net::listen(fd).and_then(|()| dir::rename(early, name));
                if ready.is_ok() {
                    (self.token, self.listener) = (token, socket.keep());
                    return net::watch(self.epoll, fd, super::tag::LISTENER);
                }
                let _ = dir::unlink(early);
            }
        }
        debug_log!("no socket can be made in the folder");
        Err(Errno::ENOSYS)
    }

    /// Works in the folder that another task has found.
    pub fn enter_folder(&self) {
        let _ = dir::enter(self.folder);
    }

    /// Takes the socket's name away, at the end, and with `names` links that lead to
    /// sockets that are gone.
    pub fn unlink_socket(&self, names: bool) {
        let Ok(bound) = net::bound_name(self.listener) else {
            return;
        };
        if let Some(name) = bound.get(..DIGITS).and_then(checked) {
            let _ = dir::unlink(as_c_str(&name));
        }
        if names {
            sweep(self.folder);
        }
    }

    /// Connects to the process with this token, which another user does not have.
    pub fn dial(&self, token: u64) -> Sys<OwnedFd> {
        match self.dial_here(token) {
            // Maybe it found this folder taken, or found it free again.
            Err(Errno::ENOENT) => {
                let found = folder::find(self.base, self.uid, |folder, _| {
                    dir::enter(folder).ok()?;
                    let answer = self.dial_here(token);
                    matches!(answer, Ok(_) | Err(Errno::EAGAIN)).then_some(answer)
                });
                dir::enter(self.folder)?;
                found.unwrap_or(Err(Errno::ENOENT))
            }
            answer => answer,
        }
    }

    fn dial_here(&self, token: u64) -> Sys<OwnedFd> {
        let name = hex(token, b"");
        let address = Address::new(as_c_str(&name)).ok_or(Errno::ENOENT)?;
        let socket = net::socket()?;
        let connected = net::connect(socket.fd(), &address).and_then(|()| net::peer(socket.fd()));
        match connected {
            Ok((_, uid)) if uid == self.uid => Ok(socket),
            Ok(_) => Err(Errno::EACCES),
            Err(Errno::ECONNREFUSED | Errno::ENOENT | Errno::ENOTDIR) => Err(Errno::ENOENT),
            Err(errno) => Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_digits_and_nothing_else() {
        let name = hex(0x12_3456_789a, EARLY);
        assert_eq!(as_c_str(&name), c"123456789a.new");
        assert_eq!(checked(b"123456789a.new"), Some(name));
        for bad in [
            b"123456789".as_slice(),
            b"../../etc/x",
            b"123456789A",
            b"123456789a.old",
        ] {
            assert_eq!(checked(bad), None);
        }
    }
}
