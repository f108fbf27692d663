// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads that wait for pages of attached memory.

#![forbid(unsafe_code)]

use super::Attacher;
use crate::user::program::Program;
use crate::user::sys::{Span, PAGE};

impl Attacher {
    /// Whether the permit of an attached page allows writing.
    pub fn may_write(&self, program: &Program, page: usize) -> bool {
        let piece = program.attachments.at(page);
        piece.is_some_and(|piece| self.permits.get(piece.permit).writable)
    }

    /// Wakes who waits for a page, which is touched again then.
    pub fn fault_again(&mut self, program: &Program, page: usize) {
        self.faulting.forget(Span::of(page, PAGE));
        program.touches().wake(Span::of(page, PAGE));
    }

    /// An owner is gone: threads that wait for its pages fault again, and get
    /// SIGBUS.
    pub fn wake_attachments_of(&mut self, program: &Program, i: usize) {
        for k in 0..program.attachments.len() {
            let Some(p) = program.attachments.get(k) else {
                break;
            };
            if self.permits.get(p.permit).connection == i {
                program.touches().wake(p.span());
            }
        }
        // The program may have unmapped what a thread waits for.
        while let Some(page) = self.faulting.page_asked_on(i) {
            self.fault_again(program, page);
        }
    }
}
