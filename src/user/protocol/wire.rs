// SPDX-License-Identifier: MIT OR Apache-2.0
//! How messages travel: as eight words each.
//!
//! | word | question | answer |
//! | --- | --- | --- |
//! | 0 | verb | [`ANSWER`], and the status in the upper half |
//! | 1 | cookie | the question's |
//! | 2 | segid or permit | [`Elsewhere`](super::message::Elsewhere): what the file is |
//! | 3 | address; `Get`: the access | [`Elsewhere`](super::message::Elsewhere): offset; layout: size of pages |
//! | 4, 5 | span; `Noted`: how many | span |
//! | 6 | `Share`: [`WHOLE`] or [`LAYOUT`] | the question's verb, and what is said of the pages |
//! | 7 | version and serial number | the same |

#![forbid(unsafe_code)]

use super::answers;
use super::message::{Body, Extent, Message, Question, Wish, Withdrawal};
use super::words::{Middle, ANSWER, GET, HELLO, NONE, NOTED, QUERY, RECALL, REMOVED, SHARE};

/// Words of a message on the wire.
pub type Words = [u64; 8];

/// Version of this protocol; both sides must speak the same, or hang up. It is in
/// the last word of every message of every version: the lower half of its lower
/// half, with zeros above in version 1.
pub const VERSION: u64 = 2;

/// Bits of the last word that hold the version; the serial number is above them.
const VERSION_BITS: u32 = 16;

/// `Get`: the access, as `xpmem_get` is asked for it.
const RDONLY: u64 = 1;
const RDWR: u64 = 2;

const WHOLE: u64 = 1;
const LAYOUT: u64 = 2;

/// The first word, without a status.
const fn verb(first: u64) -> Middle {
    Middle { first, ..NONE }
}

fn question(question: Question) -> Middle {
    match question {
        Question::Hello => verb(HELLO),
        Question::Get { segid, writable } => Middle {
            id: segid as u64,
            addr: if writable { RDWR } else { RDONLY },
            ..verb(GET)
        },
        Question::Share(wish) => Middle {
            id: wish.segid as u64,
            addr: wish.addr as u64,
            flags: match wish.extent {
                Extent::Page => 0,
                Extent::Whole => WHOLE,
                Extent::Layout => LAYOUT,
            },
            ..verb(SHARE).about(wish.span)
        },
        Question::Query { id } => Middle {
            id: id as u64,
            ..verb(QUERY)
        },
        Question::Noted { answers } => Middle {
            lo: answers,
            ..verb(NOTED)
        },
        Question::Withdraw(Withdrawal::Segment(segid)) => Middle {
            id: segid as u64,
            ..verb(REMOVED)
        },
        Question::Withdraw(Withdrawal::Range(span)) => verb(RECALL).about(span),
    }
}

fn to_question(m: &Middle) -> Option<Question> {
    Some(match m.first & 0xffff_ffff {
        HELLO => Question::Hello,
        GET => Question::Get {
            segid: m.id as i64,
            writable: m.addr == RDWR,
        },
        SHARE => Question::Share(Wish {
            segid: m.id as i64,
            addr: m.addr as usize,
            span: m.span(),
            extent: if m.flags & LAYOUT != 0 {
                Extent::Layout
            } else if m.flags & WHOLE != 0 {
                Extent::Whole
            } else {
                Extent::Page
            },
        }),
        QUERY => Question::Query { id: m.id as i64 },
        NOTED => Question::Noted { answers: m.lo },
        REMOVED => Question::Withdraw(Withdrawal::Segment(m.id as i64)),
        RECALL => Question::Withdraw(Withdrawal::Range(m.span())),
        _ => return None,
    })
}

impl Message {
    /// As it travels.
    pub fn encode(&self) -> Words {
        let m = match self.body {
            Body::Question(asked) => question(asked),
            Body::Answer(said) => answers::encode(said),
        };
        let last = VERSION | self.serial << VERSION_BITS;
        [
            m.first,
            self.cookie,
            m.id,
            m.addr,
            m.lo,
            m.hi,
            m.flags,
            last,
        ]
    }

    /// `None` for words that no peer of this version sends.
    pub fn decode(words: &Words) -> Option<Self> {
        let [first, cookie, id, addr, lo, hi, flags, last] = *words;
        if last % (1 << VERSION_BITS) != VERSION {
            return None;
        }
        let middle = Middle {
            first,
            id,
            addr,
            lo,
            hi,
            flags,
        };
        let body = match first & 0xffff_ffff {
            ANSWER => Body::Answer(answers::decode(&middle)?),
            _ => Body::Question(to_question(&middle)?),
        };
        Some(Self {
            serial: last >> VERSION_BITS,
            cookie,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::protocol::message::{About, Answer, Denial, Elsewhere, Lent, Pages};
    use crate::user::span::{Span, PAGE};

    fn all() -> Vec<Body> {
        let span = Span::new(4, 5);
        let wish = |extent| {
            Question::Share(Wish {
                segid: -2,
                addr: 3,
                span,
                extent,
            })
        };
        let questions = [
            Question::Hello,
            Question::Get {
                segid: 7,
                writable: true,
            },
            Question::Get {
                segid: -7,
                writable: false,
            },
            wish(Extent::Page),
            wish(Extent::Whole),
            wish(Extent::Layout),
            Question::Query { id: 9 },
            Question::Noted { answers: 1 << 40 },
            Question::Withdraw(Withdrawal::Segment(11)),
            Question::Withdraw(Withdrawal::Range(span)),
        ];
        let here = |about| Answer::Share(Pages::Here { span, about });
        let elsewhere = |writable, file| {
            let offset = 8192;
            Answer::Share(Pages::Elsewhere(Elsewhere {
                span,
                offset,
                writable,
                file,
            }))
        };
        let segment = |page| Lent::Segment {
            id: i32::MAX,
            namespace: u64::MAX >> 40,
            page,
        };
        let answers = [
            Answer::Hello(Ok(())),
            Answer::Hello(Err(Denial::Denied)),
            Answer::Hello(Err(Denial::Full)),
            Answer::Hello(Err(Denial::Gone)),
            Answer::Get(Ok(span)),
            Answer::Get(Err(Denial::Denied)),
            here(About::Ordinary),
            here(About::ReadOnly),
            here(About::Huge),
            elsewhere(true, Lent::File),
            elsewhere(false, segment(PAGE)),
            elsewhere(true, segment(1 << 30)),
            Answer::Share(Pages::Layout {
                span,
                page: 2 << 20,
            }),
            Answer::Share(Pages::Hole),
            Answer::Share(Pages::Gone),
            Answer::Share(Pages::Refused),
            Answer::Query { alive: true },
            Answer::Query { alive: false },
            Answer::Withdrawn { done: true },
            Answer::Withdrawn { done: false },
        ];
        let questions = questions.into_iter().map(Body::Question);
        questions
            .chain(answers.into_iter().map(Body::Answer))
            .collect()
    }

    #[test]
    fn messages_survive_the_wire() {
        for body in all() {
            let m = Message {
                serial: (1 << 48) - 1,
                cookie: 1,
                body,
            };
            assert_eq!(Message::decode(&m.encode()), Some(m));
        }
    }

    #[test]
    fn garbage_does_not_pass() {
        assert!(Message::decode(&[0; 8]).is_none());
        let words = Message::question(Question::Hello).encode();
        let with = |at: usize, word: u64| {
            let mut words = words;
            words[at] = word;
            Message::decode(&words)
        };
        for other in [1, VERSION + 1] {
            assert!(with(7, other).is_none());
        }
        assert!(with(0, 99).is_none());
        // An answer to nothing, and one with a status that is none.
        assert!(with(0, ANSWER).is_none());
        let mut answer = Message::question(Question::Hello).answer(Answer::Hello(Ok(())));
        answer.cookie = 5;
        let mut words = answer.encode();
        words[0] |= 99 << 32;
        assert!(Message::decode(&words).is_none());
    }
}
