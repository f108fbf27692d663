// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two copies of an exchange: one while the program runs, which takes the
//! time, and one of what has been moved aside, which counts.

#![forbid(unsafe_code)]

use super::exchange::Exchange;
use super::Owner;
use crate::errno::Errno;
use crate::user::sys::space::{Run, WRITTEN};
use crate::user::sys::{held, insist, mem, uffd, Span, Sys, PAGE};

/// Up to this size the second copy of a file's mapping is a copy of all of it;
/// beyond, of what the kernel has seen to be written.
const SECOND_COPY: usize = 4 << 20;

/// What is done with a run of pages, and whether they have been written to.
type OnRun<'a> = dyn FnMut(&mut Owner, Span, bool) -> Sys<()> + 'a;

impl Owner {
    /// Copies what the memory holds into the file, and maps it at the stage, while
    /// the program goes on. Whether that was done.
    pub fn copy_while_running(&mut self, x: &mut Exchange) -> bool {
        if !self.may_precopy() {
            return false;
        }
        if x.backed() && x.len > SECOND_COPY {
            x.tracked = uffd::register(self.precopy, x.lo, x.len, uffd::MODE_WP).is_ok();
            if !x.tracked || uffd::write_protect(self.precopy, x.lo, x.len).is_err() {
                self.untrack(x, x.span());
                x.tracked = false;
                return false;
            }
        }
        let mapped = uffd::register(self.precopy, x.stage, x.len, uffd::MODE_MISSING);
        let copied = mapped.and_then(|()| self.copy_to_stage(x));
        if mapped.is_ok() {
            // Else the service's own touch of it would wait for itself.
            if insist(|| uffd::unregister(self.precopy, x.stage, x.len)).is_err() {
                return false;
            }
        }
        // The mapping may have changed while it was copied. Then the whole copy is made
        // by the other way, whose answer says that.
        let copied = copied.or_else(|_| {
            self.copy_populated(x)?;
            // The owner's first touch after the stop need not fault.
            let _ = self.map_copied_pages(x);
            Ok::<(), Errno>(())
        });
        if copied.is_err() && x.tracked {
            self.untrack(x, x.span());
            x.tracked = false;
        }
        copied.is_ok()
    }

    /// Copies every page that holds something, and maps the copies at the stage.
    fn copy_to_stage(&mut self, x: &Exchange) -> Sys<()> {
        if x.backed() {
            return self.copy_run(x, x.span());
        }
        self.for_each_run(x.span(), false, &mut |owner, run, _| owner.copy_run(x, run))
    }

    fn copy_run(&mut self, x: &Exchange, run: Span) -> Sys<()> {
        self.on_their_nodes(run, &mut |owner, part| {
            owner.copy_pages(x.stage_of(part.start()), part.start(), part.len())
        })
    }

    /// Copies every page that holds something.
    fn copy_populated(&mut self, x: &Exchange) -> Sys<()> {
        if x.backed() {
            return self.write_near(x.span(), x.lo);
        }
        self.for_each_run(x.span(), false, &mut |owner, run, _| {
            owner.write_near(run, run.start())
        })
    }

    fn map_copied_pages(&self, x: &Exchange) -> Sys<()> {
        const MADV_POPULATE_WRITE: i32 = 23;
        let mut at = x.lo;
        while let Some(data) = mem::next_data(self.memfd, at, x.lo + x.len) {
            held::advise(x.stage_of(data.start()), data.len(), MADV_POPULATE_WRITE)?;
            at = data.end();
        }
        Ok(())
    }

    /// Calls `body` for every populated run, and with `written` told.
    fn for_each_run(&mut self, span: Span, checked: bool, body: &mut OnRun<'_>) -> Sys<()> {
        let mut rest = span;
        let mut runs = [Run::default(); 64];
        while !rest.is_empty() {
            let (n, walked) = self.program.space.populated(rest, &mut runs, checked)?;
            for run in &runs[..n] {
                let part = Span::new(run.start as usize, run.end as usize);
                body(self, part, run.categories & WRITTEN != 0)?;
            }
            if walked <= rest.start() {
                return Err(Errno::EIO);
            }
            rest = span.from(walked);
        }
        Ok(())
    }

    /// Makes the file hold what has been moved aside from `piece`.
    pub fn bring_up_to_date(&mut self, x: &Exchange, piece: Span) -> Sys<()> {
        let from = Span::of(x.aside_of(piece.start()), piece.len());
        if x.backed() {
            return if x.tracked {
                // Done before the move.
                Ok(())
            } else {
                self.write_near(from, piece.start())
            };
        }
        if x.copied && crate::testing::first_copies_count() {
            return Ok(());
        }
        let back = |addr: usize| piece.start() + (addr - from.start());
        let mut clean_from = piece.start();
        self.for_each_run(from, false, &mut |owner, run, _| {
            let run = Span::new(back(run.start()), back(run.end()));
            owner.bring_absent(x, Span::new(clean_from, run.start()))?;
            clean_from = run.end();
            owner.bring_run(x, run)
        })?;
        self.bring_absent(x, piece.from(clean_from))
    }

    /// `span` had no pages: neither has the file.
    fn bring_absent(&mut self, x: &Exchange, span: Span) -> Sys<()> {
        if !span.is_empty()
            && x.copied
            && mem::next_data(self.memfd, span.start(), span.end()).is_some()
        {
            return mem::punch(self.memfd, span.start(), span.len());
        }
        Ok(())
    }

    /// Makes the file hold `run`, which has pages.
    fn bring_run(&mut self, x: &Exchange, run: Span) -> Sys<()> {
        let (mut at, hi) = (run.start(), run.end());
        while at < hi {
            let data = if x.data.contains(at) {
                x.data.cut_to(run)
            } else {
                mem::next_data(self.memfd, at, hi).unwrap_or(Span::new(hi, hi))
            };
            let (start, end) = (data.start().max(at), data.end());
            if at < start {
                self.write_near(Span::of(x.aside_of(at), start - at), at)?;
            }
            for page in (start..end).step_by(PAGE) {
                let (from, to) = (x.aside_of(page), x.stage_of(page));
                if held::same_page(from, to) {
                } else if x.mapping.write {
                    held::copy_page(from, to)?;
                } else {
                    mem::write_from(self.memfd, from, PAGE, page)?;
                }
            }
            at = end;
        }
        Ok(())
    }

    /// Copies what was written since the first copy of a file's mapping. EPERM:
    /// the range is not what it was.
    pub fn copy_changed(&mut self, x: &Exchange) -> Sys<()> {
        let all = x.span();
        let mut clean_from = all.start();
        let copy = |owner: &mut Self, part: Span| owner.write_near(part, part.start());
        self.for_each_run(all, true, &mut |owner, run, written| {
            // Absent pages read as what the other file holds.
            copy(owner, Span::new(clean_from, run.start()))?;
            clean_from = run.end();
            if written {
                copy(owner, run)?;
            }
            Ok(())
        })?;
        copy(self, all.from(clean_from))
    }
}
