// SPDX-License-Identifier: MIT OR Apache-2.0
//! What questions and answers have in common on the wire.

#![forbid(unsafe_code)]

use crate::user::span::Span;

pub const HELLO: u64 = 1;
pub const GET: u64 = 2;
pub const SHARE: u64 = 3;
pub const QUERY: u64 = 4;
pub const REMOVED: u64 = 5;
pub const ANSWER: u64 = 6;
pub const NOTED: u64 = 7;
pub const RECALL: u64 = 8;

/// The words between the cookie and the version.
pub struct Middle {
    pub first: u64,
    pub id: u64,
    pub addr: u64,
    pub lo: u64,
    pub hi: u64,
    pub flags: u64,
}

pub const NONE: Middle = Middle {
    first: 0,
    id: 0,
    addr: 0,
    lo: 0,
    hi: 0,
    flags: 0,
};

impl Middle {
    /// With that span.
    pub fn about(self, span: Span) -> Self {
        Self {
            lo: span.start() as u64,
            hi: span.end() as u64,
            ..self
        }
    }

    /// The span that it tells; any, as a peer has it.
    pub fn span(&self) -> Span {
        Span::new(self.lo as usize, self.hi as usize)
    }
}
