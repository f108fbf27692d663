// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where processes find each other: a folder of sockets for each user.
//!
//! `<base>/xpmem-<uid>/<token>`, with base /dev/shm, or /tmp where there is
//! none. The folder is its user's alone to write, and the sockets too; the
//! names cannot be listed by others and not be guessed. Sockets in the file
//! system work across network and PID namespaces that share the folder.

use super::ids::TOKEN_BITS;
use super::service::{Service, OWNER_BUSY};
use super::shared::Shared;
use super::sys::net::{self, Address};
use super::sys::{task, Sys};
use crate::debug_log;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest folder name, terminator included.
const FOLDER: usize = 128 - 16;

/// The folder that holds the folders of all users.
fn base() -> PathBuf {
    if let Some(dir) = crate::environment::get(&crate::environment::DIR) {
        return PathBuf::from(OsStr::from_bytes(dir.to_bytes()));
    }
    let shm = Path::new("/dev/shm");
    match shm.metadata() {
        Ok(m) if m.is_dir() && m.mode() & 0o002 != 0 => shm.to_path_buf(),
        _ => {
            debug_log!("/dev/shm is not there, or not for everybody to write: /tmp is used");
            PathBuf::from("/tmp")
        }
    }
}

/// Makes sure that this user's folder is there and is safe to use, and tells
/// the service. Runs in the thread of the first API call.
pub fn prepare(shared: &Shared) -> Sys<()> {
    let uid = task::geteuid();
    let folder = base().join(format!("xpmem-{uid}"));
    let made = std::fs::DirBuilder::new().mode(0o711).create(&folder);
    if let Err(error) = made {
        if error.kind() != std::io::ErrorKind::AlreadyExists {
            debug_log!("cannot make {}: {error}", folder.display());
            return Err(libc::ENOSYS);
        }
    }
    let safe = folder
        .symlink_metadata()
        .is_ok_and(|m| m.is_dir() && m.uid() == uid && m.mode() & 0o022 == 0);
    if !safe {
        debug_log!("{} is not this user's own folder", folder.display());
        return Err(libc::ENOSYS);
    }
    debug_log!("processes of this user meet in {}", folder.display());
    sweep(&folder);
    let name = folder.as_os_str().as_bytes();
    if name.len() >= FOLDER {
        debug_log!("{} is too long a path", folder.display());
        return Err(libc::ENOSYS);
    }
    for (i, word) in shared.folder.iter().enumerate() {
        let byte = |k: usize| name.get(i * 8 + k).copied().unwrap_or(0);
        let bytes: [u8; 8] = core::array::from_fn(byte);
        word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
    }
    Ok(())
}

/// Removes sockets that nobody listens on: a killed process may leave one. The
/// young ones are left alone, somebody may be about to listen.
fn sweep(folder: &Path) {
    let Ok(entries) = folder.read_dir() else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let age = meta.modified().ok().and_then(|t| t.elapsed().ok());
        if !meta.file_type().is_socket() || age.is_none_or(|age| age < Duration::from_secs(2)) {
            continue;
        }
        let path = entry.path();
        let Some(address) = Address::new(path.as_os_str().as_bytes()) else {
            continue;
        };
        let Ok(fd) = net::socket() else { return };
        if net::connect(fd, &address) == Err(libc::ECONNREFUSED) {
            let _ = address.unlink();
        }
        crate::rawsys::close(fd);
    }
}

/// Whether another user's process goes by this token.
pub fn belongs_to_another_user(token: u64) -> bool {
    let name = hex(token);
    let Ok(name) = core::str::from_utf8(&name) else {
        return false;
    };
    let Ok(entries) = base().read_dir() else {
        return false;
    };
    let own = format!("xpmem-{}", task::geteuid());
    entries
        .flatten()
        .filter(|e| e.file_name().as_bytes().starts_with(b"xpmem-"))
        .filter(|e| e.file_name().as_bytes() != own.as_bytes())
        .any(|e| {
            e.path()
                .join(name)
                .symlink_metadata()
                .is_ok_and(|m| m.file_type().is_socket())
        })
}

/// Ten digits: the name of a socket.
fn hex(token: u64) -> [u8; 10] {
    core::array::from_fn(|i| b"0123456789abcdef"[(token >> (36 - 4 * i) & 15) as usize])
}

fn path(shared: &Shared, token: u64, tail: &[u8]) -> Option<Address> {
    let mut buf = [0u8; 160];
    for (word, to) in shared.folder.iter().zip(buf.chunks_exact_mut(8)) {
        to.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
    }
    let mut len = buf.iter().position(|&b| b == 0)?;
    for part in [b"/".as_slice(), &hex(token), tail] {
        buf.get_mut(len..len + part.len())?.copy_from_slice(part);
        len += part.len();
    }
    Address::new(&buf[..len])
}

impl Service {
    /// Chooses a token and listens under it. The name appears only when a
    /// connection will be taken.
    pub fn rendezvous(&mut self, shared: &Shared) -> Sys<c_int> {
        for _ in 0..16 {
            let mut random = [0u8; 8];
            task::random(&mut random)?;
            let token = u64::from_le_bytes(random) % (1 << TOKEN_BITS);
            if token == 0 {
                continue;
            }
            let early = path(shared, token, b".new").ok_or(libc::ENAMETOOLONG)?;
            let name = path(shared, token, b"").ok_or(libc::ENAMETOOLONG)?;
            let fd = net::socket()?;
            if net::bind(fd, &early).is_ok() {
                net::refuse_descriptors(fd);
                let ready = early.set_mode(0o600).and_then(|()| net::listen(fd));
                if ready.and_then(|()| early.rename_to(&name)).is_ok() {
                    self.token = token;
                    self.socket_name = name.bytes();
                    return Ok(fd);
                }
                let _ = early.unlink();
            }
            crate::rawsys::close(fd);
        }
        debug_log!("no socket can be made in the folder");
        Err(libc::ENOSYS)
    }

    /// Takes the socket's name away, at the end.
    pub fn unlink_socket(&self) {
        let len = self.socket_name.iter().position(|&b| b == 0).unwrap_or(0);
        if let Some(address) = Address::new(&self.socket_name[..len]) {
            let _ = address.unlink();
        }
    }

    /// Connects to the process with this token. `OWNER_BUSY`: not just now.
    pub fn dial(&self, shared: &Shared, token: u64) -> Sys<c_int> {
        let address = path(shared, token, b"").ok_or(libc::ENOENT)?;
        let fd = net::socket().map_err(|_| libc::ENOMEM)?;
        let connected = net::connect(fd, &address).and_then(|()| net::peer(fd));
        match connected {
            Ok((_, uid)) if uid == self.uid => Ok(fd),
            other => {
                crate::rawsys::close(fd);
                Err(match other {
                    Ok(_) => libc::EACCES,
                    Err(libc::ECONNREFUSED | libc::ENOENT | libc::ENOTDIR) => libc::ENOENT,
                    Err(libc::EAGAIN) => OWNER_BUSY,
                    Err(errno) => errno,
                })
            }
        }
    }
}
