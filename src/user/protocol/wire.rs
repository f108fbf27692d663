// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages between attachers and owners: eight words each.

#![forbid(unsafe_code)]

/// Words of a message on the wire.
pub type Words = [u64; 8];

/// Version of this protocol; both sides must speak the same, or hang up. It is in
/// the last word of every message of every version: the lower half of its lower
/// half, with zeros above in version 1.
pub const VERSION: u64 = 2;

/// Bits of the last word that hold the version; the serial number is above them.
const VERSION_BITS: u32 = 16;

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Verb {
    /// Attacher: I am here. Answer: the owner's memfd and a pidfd of the owner.
    Hello = 1,
    /// Attacher: may I? Answer: base and size of the segment.
    Get,
    /// Attacher: make `[lo, hi)` sharable, `addr` first. Answer: what is.
    Share,
    /// Anybody: is this id alive?
    Query,
    /// Owner: the segment is no more. Answered when no attachment shows it.
    Removed,
    /// The answer to a message with the same cookie.
    Answer,
    /// Attacher: `lo` answers to `Share` have been acted upon.
    Noted,
    /// Owner: attachments must let go of `[lo, hi)`: of its pages, and of mappings
    /// of other files. Answered when they have, [`Status::Bad`] if they cannot.
    Recall,
}

/// How an owner answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Status {
    Done = 0,
    /// Nothing there that can be shared.
    Hole,
    /// No such segment (any more).
    Gone,
    /// Not for you.
    Denied,
    /// The message makes no sense.
    Bad,
    /// `[lo, hi)` is a file of its own, which comes along, from offset `addr`.
    Elsewhere,
    /// There is no room for another attacher.
    Full,
    /// There is something, but not all of it can be shared.
    Refused,
}

/// `Share`: all of `[lo, hi)` is wanted, and holes do not matter.
pub const WHOLE: u64 = 1;

/// `Share`: nothing is wanted but what pages `[lo, hi)` has. Answer: the same range in
/// whole pages of its ends, and in `addr` the size of the largest.
pub const LAYOUT: u64 = 2;

/// The answer to `Share`: the owner may not write to some of `[lo, hi)` itself.
/// Above the verb that an answer repeats in its flags.
pub const READ_ONLY: u64 = 1 << 32;

/// As [`READ_ONLY`]: `[lo, hi)` is on huge pages, where there is room for them in it.
pub const ON_HUGE_PAGES: u64 = 1 << 33;

/// As [`READ_ONLY`]: the answer to [`LAYOUT`].
pub const IN_WHOLE_PAGES: u64 = 1 << 34;

const ABOUT: u64 = READ_ONLY | ON_HUGE_PAGES | IN_WHOLE_PAGES;

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    pub verb: Verb,
    pub status: Status,
    /// Of a question: no other question of its sender has it. Its answer carries
    /// it back.
    pub serial: u64,
    /// For whom the question is; its answer carries it back.
    pub cookie: u64,
    pub id: i64,
    pub addr: u64,
    pub lo: u64,
    pub hi: u64,
    pub flags: u64,
}

impl Message {
    pub fn new(verb: Verb) -> Self {
        Self {
            verb,
            status: Status::Done,
            serial: 0,
            cookie: 0,
            id: 0,
            addr: 0,
            lo: 0,
            hi: 0,
            flags: 0,
        }
    }

    /// An answer to `self`.
    pub fn answer(&self, status: Status) -> Self {
        Self {
            verb: Verb::Answer,
            status,
            flags: self.verb as u64,
            ..*self
        }
    }

    /// Whether this is the answer to a message of that kind.
    pub fn answers(&self, verb: Verb) -> bool {
        self.verb == Verb::Answer && self.flags & !ABOUT == verb as u64
    }

    pub fn encode(&self) -> Words {
        let first = self.verb as u64 | (self.status as u64) << 32;
        [
            first,
            self.cookie,
            self.id as u64,
            self.addr,
            self.lo,
            self.hi,
            self.flags,
            VERSION | self.serial << VERSION_BITS,
        ]
    }

    /// `None` for words that no peer of this version sends.
    pub fn decode(words: &Words) -> Option<Self> {
        const VERBS: [Verb; 8] = [
            Verb::Noted,
            Verb::Recall,
            Verb::Hello,
            Verb::Get,
            Verb::Share,
            Verb::Query,
            Verb::Removed,
            Verb::Answer,
        ];
        const STATUSES: [Status; 8] = [
            Status::Refused,
            Status::Full,
            Status::Elsewhere,
            Status::Done,
            Status::Hole,
            Status::Gone,
            Status::Denied,
            Status::Bad,
        ];
        if words[7] % (1 << VERSION_BITS) != VERSION {
            return None;
        }
        Some(Self {
            verb: VERBS
                .into_iter()
                .find(|v| *v as u64 == words[0] & 0xffff_ffff)?,
            status: STATUSES.into_iter().find(|s| *s as u64 == words[0] >> 32)?,
            serial: words[7] >> VERSION_BITS,
            cookie: words[1],
            id: words[2] as i64,
            addr: words[3],
            lo: words[4],
            hi: words[5],
            flags: words[6],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire_and_garbage_does_not_pass() {
        let mut m = Message::new(Verb::Share);
        (m.cookie, m.id, m.addr, m.lo, m.hi, m.flags) = (1, -2, 3, 4, 5, WHOLE);
        m.serial = (1 << 48) - 1;
        let back = Message::decode(&m.encode()).expect("own message");
        assert_eq!(back.encode(), m.encode());
        let answer = m.answer(Status::Hole);
        assert!(answer.answers(Verb::Share) && !answer.answers(Verb::Get));
        assert_eq!(answer.serial, m.serial);
        assert!(Message::decode(&[0; 8]).is_none());
        let mut words = m.encode();
        for other in [1, VERSION + 1] {
            words[7] = other;
            assert!(Message::decode(&words).is_none());
        }
        words = m.encode();
        words[0] = 99;
        assert!(Message::decode(&words).is_none());
    }
}
