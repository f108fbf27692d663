// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets, and epoll.

use super::{owned, sys, Sys};
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use core::ffi::{c_int, CStr};
use core::mem::{size_of, MaybeUninit};

/// A socket's name in the working directory, as the kernel wants it.
#[derive(Clone, Copy)]
pub struct Address {
    raw: libc::sockaddr_un,
}

impl Address {
    /// `None` where the name does not fit a socket address.
    pub fn new(name: &CStr) -> Option<Self> {
        let mut address = Self::empty();
        let name = name.to_bytes();
        if name.is_empty() || name.len() >= address.raw.sun_path.len() {
            return None;
        }
        for (to, from) in address.raw.sun_path.iter_mut().zip(name) {
            *to = *from as libc::c_char;
        }
        Some(address)
    }

    fn empty() -> Self {
        // SAFETY: all-zero is a valid socket address.
        let mut raw: libc::sockaddr_un = unsafe { MaybeUninit::zeroed().assume_init() };
        raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
        Self { raw }
    }

    fn len(&self) -> usize {
        size_of::<libc::sockaddr_un>()
    }

    /// The name, padded with zeros.
    fn bytes(&self) -> [u8; 108] {
        self.raw.sun_path.map(|c| c as u8)
    }
}

/// The name that a socket was bound to: the kernel's word, which nobody can
/// have changed.
pub fn bound_name(fd: Fd) -> Sys<[u8; 108]> {
    let mut address = Address::empty();
    let mut len = address.len() as u32;
    sys!(
        libc::SYS_getsockname,
        fd,
        &raw mut address.raw,
        &raw mut len
    )?;
    Ok(address.bytes())
}

/// Gives a socket the mode that its name will have when it is bound.
pub fn set_mode(fd: Fd, mode: u32) -> Sys<()> {
    sys!(libc::SYS_fchmod, fd, mode).map(drop)
}

/// Whether anybody has bound `address`. Who listens there is not woken: a socket
/// of another kind is not let in.
pub fn is_bound(address: &Address) -> bool {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let Ok(socket) = sys!(libc::SYS_socket, libc::AF_UNIX, kind, 0).map(owned) else {
        return true;
    };
    !matches!(
        connect(socket.fd(), address),
        Err(Errno::ECONNREFUSED | Errno::ENOENT)
    )
}

/// A socket that keeps message boundaries.
pub fn socket() -> Sys<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    sys!(libc::SYS_socket, libc::AF_UNIX, kind, 0).map(owned)
}

pub fn bind(fd: Fd, address: &Address) -> Sys<()> {
    sys!(libc::SYS_bind, fd, &raw const address.raw, address.len()).map(drop)
}

pub fn listen(fd: Fd) -> Sys<()> {
    sys!(libc::SYS_listen, fd, 4096).map(drop)
}

pub fn accept(fd: Fd) -> Sys<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    sys!(libc::SYS_accept4, fd, 0, 0, flags).map(owned)
}

pub fn connect(fd: Fd, address: &Address) -> Sys<()> {
    sys!(libc::SYS_connect, fd, &raw const address.raw, address.len()).map(drop)
}

/// Pid and effective uid of the process at the other end, at connect or listen
/// time. A process that this PID namespace does not show has pid 0.
pub fn peer(fd: Fd) -> Sys<(i32, u32)> {
    let mut cred = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut len = size_of::<libc::ucred>() as u32;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    sys!(
        libc::SYS_getsockopt,
        fd,
        level,
        name,
        &raw mut cred,
        &raw mut len
    )?;
    Ok((cred.pid, cred.uid))
}

/// A descriptor of the process at the other end, at connect time. ENOPROTOOPT before
/// Linux 6.5; a process that has ended may have none.
pub fn process_of(fd: Fd) -> Sys<OwnedFd> {
    const SO_PEERPIDFD: c_int = 77;
    if crate::testing::plays_old_kernel() {
        return Err(Errno::ENOPROTOOPT);
    }
    let mut process: c_int = -1;
    let mut len = size_of::<c_int>() as u32;
    sys!(
        libc::SYS_getsockopt,
        fd,
        libc::SOL_SOCKET,
        SO_PEERPIDFD,
        &raw mut process,
        &raw mut len
    )?;
    Ok(OwnedFd::new(process))
}

/// Has the kernel refuse messages with descriptors, from Linux 6.16 on: who
/// sends one gets EPERM. What is accepted on a listener inherits that. Whether it
/// does.
pub fn refuse_descriptors(fd: Fd) -> bool {
    const SO_PASSRIGHTS: c_int = 83;
    let no: c_int = 0;
    sys!(
        libc::SYS_setsockopt,
        fd,
        libc::SOL_SOCKET,
        SO_PASSRIGHTS,
        &raw const no,
        size_of::<c_int>()
    )
    .is_ok()
}

/// Hears no more on a socket: the other end can send nothing, and what it has sent
/// can still be read.
pub fn end_hearing(fd: Fd) {
    let _ = sys!(libc::SYS_shutdown, fd, libc::SHUT_RD);
}

/// Sends no more on a socket: the other end reads what was sent before, and then
/// the end.
pub fn end_sending(fd: Fd) {
    let _ = sys!(libc::SYS_shutdown, fd, libc::SHUT_WR);
}

pub fn epoll() -> Sys<OwnedFd> {
    sys!(libc::SYS_epoll_create1, libc::EPOLL_CLOEXEC).map(owned)
}

/// What a descriptor is watched for.
pub const IN: u32 = libc::EPOLLIN as u32;
pub const OUT: u32 = libc::EPOLLOUT as u32;
/// Told without being asked for: the other end has gone.
pub const HUP: u32 = libc::EPOLLHUP as u32;

/// Watches `fd` for input, which is reported by its `tag`.
pub fn watch(epoll: Fd, fd: Fd, tag: u64) -> Sys<()> {
    control(epoll, libc::EPOLL_CTL_ADD, fd, (tag, IN))
}

/// From now on `fd`, which is watched, is watched for `events`.
pub fn watch_for(epoll: Fd, fd: Fd, tag: u64, events: u32) -> Sys<()> {
    control(epoll, libc::EPOLL_CTL_MOD, fd, (tag, events))
}

fn control(epoll: Fd, what: c_int, fd: Fd, (u64, events): (u64, u32)) -> Sys<()> {
    let event = libc::epoll_event { events, u64 };
    sys!(libc::SYS_epoll_ctl, epoll, what, fd, &raw const event).map(drop)
}

/// Stops watching `fd`.
pub fn unwatch(epoll: Fd, fd: Fd) {
    let _ = control(epoll, libc::EPOLL_CTL_DEL, fd, (0, 0));
}

/// How many descriptors are told of at a time.
pub const EVENTS: usize = 32;

/// Waits up to `ms` (-1: for ever) until something has happened; answers the
/// names of where, and what.
pub fn wait(epoll: Fd, happened: &mut [(u64, u32); EVENTS], ms: c_int) -> usize {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    let n = sys!(
        libc::SYS_epoll_pwait,
        epoll,
        events.as_mut_ptr(),
        EVENTS,
        ms,
        0,
        8
    )
    .unwrap_or(0);
    for (to, event) in happened.iter_mut().zip(&events[..n]) {
        *to = (event.u64, event.events);
    }
    n
}

/// Whether the other end of a socket has gone.
pub fn is_hung_up(fd: Fd) -> bool {
    poll(fd) & libc::POLLHUP != 0
}

/// Whether `fd` has input right now.
pub fn has_input(fd: Fd) -> bool {
    poll(fd) & libc::POLLIN != 0
}

fn poll(fd: Fd) -> i16 {
    let mut one = libc::pollfd {
        fd: fd.number(),
        events: libc::POLLIN,
        revents: 0,
    };
    let none = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match sys!(libc::SYS_ppoll, &raw mut one, 1, &raw const none, 0, 8) {
        Ok(1) => one.revents,
        _ => 0,
    }
}

/// The limit of time that a socket has for reading, or for writing: seconds and
/// microseconds.
#[cfg(target_arch = "x86_64")]
pub fn time_limit(fd: Fd, reading: bool) -> Sys<[u64; 2]> {
    let option = if reading {
        libc::SO_RCVTIMEO
    } else {
        libc::SO_SNDTIMEO
    };
    let mut time = [0u64; 2];
    let mut size = core::mem::size_of_val(&time) as u32;
    sys!(
        libc::SYS_getsockopt,
        fd,
        libc::SOL_SOCKET,
        option,
        time.as_mut_ptr(),
        &raw mut size
    )?;
    Ok(time)
}
