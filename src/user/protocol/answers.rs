// SPDX-License-Identifier: MIT OR Apache-2.0
//! The words of answers.

#![forbid(unsafe_code)]

use super::message::{About, Answer, Denial, Elsewhere, Lent, Pages};
use super::words::{Middle, ANSWER, GET, HELLO, NONE, QUERY, RECALL, REMOVED, SHARE};
use crate::user::span::PAGE;

const DONE: u64 = 0;
const HOLE: u64 = 1;
const GONE: u64 = 2;
const DENIED: u64 = 3;
const BAD: u64 = 4;
const ELSEWHERE: u64 = 5;
const FULL: u64 = 6;
const REFUSED: u64 = 7;

/// What an answer to `Share` says of pages, above the verb.
const READ_ONLY: u64 = 1 << 32;
const ON_HUGE_PAGES: u64 = 1 << 33;
const IN_WHOLE_PAGES: u64 = 1 << 34;
const ABOUT: u64 = READ_ONLY | ON_HUGE_PAGES | IN_WHOLE_PAGES;

/// What a file is: stores are allowed.
const WRITABLE: u64 = 1;
/// A System V segment, with the size of its pages as a power of two (0: the ordinary
/// one), its id, and the IPC namespace above.
const SYSV: u64 = 2;
const PAGE_SHIFT: u32 = 2;
const PAGE_BITS: u64 = 0x3f;
const SYSV_SHIFT: u32 = 8;
const IPC_SHIFT: u32 = 40;

/// An answer to that verb, with that status.
const fn answer_to(verb: u64, status: u64) -> Middle {
    Middle {
        first: ANSWER | status << 32,
        flags: verb,
        ..NONE
    }
}

fn denial(denial: Denial) -> u64 {
    match denial {
        Denial::Denied => DENIED,
        Denial::Full => FULL,
        Denial::Gone => GONE,
    }
}

fn to_denial(status: u64) -> Denial {
    match status {
        DENIED => Denial::Denied,
        FULL => Denial::Full,
        _ => Denial::Gone,
    }
}

/// The words of an answer.
pub fn encode(answer: Answer) -> Middle {
    match answer {
        Answer::Hello(taken) => answer_to(HELLO, taken.map_or_else(denial, |()| DONE)),
        Answer::Get(Ok(span)) => answer_to(GET, DONE).about(span),
        Answer::Get(Err(why)) => answer_to(GET, denial(why)),
        Answer::Query { alive } => answer_to(QUERY, if alive { DONE } else { GONE }),
        Answer::Withdrawn { done } => answer_to(RECALL, if done { DONE } else { BAD }),
        Answer::Share(Pages::Here { span, about }) => Middle {
            flags: SHARE
                | match about {
                    About::Ordinary => 0,
                    About::ReadOnly => READ_ONLY,
                    About::Huge => ON_HUGE_PAGES,
                },
            ..answer_to(SHARE, DONE).about(span)
        },
        Answer::Share(Pages::Layout { span, page }) => Middle {
            addr: page as u64,
            flags: SHARE | IN_WHOLE_PAGES,
            ..answer_to(SHARE, DONE).about(span)
        },
        Answer::Share(Pages::Elsewhere(file)) => Middle {
            id: kind(&file),
            addr: file.offset as u64,
            ..answer_to(SHARE, ELSEWHERE).about(file.span)
        },
        Answer::Share(Pages::Hole) => answer_to(SHARE, HOLE),
        Answer::Share(Pages::Gone) => answer_to(SHARE, GONE),
        Answer::Share(Pages::Refused) => answer_to(SHARE, REFUSED),
    }
}

/// `None` for an answer to nothing.
pub fn decode(m: &Middle) -> Option<Answer> {
    let status = m.first >> 32;
    let done = status == DONE;
    let why = to_denial(status);
    Some(match m.flags & !ABOUT {
        _ if status > REFUSED => return None,
        HELLO => Answer::Hello(if done { Ok(()) } else { Err(why) }),
        GET => Answer::Get(if done { Ok(m.span()) } else { Err(why) }),
        QUERY => Answer::Query { alive: done },
        REMOVED | RECALL => Answer::Withdrawn { done },
        SHARE => Answer::Share(to_pages(m, status)),
        _ => return None,
    })
}

fn to_pages(m: &Middle, status: u64) -> Pages {
    let span = m.span();
    match status {
        DONE if m.flags & IN_WHOLE_PAGES != 0 => Pages::Layout {
            span,
            page: m.addr as usize,
        },
        DONE => Pages::Here {
            span,
            about: if m.flags & READ_ONLY != 0 {
                About::ReadOnly
            } else if m.flags & ON_HUGE_PAGES != 0 {
                About::Huge
            } else {
                About::Ordinary
            },
        },
        ELSEWHERE => Pages::Elsewhere(Elsewhere {
            span,
            offset: m.addr as usize,
            writable: m.id & WRITABLE != 0,
            file: to_file(m.id),
        }),
        GONE => Pages::Gone,
        REFUSED => Pages::Refused,
        _ => Pages::Hole,
    }
}

/// The word that says what a file is.
fn kind(file: &Elsewhere) -> u64 {
    let kind = match file.file {
        Lent::File => 0,
        Lent::Segment {
            id,
            namespace,
            page,
        } => {
            let bits = if page > PAGE {
                u64::from(page.trailing_zeros())
            } else {
                0
            };
            let id = u64::from(id as u32);
            SYSV | bits << PAGE_SHIFT | id << SYSV_SHIFT | namespace << IPC_SHIFT
        }
    };
    kind | if file.writable { WRITABLE } else { 0 }
}

fn to_file(kind: u64) -> Lent {
    if kind & SYSV == 0 {
        return Lent::File;
    }
    Lent::Segment {
        id: (kind >> SYSV_SHIFT) as i32,
        namespace: kind >> IPC_SHIFT,
        page: match kind >> PAGE_SHIFT & PAGE_BITS {
            0 => PAGE,
            bits => 1 << bits,
        },
    }
}
