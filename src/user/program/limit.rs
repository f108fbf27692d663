// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a system call that waits is to wait.

#![forbid(unsafe_code)]

use crate::fd::Fd;
use crate::user::sys::regs::Registers;
use crate::user::sys::{mem, net, task};
use core::ffi::c_int;

pub const SECOND: u64 = 1_000_000_000;

/// How a call is told how long to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Milliseconds in an argument.
    Milliseconds(usize),
    /// A `struct timespec`, to which an argument points.
    Timespec(usize),
    /// The last word of what argument 4 points to is such a pointer.
    Events,
    /// The socket's own for what ppoll calls `events`, and the errno at its end.
    Socket { events: i16, at_end: c_int },
}

impl Limit {
    /// Of system call `number`; `None` where it has none, or must not be made twice.
    pub fn of(number: i64, argument: impl Fn(usize) -> u64) -> Option<Self> {
        const EXT_ARG: u64 = 8;
        const ABS_TIMER: u64 = 32;
        const IO_PGETEVENTS: i64 = 333;
        let reads = Self::Socket {
            events: libc::POLLIN,
            at_end: libc::EAGAIN,
        };
        let writes = |at_end| Self::Socket {
            events: libc::POLLOUT,
            at_end,
        };
        Some(match number {
            libc::SYS_epoll_wait | libc::SYS_epoll_pwait => Self::Milliseconds(3),
            libc::SYS_rt_sigtimedwait => Self::Timespec(2),
            libc::SYS_epoll_pwait2 | libc::SYS_semtimedop => Self::Timespec(3),
            libc::SYS_io_getevents | IO_PGETEVENTS => Self::Timespec(4),
            libc::SYS_io_uring_enter => {
                let relative = argument(3) & (EXT_ARG | ABS_TIMER) == EXT_ARG;
                if argument(1) != 0 || !relative || argument(5) != 24 {
                    return None;
                }
                Self::Events
            }
            libc::SYS_read
            | libc::SYS_readv
            | libc::SYS_recvfrom
            | libc::SYS_recvmsg
            | libc::SYS_recvmmsg
            | libc::SYS_accept
            | libc::SYS_accept4 => reads,
            libc::SYS_write
            | libc::SYS_writev
            | libc::SYS_sendto
            | libc::SYS_sendmsg
            | libc::SYS_sendmmsg => writes(libc::EAGAIN),
            libc::SYS_connect => writes(libc::EINPROGRESS),
            _ => return None,
        })
    }

    /// How long the call waits in all, in nanoseconds; `None` where it cannot be
    /// told, or is for ever. `program` is a descriptor of it.
    pub fn length(self, tid: i32, program: Fd, regs: &Registers) -> Option<u64> {
        match self {
            Self::Milliseconds(n) => {
                let ms = u64::try_from(regs.argument(n) as i32).ok()?;
                Some(ms * 1_000_000)
            }
            Self::Timespec(n) => timespec_at(tid, regs.argument(n)),
            Self::Events => timespec_at(tid, words_at::<3>(tid, regs.argument(4))?[2]),
            Self::Socket { events, .. } => socket_limit(program, regs.argument(0) as c_int, events),
        }
    }
}

/// `N` words of the memory of a thread's process.
pub fn words_at<const N: usize>(tid: i32, address: u64) -> Option<[u64; N]> {
    let mut words = [0u64; N];
    for (i, word) in words.iter_mut().enumerate() {
        let mut bytes = [0u8; 8];
        mem::peek_process(tid, address as usize + 8 * i, &mut bytes).ok()?;
        *word = u64::from_ne_bytes(bytes);
    }
    Some(words)
}

fn timespec_at(tid: i32, address: u64) -> Option<u64> {
    if address == 0 {
        return None;
    }
    let [seconds, nanoseconds] = words_at::<2>(tid, address)?;
    seconds.checked_mul(SECOND)?.checked_add(nanoseconds)
}

/// The limit that a socket of the program has for reading or writing.
fn socket_limit(program: Fd, number: c_int, events: i16) -> Option<u64> {
    let fd = task::descriptor_of(program, number).ok()?;
    let time = net::time_limit(fd.fd(), events == libc::POLLIN).ok()?;
    let ns = time[0].checked_mul(SECOND)?.checked_add(time[1] * 1000)?;
    (ns > 0).then_some(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_left_alone() {
        let limit = |number, args: [u64; 6]| Limit::of(number, |n| args[n]);
        assert_eq!(limit(libc::SYS_futex, [0; 6]), None);
        // Absolute, or with something to submit: not to be done twice.
        assert_eq!(
            limit(libc::SYS_io_uring_enter, [3, 1, 1, 8, 0x1000, 24]),
            None
        );
        assert_eq!(
            limit(libc::SYS_io_uring_enter, [3, 0, 1, 8 | 32, 0x1000, 24]),
            None
        );
        assert_eq!(
            limit(libc::SYS_io_uring_enter, [3, 0, 1, 8, 0x1000, 24]),
            Some(Limit::Events)
        );
    }
}
