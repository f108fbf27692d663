// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory on pages of a size of its own, of which an attacher maps whole ones only.

#![forbid(unsafe_code)]

use super::Owner;
use crate::user::sys::{Span, PAGE};

/// How many mappings of a range are looked at for the size of their pages, besides the
/// last.
const LOOKS: usize = 8;

impl Owner {
    /// `span` with all of the pages at its ends, and the size of the largest that was
    /// seen in it.
    pub fn whole_pages(&self, span: Span) -> (Span, usize) {
        let (lo, hi) = (span.start(), span.end());
        let (mut start, mut end, mut largest) = (lo, hi, PAGE);
        let mut at = lo;
        for _ in 0..LOOKS {
            let Ok(Some(m)) = self.program.space.find(at) else {
                break;
            };
            if m.start >= hi {
                break;
            }
            let page = self.program.space.page_size(&m);
            largest = largest.max(page);
            if m.start <= lo {
                start = lo & !(page - 1);
            }
            at = m.end;
        }
        if let Ok(Some(m)) = self.program.space.at(hi - PAGE) {
            let page = self.program.space.page_size(&m);
            largest = largest.max(page);
            end = hi.next_multiple_of(page);
        }
        (Span::new(start, end), largest)
    }
}
