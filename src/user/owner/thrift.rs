// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps to a quarter of the mappings that the process may have.
//!
//! Each promoted range that stands alone takes two of them: its own, and the one
//! that it cuts in two. So beyond a quarter of what the kernel allows no range
//! comes to stand alone: what is promoted reaches to the next promoted range, and
//! where that is far away a gap elsewhere is filled first. Where nobody has
//! touched the memory in a gap yet that costs next to nothing.

#![forbid(unsafe_code)]

use super::Owner;
use crate::user::arena::ranges::{Origin, Range, CAPACITY};
use crate::user::arena::Shared;
use crate::user::protocol::limits::CHUNK_MAX;
use crate::user::sys::maps::{Mapping, Name};
use crate::user::sys::{task, Span, PAGE};

/// What the kernel allows where it does not say.
const USUAL: usize = 65_530;

/// Ranges that are left for what splits others.
const SPARE: usize = 64;

/// How many ranges are looked at for a gap behind them, and how many of those
/// gaps more closely.
const LOOKS: usize = 4096;
const CLOSE_LOOKS: usize = 16;

/// How many chunks at most are promoted to come near to another range: 4 GiB. As
/// many ranges as there may be are nowhere farther apart than twice that.
const STEPS: usize = 1024;

/// How many ranges may be promoted before the service is thrifty.
pub fn limit() -> usize {
    #[cfg(feature = "fault-injection")]
    if let Some(limit) = crate::environment::get(&crate::environment::TEST_RANGES) {
        return number(limit.to_bytes()).unwrap_or(CAPACITY / 2);
    }
    let mut text = [0u8; 32];
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let read = crate::fd::open(c"/proc/sys/vm/max_map_count", flags, 0)
        .map(|fd| task::read_text(fd.fd(), &mut text));
    let all = read.ok().and_then(|n| number(&text[..n])).unwrap_or(USUAL);
    (all / 4).saturating_sub(SPARE).min(CAPACITY / 2)
}

fn number(text: &[u8]) -> Option<usize> {
    core::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// How far below `addr` and above it the next promoted range is, if the mapping
/// reaches to it.
fn neighbours(shared: &Shared, mapping: &Mapping, addr: usize) -> (usize, usize) {
    let is_private =
        |page: Span| shared.promoted.first_in(page) == Some(Range::new(page, Origin::Private));
    let distance = |is_there: bool, far: usize| if is_there { far } else { usize::MAX };
    (
        distance(
            is_private(Span::new(mapping.start - PAGE, mapping.start)),
            addr - mapping.start,
        ),
        distance(is_private(Span::of(mapping.end, PAGE)), mapping.end - addr),
    )
}

impl Owner {
    /// What to promote for the sake of `addr`, instead of `part` of the private
    /// `mapping`.
    pub fn be_thrifty(
        &mut self,
        shared: &Shared,
        mapping: &Mapping,
        addr: usize,
        part: Span,
    ) -> Span {
        // A single page is what is left where its neighbours cannot be promoted.
        if shared.promoted.len() < self.thrifty_from || part.len() == PAGE {
            return part;
        }
        let (mut down, mut up) = neighbours(shared, mapping, addr);
        let mut mapping = *mapping;
        if down.min(up) > CHUNK_MAX {
            if down.min(up) == usize::MAX {
                return self.part_of_its_own(shared, &mapping, addr, part);
            }
            if self.fill_a_gap(shared) {
                return part;
            }
            self.draw_near(shared, addr, down <= up);
            match self.program.space.at(addr) {
                Ok(Some(now)) if !now.shared => mapping = now,
                _ => return part,
            }
            (down, up) = neighbours(shared, &mapping, addr);
        }
        let (mut from, mut to) = (part.start(), part.end());
        if down.min(up) > CHUNK_MAX {
            return part;
        }
        if down <= up || down <= CHUNK_MAX / 16 {
            from = mapping.start;
        }
        if up < down || up <= CHUNK_MAX / 16 {
            to = mapping.end;
        }
        self.without_own_memory(addr, Span::new(from, to))
            .unwrap_or(part)
    }

    /// What to promote of a mapping without a neighbour: all of it takes no mapping
    /// more, and a part at its edge one instead of two.
    fn part_of_its_own(&mut self, shared: &Shared, m: &Mapping, addr: usize, part: Span) -> Span {
        let better = if m.end - m.start <= CHUNK_MAX {
            m.span()
        } else if self.fill_a_gap(shared) {
            part
        } else if addr - m.start < CHUNK_MAX {
            Span::new(m.start, part.end())
        } else if m.end - addr <= CHUNK_MAX {
            Span::new(part.start(), m.end)
        } else {
            part
        };
        self.without_own_memory(addr, better).unwrap_or(part)
    }

    /// Has the promoted range below `addr`, or above it, grow until it is near.
    fn draw_near(&mut self, shared: &Shared, addr: usize, below: bool) {
        for _ in 0..STEPS {
            let Some(m) = self
                .program
                .space
                .at(addr)
                .ok()
                .flatten()
                .filter(|m| !m.shared)
            else {
                return;
            };
            let (part, left) = if below {
                (Span::of(m.start, CHUNK_MAX), addr - m.start)
            } else {
                (Span::new(m.end - CHUNK_MAX, m.end), m.end - addr)
            };
            if left <= CHUNK_MAX {
                return;
            }
            let fits = self.without_own_memory(part.start(), part) == Ok(part);
            let done = |s: &mut Self| s.promote(shared, &m, part.start(), part, Origin::Private);
            if !fits || done(self) != Ok(part) {
                return;
            }
        }
    }

    /// Makes one range of two, somewhere; whether there was a gap to fill.
    fn fill_a_gap(&mut self, shared: &Shared) -> bool {
        let mut close_looks = 0;
        for _ in 0..LOOKS.min(shared.promoted.len()) {
            let at = self.gap_looked_at;
            self.gap_looked_at += 1;
            let (Some(range), Some(next)) = (shared.promoted.get(at), shared.promoted.get(at + 1))
            else {
                self.gap_looked_at = 0;
                continue;
            };
            let gap = next.start - range.end;
            let kinds = (range.origin, next.origin);
            if gap == 0 || gap > CHUNK_MAX || kinds != (Origin::Private, Origin::Private) {
                continue;
            }
            let whole = |m: &Mapping| (m.start, m.end) == (range.end, next.start);
            let found = self
                .program
                .space
                .at(range.end)
                .ok()
                .flatten()
                .filter(whole);
            let plain = |m: &Mapping| !m.shared && m.read && m.name == Name::Plain;
            if let Some(m) = found.filter(plain) {
                let fits = self.without_own_memory(m.start, m.span()) == Ok(m.span());
                let done = |s: &mut Self| s.promote(shared, &m, m.start, m.span(), Origin::Private);
                if fits && done(self).is_ok() {
                    return true;
                }
            }
            close_looks += 1;
            if close_looks == CLOSE_LOOKS {
                break;
            }
        }
        false
    }
}
