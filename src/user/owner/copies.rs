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
type OnRun<'a> = dyn FnMut(&mut Owner, (usize, usize), bool) -> Sys<()> + 'a;

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
                self.untrack(x, x.lo, x.len);
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
            self.untrack(x, x.lo, x.len);
            x.tracked = false;
        }
        copied.is_ok()
    }

    /// Copies every page that holds something, and maps the copies at the stage.
    fn copy_to_stage(&mut self, x: &Exchange) -> Sys<()> {
        if x.backed() {
            return self.copy_run(x, x.lo, x.lo + x.len);
        }
        self.for_each_run(x.lo, x.lo + x.len, false, &mut |owner, (start, end), _| {
            owner.copy_run(x, start, end)
        })
    }

    fn copy_run(&mut self, x: &Exchange, lo: usize, hi: usize) -> Sys<()> {
        self.on_their_nodes(lo, hi - lo, &mut |owner, at, len| {
            owner.copy_pages(x.stage_of(at), at, len)
        })
    }

    /// Copies every page that holds something.
    fn copy_populated(&mut self, x: &Exchange) -> Sys<()> {
        if x.backed() {
            return self.write_near(x.lo, x.len, x.lo);
        }
        self.for_each_run(x.lo, x.lo + x.len, false, &mut |owner, (start, end), _| {
            owner.write_near(start, end - start, start)
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
    fn for_each_run(
        &mut self,
        lo: usize,
        hi: usize,
        checked: bool,
        body: &mut OnRun<'_>,
    ) -> Sys<()> {
        let mut at = lo;
        let mut runs = [Run::default(); 64];
        while at < hi {
            let (n, walked) = self.program.space.populated(at, hi, &mut runs, checked)?;
            for run in &runs[..n] {
                let range = (run.start as usize, run.end as usize);
                body(self, range, run.categories & WRITTEN != 0)?;
            }
            if walked <= at {
                return Err(Errno::EIO);
            }
            at = walked;
        }
        Ok(())
    }

    /// Makes the file hold what has been moved aside from `[at, at + n)`.
    pub fn bring_up_to_date(&mut self, x: &Exchange, at: usize, n: usize) -> Sys<()> {
        let from = x.aside_of(at);
        if x.backed() {
            return if x.tracked {
                // Done before the move.
                Ok(())
            } else {
                self.write_near(from, n, at)
            };
        }
        if x.copied && crate::testing::first_copies_count() {
            return Ok(());
        }
        let back = |addr: usize| at + (addr - from);
        let mut clean_from = from;
        self.for_each_run(from, from + n, false, &mut |owner, (start, end), _| {
            owner.bring_absent(x, back(clean_from), back(start))?;
            clean_from = end;
            owner.bring_run(x, back(start), back(end))
        })?;
        self.bring_absent(x, back(clean_from), at + n)
    }

    /// `[lo, hi)` had no pages: neither has the file.
    fn bring_absent(&mut self, x: &Exchange, lo: usize, hi: usize) -> Sys<()> {
        if lo < hi && x.copied && mem::next_data(self.memfd, lo, hi).is_some() {
            return mem::punch(self.memfd, lo, hi - lo);
        }
        Ok(())
    }

    /// Makes the file hold `[lo, hi)`, which has pages.
    fn bring_run(&mut self, x: &Exchange, lo: usize, hi: usize) -> Sys<()> {
        let mut at = lo;
        while at < hi {
            let data = mem::next_data(self.memfd, at, hi).unwrap_or(Span::new(hi, hi));
            let (start, end) = (data.start(), data.end());
            if at < start {
                self.write_near(x.aside_of(at), start - at, at)?;
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
        let (lo, hi) = (x.lo, x.lo + x.len);
        let mut clean_from = lo;
        let copy =
            |owner: &mut Self, from: usize, to: usize| owner.write_near(from, to - from, from);
        self.for_each_run(lo, hi, true, &mut |owner, (start, end), written| {
            // Absent pages read as what the other file holds.
            copy(owner, clean_from, start)?;
            clean_from = end;
            if written {
                copy(owner, start, end)?;
            }
            Ok(())
        })?;
        copy(self, clean_from, hi)
    }
}
