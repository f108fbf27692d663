// SPDX-License-Identifier: MIT OR Apache-2.0
//! What attachers and owners say to each other.
//!
//! Addresses are the owner's. What a message of a peer says is what that peer claims:
//! a span may be any span, and need not be one of pages.

#![forbid(unsafe_code)]

use crate::user::span::Span;

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Of a question: no other question of its sender has it. Its answer carries
    /// it back.
    pub serial: u64,
    /// For whom the question is; its answer carries it back.
    pub cookie: u64,
    pub body: Body,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    Question(Question),
    Answer(Answer),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// Attacher: I am here.
    Hello,
    /// Attacher: may I attach that segment?
    Get { segid: i64, writable: bool },
    /// Attacher: make pages sharable.
    Share(Wish),
    /// Attacher: is this segment or permit alive?
    Query { id: i64 },
    /// Attacher: so many answers to [`Question::Share`] have been acted upon. It has no answer.
    Noted { answers: u64 },
    /// Owner: let go of that. Answered when no attachment shows it.
    Withdraw(Withdrawal),
}

/// The pages that an attacher wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    pub segid: i64,
    /// Wanted first.
    pub addr: usize,
    /// Where others may be shared along with it.
    pub span: Span,
    pub extent: Extent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// The page of the address, and what of the span the owner thinks good.
    Page,
    /// All of the span, and holes do not matter.
    Whole,
    /// No page: only the size of those that the span has.
    Layout,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Withdrawal {
    /// The segment is no more.
    Segment(i64),
    /// Pages of the span, and mappings of other files in it.
    Range(Span),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The owner's memfd and a pidfd of the owner come along, if it takes the attacher.
    Hello(Result<(), Denial>),
    /// The span of the segment.
    Get(Result<Span, Denial>),
    Share(Pages),
    Query {
        alive: bool,
    },
    /// Whether the attacher could let go.
    Withdrawn {
        done: bool,
    },
}

/// Why an owner does not take or admit an attacher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denial {
    /// It may not.
    Denied,
    /// There is no room for another attacher.
    Full,
    /// There is no such segment (any more), or no address space.
    Gone,
}

/// What has become of a [`Wish`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pages {
    /// The span is in the owner's memfd.
    Here { span: Span, about: About },
    /// The span is a file of its own.
    Elsewhere(Elsewhere),
    /// The span of the wish, widened to whole pages of the owner's at both ends, and the
    /// size of the largest of these.
    Layout { span: Span, page: usize },
    /// Nothing there that can be shared.
    Hole,
    /// No such segment (any more).
    Gone,
    /// There is something, but not all of it can be shared.
    Refused,
}

/// Pages that are shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    Ordinary,
    /// The owner may not write to some of them itself.
    ReadOnly,
    /// They are on huge pages, where there is room for them in the span.
    Huge,
}

/// A file that the owner has mapped shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elsewhere {
    pub span: Span,
    /// Where in the file the span begins.
    pub offset: usize,
    /// Stores are allowed.
    pub writable: bool,
    pub file: Lent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lent {
    /// It comes along.
    File,
    /// A System V segment of an IPC namespace, on pages of that size.
    Segment {
        id: i32,
        namespace: u64,
        page: usize,
    },
}

impl Message {
    /// A question, which gets its numbers when it is asked.
    pub const fn question(question: Question) -> Self {
        Self {
            serial: 0,
            cookie: 0,
            body: Body::Question(question),
        }
    }

    /// An answer to `self`.
    pub const fn answer(&self, answer: Answer) -> Self {
        Self {
            body: Body::Answer(answer),
            ..*self
        }
    }
}
