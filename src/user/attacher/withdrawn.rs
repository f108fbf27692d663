// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unmaps from attachments what their owner takes back; the attachments stay.

#![forbid(unsafe_code)]

use super::overlay::FIXED;
use super::{Attacher, OwnersFile, Piece, GATED};
use crate::debug_log;
use crate::user::program::Program;
use crate::user::sys::space::{Run, Space};
use crate::user::sys::{held, page_down, page_up, Span, Sys, TOP};

/// Unmaps the pages of an attachment, which stays what it is.
pub fn drop_pages(program: &Program, part: Piece) -> bool {
    let mut done = true;
    program.for_mapped_parts(part, &mut |_, mapped| {
        let start = mapped.start();
        if let Err(errno) = held::drop_pages(start, mapped.len()) {
            debug_log!("pages at {start:#x} cannot be given back: errno {errno}");
            done = false;
        }
    });
    done
}

impl Attacher {
    /// Puts the owner's memfd back in the place of a file of its.
    pub fn uncover(&self, program: &mut Program, p: Piece, file: &OwnersFile) -> bool {
        let mut done = true;
        program.for_mapped_parts(p, &mut |program, mapped| {
            let part = Piece {
                end: mapped.end(),
                ..p.from(mapped.start())
            };
            if let Err(errno) = self.put_back(program, part, file) {
                debug_log!("an attachment is lost: errno {errno}");
                done = false;
            }
        });
        program.attachments.insert(Piece {
            overlay: false,
            identity: file.identity,
            offset: p.source,
            ..p
        });
        done
    }

    /// Maps the owner's memfd into a part of an attachment.
    pub fn put_back(&self, program: &Program, part: Piece, file: &OwnersFile) -> Sys<()> {
        let (start, len) = (part.start, part.end - part.start);
        let write = self.permits.get(part.permit).writable;
        let prot = libc::PROT_READ | if write { libc::PROT_WRITE } else { 0 };
        program.unwatch(part.span())?;
        held::map(start, len, libc::PROT_NONE, FIXED, file.memfd, part.source)?;
        program.touches().watch(part.span(), GATED)?;
        held::advise(start, len, libc::MADV_DONTFORK)?;
        held::protect(start, len, prot)
    }
}

impl Piece {
    /// The owner's address of `addr`.
    pub fn source_of(&self, addr: usize) -> usize {
        self.source + (addr - self.start)
    }

    /// The part of the piece that shows the owner's `span`.
    pub fn cut_to(&self, span: Span) -> Option<Self> {
        let pages = Span::new(page_down(span.start()), page_up(span.end().min(TOP)));
        let part = pages.cut_to(Span::of(self.source, self.span().len()));
        (!part.is_empty()).then(|| Piece {
            end: self.start + (part.end() - self.source),
            ..self.from(self.start + (part.start() - self.source))
        })
    }

    /// Whether anything may be in sight of the program there. Pages come into
    /// attachments by the service alone.
    pub fn is_seen(&self, space: &Space) -> bool {
        let mut runs = [Run::default(); 1];
        self.overlay
            || !space.has_scan()
            || space
                .populated(self.span(), &mut runs, false)
                .map_or(true, |(found, walked)| found > 0 || walked < self.end)
    }
}
