// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tries facilities of the kernel with the very calls that the service makes,
//! for `xpmem info`.

#![forbid(unsafe_code)]

use crate::fd::Fd;
use crate::process;
use crate::user::sys::{mem, net, space::Space, task, uffd, PAGE};
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// Every feature that userfaultfd offers here, as [`crate::facilities`] has the bits.
///
/// # Errors
/// What userfaultfd(2) returned.
pub fn userfaultfd() -> Result<u64> {
    uffd::features().map_err(Error::from)
}

/// Whether a page can be mapped write-protected at once.
pub fn continues_protected() -> bool {
    let Ok(fd) = uffd::open(0) else { return false };
    // A page that is mapped and that no userfaultfd watches.
    static HERE: u8 = 0;
    let here = (&raw const HERE).addr() & !(PAGE - 1);
    uffd::can_map_protected(fd.fd(), here)
}

/// Whether `PROCMAP_QUERY` and `PAGEMAP_SCAN` work.
///
/// # Errors
/// What opening the files below `/proc/self` returned.
pub fn proc_ioctls() -> Result<(bool, bool)> {
    let space = Space::open().map_err(Error::from)?;
    let found = (space.has_query(), space.has_scan());
    space.close();
    Ok(found)
}

/// Whether a page is there that the kernel wipes at fork.
pub fn wipes_on_fork() -> bool {
    process::identity();
    process::wiped_page() != 0
}

/// Whether the process at the other end of a socket can be told from others.
pub fn tells_peers_apart() -> bool {
    let inode = |fd: Fd| mem::identity(fd).map(|(_, inode, _)| inode);
    let Ok((here, _there)) = UnixStream::pair() else {
        return false;
    };
    let Ok(process) = net::process_of(Fd::new(here.as_raw_fd())) else {
        return false;
    };
    // Before there were such inodes it had that of everything without a file.
    task::counter().is_ok_and(|other| inode(other.fd()) != inode(process.fd()))
}

/// Whether a socket can refuse descriptors.
pub fn refuses_descriptors() -> bool {
    net::socket().is_ok_and(|socket| net::refuse_descriptors(socket.fd()))
}
