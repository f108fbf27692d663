// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segments: ranges of this process that may be attached, and by whom.

#![forbid(unsafe_code)]

use crate::errno::Errno;
use crate::user::protocol::ids::{Id, Kind, SLOTS as IDS};
use crate::user::protocol::message::Denial;
use crate::user::sys::{Span, Sys, TOP};

/// One segment of this process. All zero is a free one.
#[derive(Clone, Copy)]
struct Segment {
    used: bool,
    generation: u32,
    span: Span,
    mode: u32,
}

/// The segments of this process. All zero is none.
pub struct Segments {
    /// Name of this process in their ids.
    token: u64,
    next: usize,
    segments: [Segment; IDS],
}

impl Segments {
    /// Gives this process its name.
    pub fn set_token(&mut self, token: u64) {
        self.token = token;
    }

    /// Exports what of `span` there can be; the arguments have been checked.
    pub fn make(&mut self, span: Span, mode: u32) -> Sys<u64> {
        let slot = (0..IDS)
            .map(|k| (self.next + k) % IDS)
            .find(|&i| !self.segments[i].used)
            .ok_or(Errno::ENOMEM)?;
        self.next = slot + 1;
        let s = &mut self.segments[slot];
        s.used = true;
        s.generation = Id::next_generation(s.generation);
        let below_top = Span::new(span.start(), TOP);
        (s.span, s.mode) = (span.cut_to(below_top), mode);
        let (token, generation) = (self.token, s.generation);
        Ok(Id {
            token,
            kind: Kind::Segment,
            slot,
            generation,
        }
        .encode() as u64)
    }

    /// Whether an id is one of this process.
    pub fn issued(&self, id: i64) -> bool {
        Id::decode(id).is_some_and(|id| id.token == self.token)
    }

    /// The slot of a live segment.
    fn find(&self, id: i64) -> Option<usize> {
        let id = Id::decode(id).filter(|id| id.token == self.token && id.kind == Kind::Segment)?;
        let s = &self.segments[id.slot];
        (s.used && s.generation == id.generation).then_some(id.slot)
    }

    /// The range of a live segment.
    pub fn range_of(&self, id: i64) -> Option<Span> {
        Some(self.segments[self.find(id)?].span)
    }

    /// Ends a live segment; answers its range.
    pub fn withdraw(&mut self, id: i64) -> Option<Span> {
        let s = self.find(id)?;
        let s = &mut self.segments[s];
        s.used = false;
        Some(s.span)
    }

    /// The lowest part of `span` that is exported.
    pub fn first_in(&self, span: Span) -> Option<Span> {
        let used = self.segments.iter().filter(|s| s.used);
        let parts = used.map(|s| s.span.cut_to(span));
        parts.filter(|part| !part.is_empty()).min()
    }

    /// May an attacher have the segment? Its range, if so. `uid` is the program's.
    pub fn admit(&self, segid: i64, writable: bool, uid: u32) -> Result<Span, Denial> {
        let s = &self.segments[self.find(segid).ok_or(Denial::Gone)?];
        let wanted = if writable { 0o600 } else { 0o400 };
        // Root passes, as CAP_IPC_OWNER does with the module.
        if s.mode & wanted == wanted || uid == 0 {
            Ok(s.span)
        } else {
            Err(Denial::Denied)
        }
    }
}
