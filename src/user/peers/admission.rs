// SPDX-License-Identifier: MIT OR Apache-2.0
//! The owner's side: accepts attachers, or tells them why not.
//!
//! Who is not is told, so that its call fails and does not wait: also where
//! there is no room in the table, and where no descriptor is left.

#![forbid(unsafe_code)]

use super::{tag, Peers, Side};
use crate::debug_log;
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use crate::user::protocol::message::{Answer, Denial, Message, Question};
use crate::user::sys::message::{self, Descriptors};
use crate::user::sys::net;
use crate::user::sys::spare::Spare;
use crate::user::sys::task;

/// How many connections are taken before others are looked at.
const ACCEPT_BATCH: usize = 64;

/// How long new attachers wait where nothing can be done for them, in
/// nanoseconds.
const DEAF: u64 = 100_000_000;

impl Peers {
    /// Takes new attachers of the same user.
    pub fn accept(&mut self, spare: &mut Spare, dispose: &dyn Fn(&mut Descriptors)) {
        for _ in 0..ACCEPT_BATCH {
            let fd = match net::accept(self.listener) {
                Ok(fd) => fd,
                Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS) => {
                    return self.refuse_with(spare, dispose);
                }
                Err(Errno::EAGAIN) => return,
                // Of the one that was about to be taken.
                Err(_) => continue,
            };
            match self.admit(fd.fd()) {
                // The table's to close.
                Ok(()) => drop(fd.keep()),
                Err(why) => refuse(&fd, why, dispose),
            }
        }
    }

    fn admit(&mut self, fd: Fd) -> Result<(), Denial> {
        let Ok((pid, uid)) = net::peer(fd) else {
            return Err(Denial::Denied);
        };
        if uid != self.uid {
            debug_log!("refused a connection of uid {uid}");
            return Err(Denial::Denied);
        }
        let process = self.find_room(fd, pid)?;
        // No attacher has a descriptor for us; where the kernel lets us say so,
        // it takes none.
        net::refuse_descriptors(fd);
        let i = self.adopt(fd, Side::Owner).map_err(|_| Denial::Full)?;
        self.connections[i].pid = pid;
        self.connections[i].limit = self.slow.patience_with(process);
        self.attachers[i] = process;
        Ok(())
    }

    /// There is no descriptor left for a new attacher: it is told, by means of
    /// one that is kept for this. Else it would wait, and the listener would be
    /// ready for ever.
    fn refuse_with(&mut self, spare: &mut Spare, dispose: &dyn Fn(&mut Descriptors)) {
        spare.give_up();
        let refused = net::accept(self.listener);
        if let Ok(fd) = &refused {
            debug_log!("refused a connection: no descriptor is left");
            refuse(fd, Denial::Full, dispose);
        }
        spare.keep();
        if refused.is_err() {
            // Others have taken what was freed.
            self.deaf_until = task::now() + DEAF;
            let _ = net::watch_for(self.epoll, self.listener, tag::LISTENER, 0);
        }
    }

    /// Whether new attachers wait for a while.
    pub fn is_deaf(&self) -> bool {
        self.deaf_until != 0
    }

    /// After there was no descriptor for new attachers.
    pub fn listen_again(&mut self, spare: &mut Spare) {
        if self.deaf_until != 0 && task::now() >= self.deaf_until {
            self.deaf_until = 0;
            let _ = net::watch_for(self.epoll, self.listener, tag::LISTENER, net::IN);
            spare.keep();
        }
    }
}

/// Tells an attacher that it is not taken. What it has said is read first, and
/// it can say no more: what is left unread when a socket is closed would take
/// the place of our answer.
fn refuse(socket: &OwnedFd, why: Denial, dispose: &dyn Fn(&mut Descriptors)) {
    let fd = socket.fd();
    net::end_hearing(fd);
    let (mut words, mut fds) = ([0u64; 8], Descriptors::NONE);
    while let Ok(Some(())) = message::receive(fd, &mut words, &mut fds) {
        dispose(&mut fds);
    }
    let answer = Message::question(Question::Hello).answer(Answer::Hello(Err(why)));
    let _ = message::send(fd, &answer.encode(), None);
}
