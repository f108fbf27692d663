// SPDX-License-Identifier: MIT OR Apache-2.0
//! The owner's side: what attachers have asked for.
//!
//! Each attacher has a queue of its own, and they are served in turn
//! ([`crate::user::service::turns`]): who asks much waits for itself. An attacher keeps the number of its
//! questions under way within [`WINDOW`], so that its queue never fills; one that
//! does not is read no further until there is room. So no request is ever
//! refused for want of it, and what an attacher has to say beside its requests
//! is always heard.
//!
//! What cannot be served yet stays in its queue, and others are served meanwhile.
//! An answer that does not go out, because its attacher does not read, is not
//! kept: the request is, and is served anew when there is room.

#![forbid(unsafe_code)]

use crate::user::patience::Patience;
use crate::user::protocol::limits::{CONNECTIONS, WINDOW};
use crate::user::protocol::wire::Words;

/// Something that an attacher wants. All zero is none.
#[derive(Clone, Copy)]
pub struct Request {
    /// The message as it came, which has been decoded once.
    pub words: Words,
    pub effort: Effort,
    /// The earliest time of the next try. 0: at once.
    pub due: u64,
}

/// What has been done in vain for a request.
#[derive(Clone, Copy)]
pub struct Effort {
    /// How often it has been tried.
    pub tries: u32,
    /// How long something that passes has been waited for, and how often it was
    /// looked at.
    pub patience: Patience,
    pub looks: u32,
}

impl Effort {
    const NONE: Self = Self {
        tries: 0,
        patience: Patience::NEW,
        looks: 0,
    };
}

/// The requests of one attacher, oldest first. All zero is none.
struct Queue {
    len: usize,
    requests: [Request; WINDOW],
}

/// The requests of all attachers.
pub struct Requests {
    /// A bit for each connection that has some.
    waiting: [u64; CONNECTIONS / 64],
    /// The connection whose turn was last.
    turn: usize,
    /// Of the connection that is being served, plus 1: its request has left the
    /// queue and may have to return.
    serving: usize,
    queues: [Queue; CONNECTIONS],
}

impl Requests {
    /// For tests: a service finds zeros.
    #[cfg(any(test, feature = "fuzzing"))]
    pub const NEW: Self = {
        const REQUEST: Request = Request {
            words: [0; 8],
            effort: Effort::NONE,
            due: 0,
        };
        const QUEUE: Queue = Queue {
            len: 0,
            requests: [REQUEST; WINDOW],
        };
        Self {
            waiting: [0; CONNECTIONS / 64],
            turn: 0,
            serving: 0,
            queues: [QUEUE; CONNECTIONS],
        }
    };

    /// For tests: the oldest request of a connection.
    #[cfg(feature = "fuzzing")]
    pub fn take_words(&mut self, i: usize) -> Option<Words> {
        self.take(i, u64::MAX).map(|request| request.words)
    }

    /// Whose turn is next; `None` where nobody waits.
    pub fn next(&self) -> Option<usize> {
        self.next_after(self.turn)
    }

    /// It is the turn of a connection.
    pub fn begin_turn(&mut self, i: usize) {
        self.turn = i;
    }

    /// The request that was taken last, of a connection, is being served: it may have
    /// to return.
    pub fn begin(&mut self, i: usize) {
        self.serving = i + 1;
    }

    /// It has been served; whether the attacher is still there.
    pub fn end(&mut self, i: usize) -> bool {
        let there = self.serving == i + 1;
        if there {
            self.serving = 0;
        }
        there
    }

    /// Whether another request of a connection can be taken.
    pub fn has_room(&self, i: usize) -> bool {
        self.queues[i].len + usize::from(self.serving == i + 1) < WINDOW
    }

    /// Takes a request; the caller has asked for room.
    pub fn push(&mut self, i: usize, words: &Words) {
        let words = *words;
        let (effort, due) = (Effort::NONE, 0);
        self.put(i, Request { words, effort, due });
    }

    /// Puts one back whose place was kept.
    pub fn put(&mut self, i: usize, request: Request) {
        let queue = &mut self.queues[i];
        if let Some(place) = queue.requests.get_mut(queue.len) {
            *place = request;
            queue.len += 1;
            self.waiting[i / 64] |= 1 << (i % 64);
        }
    }

    /// An attacher is gone: so are its requests.
    pub fn forget(&mut self, i: usize) {
        self.queues[i].len = 0;
        self.waiting[i / 64] &= !(1 << (i % 64));
        if self.serving == i + 1 {
            self.serving = 0;
        }
    }

    /// The oldest request of a connection that is due.
    pub fn take(&mut self, i: usize, now: u64) -> Option<Request> {
        let queue = &mut self.queues[i];
        let at = queue.requests[..queue.len]
            .iter()
            .position(|r| r.due <= now)?;
        let request = queue.requests[at];
        queue.requests.copy_within(at + 1..queue.len, at);
        queue.len -= 1;
        if queue.len == 0 {
            self.waiting[i / 64] &= !(1 << (i % 64));
        }
        Some(request)
    }

    /// The connection with requests that follows `i` in the order of turns.
    pub fn next_after(&self, i: usize) -> Option<usize> {
        let words = self.waiting.len();
        let (word, bit) = (i / 64, i % 64);
        // The word of `i` comes first with what is above it, and last with the rest.
        (0..=words).find_map(|k| {
            let at = (word + k) % words;
            let above = if bit == 63 { 0 } else { u64::MAX << (bit + 1) };
            let bits = match k {
                0 => self.waiting[at] & above,
                k if k == words => self.waiting[at] & !above,
                _ => self.waiting[at],
            };
            (bits != 0).then(|| at * 64 + bits.trailing_zeros() as usize)
        })
    }

    /// When the next request is due, of those connections that can be served;
    /// `None` where there is none.
    pub fn next_due(&self, can_be_served: impl Fn(usize) -> bool) -> Option<u64> {
        let mut earliest = None;
        for (k, &word) in self.waiting.iter().enumerate() {
            let mut bits = word;
            while bits != 0 {
                let i = k * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let queue = &self.queues[i];
                for request in queue.requests[..queue.len]
                    .iter()
                    .filter(|_| can_be_served(i))
                {
                    earliest = Some(earliest.map_or(request.due, |e: u64| e.min(request.due)));
                }
            }
        }
        earliest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::protocol::message::{Message, Question};

    /// Runs a test on a stack with room for all queues.
    fn with_empty(test: fn(Requests)) {
        let run = move || {
            test(Requests::NEW);
        };
        let thread = std::thread::Builder::new().stack_size(256 << 20).spawn(run);
        thread.expect("a thread").join().expect("the test");
    }

    fn words(serial: u64) -> Words {
        let mut m = Message::question(Question::Hello);
        m.serial = serial;
        m.encode()
    }

    fn serial(request: Option<Request>) -> Option<u64> {
        request
            .and_then(|r| Message::decode(&r.words))
            .map(|m| m.serial)
    }

    #[test]
    fn attachers_take_turns_whatever_they_ask() {
        with_empty(|mut all| {
            for serial in 0..WINDOW as u64 {
                assert!(all.has_room(7));
                all.push(7, &words(serial));
            }
            assert!(!all.has_room(7) && all.has_room(4095));
            all.push(4095, &words(100));
            all.push(64, &words(200));
            let mut order = Vec::new();
            while let Some(i) = all.next_after(all.turn) {
                all.turn = i;
                order.push(serial(all.take(i, 0)).expect("due"));
            }
            assert_eq!(order[..4], [0, 200, 100, 1]);
            assert_eq!(order.len(), WINDOW + 2);
        });
    }

    #[test]
    fn what_is_not_due_lets_others_pass_and_keeps_its_place() {
        with_empty(|mut all| {
            all.push(3, &words(1));
            all.push(3, &words(2));
            let mut first = all.take(3, 0).expect("two");
            first.due = 50;
            // While it is served its place is kept.
            all.serving = 4;
            for serial in 3..=WINDOW as u64 {
                assert!(all.has_room(3));
                all.push(3, &words(serial));
            }
            assert!(!all.has_room(3));
            all.serving = 0;
            all.put(3, first);
            assert_eq!(serial(all.take(3, 10)), Some(2));
            assert_eq!(all.next_due(|_| true), Some(0));
            for _ in 3..=WINDOW {
                assert!(all.take(3, 10).is_some());
            }
            assert!(all.take(3, 10).is_none());
            assert_eq!(all.next_due(|_| true), Some(50));
            assert_eq!(all.next_due(|i| i != 3), None);
            all.forget(3);
            assert_eq!((all.next_after(0), all.next_due(|_| true)), (None, None));
        });
    }
}
