// SPDX-License-Identifier: MIT OR Apache-2.0
//! The owner's side: room for attachers, which no process takes from another.
//!
//! An honest process has one connection, for as long as it lives. So when the
//! table is full, a newcomer gets the place of one that is another's second, or
//! that outlives its process. Who wants to keep others out needs as many living
//! processes as there are places; and these are not told from as many honest ones.

#![forbid(unsafe_code)]

use super::{Peers, Side};
use crate::debug_log;
use crate::errno::Errno;
use crate::fd::Fd;
use crate::user::patience;
use crate::user::protocol::limits::{ATTACHERS, CONNECTIONS, OF_ONE_PEER, OF_UNSEEN_PEERS};
use crate::user::protocol::message::Denial;
use crate::user::sys::{mem, net, task, Sys};

/// Nanoseconds between two looks at all attachers.
const BETWEEN_LOOKS: u64 = 1_000_000_000;

/// All processes that are not shown here, where they cannot be told apart.
const UNSEEN: u64 = 1;

/// How many processes are remembered that have been hung up on.
const REMEMBERED: usize = 64;

/// Processes that did not do in time what they were asked, the last ones. All zero is
/// none.
pub struct Slow {
    next: usize,
    processes: [u64; REMEMBERED],
}

impl Slow {
    pub fn note(&mut self, process: u64) {
        if process > UNSEEN {
            self.processes[self.next % REMEMBERED] = process;
            self.next += 1;
        }
    }

    /// How long a process is waited for that has come, in nanoseconds: half as long
    /// each time that it comes again. So in all it costs two seconds.
    pub fn patience_with(&self, process: u64) -> u64 {
        let times = self.processes.iter().filter(|&&slow| slow == process);
        patience::LIMIT >> times.count().min(10)
    }
}

fn inode_of(fd: Fd) -> u64 {
    mem::identity(fd).map_or(0, |(_, inode, _)| inode)
}

/// The inode of the process at the other end of a socket, and whether it has ended.
#[inline(never)]
fn process_at(fd: Fd) -> Sys<(u64, bool)> {
    let process = net::process_of(fd)?;
    let found = (inode_of(process.fd()), net::has_input(process.fd()));
    Ok(found)
}

impl Peers {
    /// Makes sure that there is room for a connection of a process; answers what
    /// tells this process from others.
    pub fn find_room(&mut self, fd: Fd, pid: i32) -> Result<u64, Denial> {
        let process = self.process_of(fd, pid)?;
        let most = match process {
            UNSEEN => OF_UNSEEN_PEERS,
            _ => OF_ONE_PEER,
        };
        let (mut all, mut own) = (0, 0);
        for &other in &self.attachers {
            all += usize::from(other != 0);
            own += usize::from(other == process);
        }
        if all >= ATTACHERS / 2 {
            self.cut_ended();
        }
        if own >= most || all >= ATTACHERS && (own > 0 || !self.make_room()) {
            debug_log!("refused a connection of {pid}, which has {own} of {all}");
            return Err(Denial::Full);
        }
        Ok(process)
    }

    /// What tells the process at the other end from others: the inode of its
    /// descriptor, or where these are all the same, before Linux 6.9, its pid.
    fn process_of(&self, fd: Fd, pid: i32) -> Result<u64, Denial> {
        let by_pid = UNSEEN + pid as u64;
        match process_at(fd) {
            Err(Errno::ENOPROTOOPT) => Ok(by_pid),
            Err(_) => Err(Denial::Full),
            Ok((_, true)) => Err(Denial::Denied),
            Ok((inode, _)) if inode == inode_of(self.epoll) => Ok(by_pid),
            Ok((inode, _)) => Ok(inode),
        }
    }

    /// Whether the process of an attacher has ended: its end of the connection has
    /// gone elsewhere.
    fn has_ended(&self, i: usize) -> bool {
        let c = &self.connections[i];
        match process_at(c.fd) {
            Ok((_, ended)) => ended,
            Err(Errno::ENOPROTOOPT) => {
                c.pid != 0 && task::signal_task(c.pid, c.pid, 0) == Err(Errno::ESRCH)
            }
            // That is no descriptor left; the others tell of one that has ended.
            Err(errno) => !matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM),
        }
    }

    /// Hangs up on processes that have ended, if that was not done just now.
    fn cut_ended(&mut self) {
        let now = task::now();
        if now < self.ended_due {
            return;
        }
        self.ended_due = now + BETWEEN_LOOKS;
        for i in 0..CONNECTIONS {
            let c = &self.connections[i];
            match c.side {
                Side::Owner if !self.has_ended(i) => {}
                // What it has left may take its time to let go.
                Side::Owner if c.served => self.cut(i),
                Side::Owner => drop(self.close(i)),
                _ => {}
            }
        }
    }

    /// Makes a place free that nobody has a right to; whether there was one.
    fn make_room(&mut self) -> bool {
        let now = task::now();
        if now < self.full_until {
            return false;
        }
        let is_left = |&i: &usize| self.connections[i].side == Side::Cut && self.has_ended(i);
        let left = (0..CONNECTIONS).find(is_left);
        let Some(i) = left.or_else(|| self.second_of_one()) else {
            self.full_until = now + BETWEEN_LOOKS;
            return false;
        };
        self.close(i);
        true
    }

    /// A connection of a process that has another one. Of an honest one the older
    /// has ended.
    fn second_of_one(&self) -> Option<usize> {
        let mut rest = &self.attachers[..];
        while let Some((&process, others)) = rest.split_first() {
            let i = CONNECTIONS - rest.len();
            rest = others;
            if process <= UNSEEN {
                continue;
            }
            if let Some(k) = others.iter().position(|&other| other == process) {
                let j = i + 1 + k;
                let ended = net::is_hung_up(self.connections[j].fd);
                return Some(if ended { j } else { i });
            }
        }
        None
    }
}
