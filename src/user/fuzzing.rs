// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tests/fuzz/wire hands bytes to: messages as they come from a socket, and
//! the tables that they reach, each beside a model of it.

#![forbid(unsafe_code)]

use super::attacher::sigbus::{Faulting, FaultingThreads};
use super::peers::requests::Requests;
use super::protocol::limits::{CONNECTIONS, WINDOW};
use super::protocol::message::{Answer, Message};
use super::protocol::wire::Words;
use super::sys::message::{self, Descriptors};
use super::sys::{Span, PAGE};
use crate::errno::Errno;
use crate::fd::Fd;
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

/// The state that one input after the other meets.
pub struct Fuzzing {
    ours: UnixDatagram,
    theirs: UnixDatagram,
    requests: Box<Requests>,
    threads: Box<FaultingThreads>,
}

impl Fuzzing {
    /// # Panics
    /// Where there are no sockets.
    pub fn new() -> Self {
        let (ours, theirs) = UnixDatagram::pair().expect("sockets");
        // The tables are larger than a thread's stack.
        let build = || (Box::new(Requests::NEW), Box::new(FaultingThreads::NEW));
        let thread = std::thread::Builder::new().stack_size(256 << 20);
        let built = thread.spawn(build).expect("a thread").join();
        let (requests, threads) = built.expect("tables");
        Self {
            ours,
            theirs,
            requests,
            threads,
        }
    }

    /// Any bytes.
    ///
    /// # Panics
    /// Where something is not as it must be.
    pub fn run(&mut self, data: &[u8]) {
        let Some((&first, rest)) = data.split_first() else {
            return;
        };
        match first % 4 {
            0 => self.socket(rest),
            1 => words(rest),
            2 => self.requests(rest),
            _ => self.threads(rest),
        }
    }

    /// One message of any length, without descriptors or with two.
    fn socket(&mut self, data: &[u8]) {
        let mut words: Words = [0; 8];
        let mut fds = Descriptors::NONE;
        let with_fds = data.first().is_some_and(|b| b % 2 == 1);
        if with_fds {
            let mut sent: Words = [0; 8];
            fill(&mut sent, data);
            let fd = Fd::new(self.ours.as_raw_fd());
            assert_eq!(message::send(fd, &sent, Some([fd, fd])), Ok(()));
            let got = message::receive(Fd::new(self.theirs.as_raw_fd()), &mut words, &mut fds);
            assert_eq!((got, words), (Ok(Some(())), sent));
            assert!(!fds.were_cut() && fds.pair().is_some());
            for _ in 0..2 {
                drop(fds.pop().expect("two descriptors"));
            }
            assert_eq!((fds.pop(), fds.first()), (None, None));
        } else if self.ours.send(data).is_ok() {
            let got = message::receive(Fd::new(self.theirs.as_raw_fd()), &mut words, &mut fds);
            let wanted = match data.len() {
                0 => Ok(None),
                64 => Ok(Some(())),
                _ => Err(Errno::EPROTO),
            };
            assert_eq!((got, fds.pop()), (wanted, None));
        }
    }

    /// Attachers ask and go; their requests are served in turn.
    fn requests(&mut self, data: &[u8]) {
        let mut model: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for (serial, step) in data.chunks_exact(2).enumerate() {
            // Few, so that queues fill, and spread over the words of the table.
            let i = usize::from(step[1] % 8) * (CONNECTIONS / 8) + usize::from(step[1] % 3);
            let queue = model.entry(i).or_default();
            match step[0] % 4 {
                0 | 1 => {
                    assert_eq!(self.requests.has_room(i), queue.len() < WINDOW);
                    if queue.len() < WINDOW {
                        self.requests.push(i, &[serial as u64; 8]);
                        queue.push(serial as u64);
                    }
                }
                2 => {
                    let took = self.requests.take_words(i).map(|words| words[0]);
                    let wanted = (!queue.is_empty()).then(|| queue.remove(0));
                    assert_eq!(took, wanted);
                }
                _ => {
                    self.requests.forget(i);
                    queue.clear();
                }
            }
            let after = usize::from(step[0]) * CONNECTIONS / 256;
            let busy = |i: &&usize| model.get(*i).is_some_and(|queue| !queue.is_empty());
            let order = model.keys().filter(|&&i| i > after);
            let order = order.chain(model.keys().filter(|&&i| i <= after));
            let wanted = order.filter(|i| busy(i)).next().copied();
            assert_eq!(self.requests.next_after(after), wanted);
        }
        for &i in model.keys() {
            self.requests.forget(i);
        }
    }

    /// Threads wait for pages, and answers come.
    fn threads(&mut self, data: &[u8]) {
        let mut model: BTreeMap<i32, (usize, u64, bool)> = BTreeMap::new();
        for (k, step) in data.chunks_exact(2).enumerate() {
            let (page, question) = (usize::from(step[1] % 16) * PAGE, k as u64 + 1);
            let tid = i32::from(step[0] / 4 % 32);
            match step[0] % 4 {
                0 | 1 => {
                    let unsent = step[1] >= 128;
                    assert!(self.threads.ask(Faulting {
                        page,
                        tid,
                        protected: false,
                        question,
                        connection: usize::from(step[1] % 2),
                        attachment: 1,
                        unsent,
                    }));
                    model.insert(tid, (page, question, unsent));
                }
                2 => {
                    self.threads.forget(Span::of(page, 2 * PAGE));
                    model.retain(|_, w| w.0 != page && w.0 != page + PAGE);
                }
                _ => {
                    if let Some(waiting) = model.get_mut(&tid) {
                        self.threads.is_sent(waiting.1);
                        waiting.2 = false;
                    }
                }
            }
            let last = model.values().filter(|w| w.0 == page).max_by_key(|w| w.1);
            assert_eq!(
                self.threads.last(page).map(|f| f.question),
                last.map(|w| w.1)
            );
            let unsent = model.values().any(|w| w.2);
            let found = (0..2).any(|c| self.threads.next_unsent(c).is_some());
            assert_eq!(found, unsent);
        }
        self.threads.forget(Span::new(0, usize::MAX));
    }
}

impl Default for Fuzzing {
    fn default() -> Self {
        Self::new()
    }
}

/// As a peer sends them: what is understood is the same when it is said again, and
/// its answer goes back to where it was asked.
fn words(data: &[u8]) {
    let mut words: Words = [0; 8];
    fill(&mut words, data);
    let Some(message) = Message::decode(&words) else {
        return;
    };
    assert_eq!(Message::decode(&message.encode()), Some(message));
    let answer = message.answer(Answer::Query { alive: false });
    let back = Message::decode(&answer.encode());
    assert_eq!(back, Some(answer));
    assert_eq!(
        (answer.serial, answer.cookie),
        (message.serial, message.cookie)
    );
}

fn fill(words: &mut Words, data: &[u8]) {
    for (word, bytes) in words.iter_mut().zip(data.chunks(8)) {
        let mut all = [0; 8];
        all[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(all);
    }
}
