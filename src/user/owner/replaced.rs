// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an exchange leaves behind: the memory that was replaced, and where the
//! file's pages were made ready.

#![forbid(unsafe_code)]

use super::exchange::Exchange;
use super::Owner;
use crate::user::program::threads::Standing;
use crate::user::sys::{held, Span};

impl Owner {
    /// With all threads standing: no hole may remain in the service's own range.
    pub fn clear_away(&mut self, _: &Standing, x: &mut Exchange) {
        if self.program.scratch.close(Span::of(x.stage, x.len)) {
            x.stage = 0;
        } else if x.done > 0 {
            // What has been moved away has left a hole of the program's.
            let _ = held::unmap(x.stage + x.done, x.len - x.done);
            x.stage = 0;
        }
        if x.aside == 0 {
            return;
        }
        if x.done > 0 {
            // Freeing pages takes time: neither while the program stands nor
            // before the peer has its answer.
            self.trash = Span::of(x.aside, x.len);
        } else if x.moved {
            // It has been moved back, and has left a hole.
            self.program.scratch.close(Span::of(x.aside, x.len));
        } else {
            self.program.scratch.unmap(Span::of(x.aside, x.len));
        }
    }

    /// Frees the pages that the last promotion has replaced.
    pub fn empty_trash(&mut self) {
        let trash = core::mem::take(&mut self.trash);
        if !trash.is_empty() {
            self.program.scratch.unmap(trash);
        }
    }
}
