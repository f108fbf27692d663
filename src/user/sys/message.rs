// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages of words on sockets, and the descriptors that come along.

use super::{sys, Sys};
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use core::ffi::c_int;
use core::mem::{size_of, MaybeUninit};

/// Room for two descriptors in a control message.
#[repr(C, align(8))]
struct Control {
    len: usize,
    level: c_int,
    kind: c_int,
    fds: [c_int; 2],
}

/// Sends one message of plain words, with up to two descriptors.
pub fn send<const N: usize>(fd: Fd, words: &[u64; N], fds: Option<[Fd; 2]>) -> Sys<()> {
    let part = libc::iovec {
        iov_base: words.as_ptr().cast_mut().cast(),
        iov_len: N * 8,
    };
    let control = Control {
        len: size_of::<Control>(),
        level: libc::SOL_SOCKET,
        kind: libc::SCM_RIGHTS,
        fds: fds.map_or([-1; 2], |fds| fds.map(Fd::number)),
    };
    let mut head = empty_head();
    head.msg_iov = (&raw const part).cast_mut();
    head.msg_iovlen = 1;
    if fds.is_some() {
        head.msg_control = (&raw const control).cast_mut().cast();
        head.msg_controllen = size_of::<Control>() as _;
    }
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    sys!(libc::SYS_sendmsg, fd, &raw const head, flags).map(drop)
}

/// As many descriptors as can come along with a message.
const MOST: usize = 253;

/// Descriptors that came along with a message. They are the caller's to close,
/// and their closing may sleep: in a file system of the sender's, for a socket's
/// peer. So all are taken: what the kernel finds no room for, it closes at once.
#[repr(C, align(8))]
pub struct Descriptors {
    len: usize,
    level: c_int,
    kind: c_int,
    fds: [c_int; MOST],
    count: usize,
    cut: bool,
}

impl Descriptors {
    pub const NONE: Self = Self {
        len: 0,
        level: 0,
        kind: 0,
        fds: [-1; MOST],
        count: 0,
        cut: false,
    };

    /// The first descriptor. It stays with the others.
    pub fn first(&self) -> Option<Fd> {
        self.fds[..self.count].first().copied().map(Fd::new)
    }

    /// The first two. They stay with the others.
    pub fn pair(&self) -> Option<[Fd; 2]> {
        self.fds[..self.count]
            .first_chunk()
            .map(|two| two.map(Fd::new))
    }

    /// Takes the first two out.
    pub fn take_pair(&mut self) -> Option<[OwnedFd; 2]> {
        let two = self.fds[..self.count].first_chunk().copied()?;
        self.count -= 2;
        self.fds.copy_within(2.., 0);
        Some(two.map(OwnedFd::new))
    }

    /// Takes the last one out.
    pub fn pop(&mut self) -> Option<OwnedFd> {
        self.count = self.count.checked_sub(1)?;
        self.fds.get(self.count).copied().map(OwnedFd::new)
    }

    /// Whether some were lost, for want of numbers for them.
    pub fn were_cut(&self) -> bool {
        self.cut
    }

    /// Room for a control message, header included.
    const ROOM: usize = size_of::<usize>() + (2 + MOST) * size_of::<c_int>();
}

/// Receives one message of exactly `N` words; `Ok(None)` at the end.
pub fn receive<const N: usize>(
    fd: Fd,
    words: &mut [u64; N],
    fds: &mut Descriptors,
) -> Sys<Option<()>> {
    (fds.count, fds.cut) = (0, false);
    let part = libc::iovec {
        iov_base: words.as_mut_ptr().cast(),
        iov_len: N * 8,
    };
    let mut head = empty_head();
    head.msg_iov = (&raw const part).cast_mut();
    head.msg_iovlen = 1;
    head.msg_control = (&raw mut *fds).cast();
    head.msg_controllen = Descriptors::ROOM as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let n = sys!(libc::SYS_recvmsg, fd, &raw mut head, flags)?;
    let header = size_of::<usize>() + 2 * size_of::<c_int>();
    fds.cut = head.msg_flags & libc::MSG_CTRUNC != 0;
    if head.msg_controllen >= header
        && fds.level == libc::SOL_SOCKET
        && fds.kind == libc::SCM_RIGHTS
    {
        let count = fds.len.saturating_sub(header) / size_of::<c_int>();
        fds.count = count.min(MOST);
    }
    if n == 0 {
        return Ok(None);
    }
    if n != N * 8 || head.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(Errno::EPROTO);
    }
    Ok(Some(()))
}

fn empty_head() -> libc::msghdr {
    // SAFETY: all-zero is a valid message header: no buffers at all.
    unsafe { MaybeUninit::zeroed().assume_init() }
}
