// SPDX-License-Identifier: MIT OR Apache-2.0
//! Gives a stopped fork child private copies of what is promoted.
//!
//! The program stands meanwhile, and most of a copy's time goes into fresh pages.
//! They come through a userfaultfd of the child's, two threads copying, which takes
//! a third of the time of a write to another process; but where the kernel would give
//! the child huge pages by itself, it is to have them.
//!
//! It goes part by part, since it can take seconds: between two of them peers are heard,
//! who would take a service that says nothing for one that stands.

#![forbid(unsafe_code)]

use super::child::Child;
use super::revoke::{PRIVATE, RW};
use super::Owner;
use crate::debug_log;
use crate::errno::Errno;
use crate::fd::Fd;
use crate::user::arena::ranges::{Origin, Range};
use crate::user::arena::Shared;
use crate::user::sys::advice::{advice_for, Bits, ABSENT, HUGE, NOT_HUGE, WIPED};
use crate::user::sys::hugetlb::Transparent;
use crate::user::sys::maps::Mapping;
use crate::user::sys::{held, insist, mem, uffd, Span, Sys, HUGE as HUGE_PAGE, TOP};

/// What is shorter is written to the child, which is not asked for a userfaultfd.
const WORTH_WATCHING: usize = 256 << 10;

/// How much is given at a time.
const PART: usize = 64 << 20;

/// A standing child that is being given private copies.
pub struct Heir {
    child: Child,
    /// It has what lies below.
    at: usize,
}

impl Heir {
    /// Ready to be given copies; `None` where children have what their parent has.
    pub fn of(child: i32) -> Sys<Option<Self>> {
        if crate::testing::children_inherit() {
            return Ok(None);
        }
        let child = Child::of(child)?;
        Ok(Some(Self { child, at: 0 }))
    }

    /// It has all, or lacks something and is not to run.
    pub fn release(self) -> Sys<()> {
        self.child.restore()
    }
}

impl Owner {
    /// Gives a child its next part; whether there was one.
    pub fn give_part(&mut self, shared: &Shared, heir: &mut Heir) -> Sys<bool> {
        while let Some(r) = shared.promoted.first_in(Span::new(heir.at, TOP)) {
            if r.origin != Origin::Private {
                heir.at = r.end;
                continue;
            }
            let end = r.end.min((r.start & !(PART - 1)).saturating_add(PART));
            let part = Range { end, ..r };
            heir.at = end;
            self.for_each_setting(part, &mut |owner, part, bits| {
                owner.privatize_range(&mut heir.child, part, bits)
            })?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Says of `span` whether children inherit it. They cannot have what is sealed,
    /// since nothing could take its place there: they are given a copy where they have
    /// nothing.
    pub fn advise_for_children(&self, span: Span, advice: i32) -> Sys<()> {
        let mut rest = span;
        while !rest.is_empty() {
            let sealed = if advice == libc::MADV_DOFORK {
                self.program.space.first_sealed(rest)?
            } else {
                None
            };
            let sealed = sealed.unwrap_or(Span::new(span.end(), span.end()));
            let open = Span::new(rest.start(), sealed.start());
            if !open.is_empty() {
                let _ = held::advise(open.start(), open.len(), advice);
            }
            rest = span.from(sealed.end());
        }
        Ok(())
    }

    fn privatize_range(&mut self, child: &mut Child, span: Span, bits: Bits) -> Sys<()> {
        if bits & ABSENT != 0 {
            return Ok(());
        }
        let mut lo = span.start();
        while lo < span.end() {
            let Some(m) = self.program.space.at(lo)? else {
                return Err(Errno::EFAULT);
            };
            let hi = m.end.min(span.end());
            let flags = PRIVATE | libc::MAP_FIXED;
            let map = [lo, hi - lo, RW as usize, flags as usize, usize::MAX, 0];
            child.call(libc::SYS_mmap, map)?;
            for advice in advice_for(bits) {
                let advise = [lo, hi - lo, advice as usize, 0, 0, 0];
                child.call(libc::SYS_madvise, advise)?;
            }
            if bits & WIPED == 0 {
                let mut at = lo;
                while let Some(data) = mem::next_data(self.memfd, at, hi) {
                    self.copy_to_child(child, &m, data, bits)?;
                    at = data.end();
                }
            }
            if m.prot() != RW {
                let protect = [lo, hi - lo, m.prot() as usize, 0, 0, 0];
                child.call(libc::SYS_mprotect, protect)?;
            }
            lo = hi;
        }
        Ok(())
    }

    /// Gives the child its copy of `data`, a part of `m`.
    fn copy_to_child(&self, child: &mut Child, m: &Mapping, data: Span, bits: Bits) -> Sys<()> {
        let (start, len) = (data.start(), data.len());
        let in_place = self.is_own(m) && m.offset == m.start && m.read;
        if len >= WORTH_WATCHING && in_place && !gets_huge_pages(data, bits) {
            match child.watch().map(|watch| self.copy_watched(watch, data)) {
                Some(Ok(())) => return Ok(()),
                Some(Err(errno)) => debug_log!("{start:#x} is written to a child: errno {errno}"),
                None => {}
            }
        }
        mem::copy_file_to_process(self.memfd, child.pid(), start, len)
    }

    /// Gives a standing child pages where it has none, through its userfaultfd.
    fn copy_watched(&self, watch: Fd, data: Span) -> Sys<()> {
        let (start, len) = (data.start(), data.len());
        uffd::register(watch, start, len, uffd::MODE_MISSING)?;
        let done = self.copy_pages_by(watch, start, start, len);
        insist(|| uffd::unregister(watch, start, len))?;
        done
    }
}

/// Whether the kernel gives fresh memory there huge pages by itself.
fn gets_huge_pages(data: Span, bits: Bits) -> bool {
    if bits & NOT_HUGE != 0 || data.len() < 2 * HUGE_PAGE {
        return false;
    }
    match Transparent::of_machine() {
        Transparent::Always => true,
        Transparent::Advised => bits & HUGE != 0,
        Transparent::Never => false,
    }
}
