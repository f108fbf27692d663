// SPDX-License-Identifier: MIT OR Apache-2.0
//! Promotion: the program's own memory becomes pages of its memfd, in place.
//!
//! The content is copied into the file while the program runs, with writes
//! told afterwards by asynchronous write protection; then all threads stand
//! still, what was written meanwhile is copied again, and a mapping of the file
//! takes the place of the old memory. The program's pointers stay valid; from
//! then on owner and attachers touch the same pages.

use super::ranges::{Origin, Range};
use super::scratch::Place;
use super::service::Service;
use super::shared::Shared;
use super::stop::Unstoppable;
use super::sys::maps::{self, Mapping, Name, Run, WRITTEN};
use super::sys::{arena, mem, uffd, Sys, BOTTOM, PAGE, TOP};
use crate::debug::{count, COUNTERS};
use crate::debug_log;
use core::sync::atomic::Ordering;

/// Why memory is not shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Nothing is mapped there, or nobody may touch it.
    Hole,
    /// The segment is no more.
    Gone,
    /// Not now; try again.
    Later,
    /// A device, the kernel's own pages, or this library's.
    Special,
    /// Pages of another size.
    HugePages,
    /// A shared mapping that cannot be moved.
    SharedFile,
    /// A shared anonymous mapping that another process may have mapped too.
    Relatives,
    /// The lowest pages of the main stack.
    StackBottom,
    /// Somebody else traces the program.
    Traced,
    /// A device writes to a page of it.
    Pinned,
    /// The kernel said no.
    Os(i32),
}

impl Refusal {
    /// Of an error that means that the program has just changed what is mapped.
    pub fn of_changed(errno: i32) -> Self {
        match errno {
            libc::ENOMEM | libc::EFAULT | libc::EINVAL | libc::EAGAIN => Refusal::Later,
            errno => Refusal::Os(errno),
        }
    }
}

impl From<Unstoppable> for Refusal {
    fn from(why: Unstoppable) -> Self {
        match why {
            Unstoppable::Busy => Refusal::Later,
            Unstoppable::Forbidden => Refusal::Traced,
            Unstoppable::Ended => Refusal::Gone,
        }
    }
}

/// Pages that stay below what is promoted of the main stack, so that it can
/// go on growing.
const STACK_RESERVE: usize = 64 * PAGE;

/// Most bytes that are copied while all threads stand.
const STANDING_CHUNK: usize = 256 * 1024;

/// How much of a shared anonymous mapping is promoted at its first touch.
const SHARED_AT_ONCE: usize = 64 << 20;

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const FILE_MAP: i32 = libc::MAP_SHARED | libc::MAP_NORESERVE;

impl Service {
    /// Makes the page at `addr` sharable, and what lies around it in a block
    /// of `block` bytes, within `[lo, hi)`. Answers what is sharable now.
    pub fn share_chunk(
        &mut self,
        shared: &Shared,
        addr: usize,
        lo: usize,
        hi: usize,
        block: usize,
    ) -> Result<(usize, usize), Refusal> {
        let mapping = self.mapping_at(addr)?;
        let block = if self.may_precopy() {
            block
        } else {
            block.min(STANDING_CHUNK)
        };
        let lo = lo.max(mapping.start).max(addr & !(block - 1)).max(BOTTOM);
        let hi = hi
            .min(mapping.end)
            .min((addr & !(block - 1)).saturating_add(block))
            .min(TOP);
        if !mapping.read || addr < lo {
            return Err(Refusal::Hole);
        }
        if self.is_own(&mapping) {
            return self.populate(shared, &mapping, lo, hi);
        }
        if mapping.huge {
            return Err(Refusal::HugePages);
        }
        let (lo, hi) = self.without_own_memory(addr, lo, hi)?;
        match (mapping.name, mapping.shared) {
            (Name::Special | Name::Device, _) => Err(Refusal::Special),
            (Name::SharedAnonymous, true) => {
                if self.may_have_relatives(&mapping) {
                    return Err(Refusal::Relatives);
                }
                if self.abilities.precopy && !self.may_precopy() && self.await_acknowledgements() {
                    // So much is not copied while all threads stand, if it can be
                    // helped.
                    return Err(Refusal::Later);
                }
                // All of it, as long as no fork has made it common: what is
                // left out could be refused later on. Holes cost nothing.
                let block = addr & !(SHARED_AT_ONCE - 1);
                let all = mapping.start.max(block).max(BOTTOM);
                let end = mapping.end.min(block + SHARED_AT_ONCE).min(TOP);
                let (all, end) = self.without_own_memory(addr, all, end)?;
                self.promote(shared, &mapping, all, end, Origin::Shared)?;
                Ok((lo, hi))
            }
            (_, true) => Err(Refusal::SharedFile),
            (_, false) if self.grows(&mapping) => {
                let (mapping, lo) = self.room_below_stack(mapping, addr, lo)?;
                self.promote(shared, &mapping, lo, hi, Origin::Private)
            }
            (_, false) => self.promote(shared, &mapping, lo, hi, Origin::Private),
        }
    }

    fn mapping_at(&self, addr: usize) -> Result<Mapping, Refusal> {
        match self.space.at(addr) {
            Ok(Some(mapping)) => Ok(mapping),
            Ok(None) => Err(Refusal::Hole),
            Err(errno) => Err(Refusal::Os(errno)),
        }
    }

    /// Whether a mapping is of this process's own memfd.
    pub fn is_own(&self, m: &Mapping) -> bool {
        m.shared && (m.device, m.inode) == self.memfd_identity
    }

    /// Gives promoted memory pages where it has none.
    fn populate(
        &mut self,
        shared: &Shared,
        m: &Mapping,
        lo: usize,
        hi: usize,
    ) -> Result<(usize, usize), Refusal> {
        if m.offset != m.start {
            // The program has moved it; the event is on its way.
            return Err(Refusal::Later);
        }
        if shared.promoted.first_in(hi - PAGE, hi).is_none() {
            self.note_growth();
        }
        mem::populate(lo, hi - lo).map_err(Refusal::of_changed)?;
        Ok((lo, hi))
    }

    /// Cuts what must never be promoted out of `[lo, hi)`.
    fn without_own_memory(
        &self,
        addr: usize,
        lo: usize,
        hi: usize,
    ) -> Result<(usize, usize), Refusal> {
        let page = crate::process::wiped_page();
        let thunks = super::hooks::PAGE.load(Ordering::Acquire);
        let (mut lo, mut hi) = (lo, hi);
        for (start, end) in [
            arena::range::<Shared>(),
            self.scratch.range(),
            (page, page + crate::process::WIPED_PAGE_SIZE),
            (thunks, thunks + PAGE),
        ] {
            if addr >= start && addr < end {
                return Err(Refusal::Special);
            }
            if end > lo && end <= addr {
                lo = end;
            }
            if start > addr && start < hi {
                hi = start;
            }
        }
        Ok((lo, hi))
    }

    /// Whether a private mapping is the lowest part of the main stack, the
    /// one that grows. What is promoted of the stack cuts it in pieces.
    fn grows(&self, mapping: &Mapping) -> bool {
        // No stack is larger, and no walk through other memory is worth it.
        const LARGEST: usize = 16 << 30;
        if mapping.start > self.stack_begin || self.stack_begin - mapping.start > LARGEST {
            return false;
        }
        let mut piece = *mapping;
        while !(piece.start..piece.end).contains(&self.stack_begin) {
            match self.space.at(piece.end) {
                Ok(Some(above)) if self.is_own(&above) || above.inode == 0 => piece = above,
                _ => return false,
            }
        }
        !matches!(self.space.at(mapping.start - PAGE), Ok(Some(below)) if self.is_own(&below))
    }

    /// Sees to it that the stack can go on growing below what is promoted.
    /// `mapping` is its lowest part.
    fn room_below_stack(
        &self,
        mapping: Mapping,
        addr: usize,
        lo: usize,
    ) -> Result<(Mapping, usize), Refusal> {
        let mut mapping = mapping;
        if addr < mapping.start + STACK_RESERVE {
            // A touch below the stack makes it grow, as a push would.
            let _ = mem::touch(mapping.start - STACK_RESERVE);
            mapping = self.mapping_at(addr)?;
        }
        let floor = mapping.start + STACK_RESERVE;
        if addr < floor {
            return Err(Refusal::StackBottom);
        }
        Ok((mapping, lo.max(floor)))
    }

    /// Promotes `[lo, hi)`, a part of `mapping`.
    fn promote(
        &mut self,
        shared: &Shared,
        mapping: &Mapping,
        lo: usize,
        hi: usize,
        origin: Origin,
    ) -> Result<(usize, usize), Refusal> {
        if !shared.promoted.has_room() {
            return Err(Refusal::Os(libc::ENOMEM));
        }
        if shared.promoted.first_in(lo, hi).is_some() {
            // Something else stood here and was promoted; what became of it, the
            // events are about to tell. If it was moved its content is needed.
            self.on_events();
            return Err(Refusal::Later);
        }
        if self.pause.left() > 0 {
            return Err(Refusal::Later);
        }
        let len = hi - lo;
        // Nothing older may show through where the memory has no pages.
        mem::punch(self.memfd, lo, len).map_err(Refusal::Os)?;
        self.empty_trash();
        let mut stage = self
            .scratch
            .map(Place::Stage, len, RW, FILE_MAP, self.memfd, lo)
            .map_err(Refusal::Os)?;
        let done = self.copy_and_replace(shared, mapping, lo, hi, &mut stage, origin);
        if let Err(why) = done {
            if stage != 0 {
                self.scratch.unmap(stage, len);
            }
            let _ = mem::punch(self.memfd, lo, len);
            return Err(why);
        }
        count(&COUNTERS.promotions);
        COUNTERS
            .bytes_promoted
            .fetch_add(len as u64, Ordering::Relaxed);
        Ok((lo, hi))
    }

    fn copy_and_replace(
        &mut self,
        shared: &Shared,
        mapping: &Mapping,
        lo: usize,
        hi: usize,
        stage: &mut usize,
        origin: Origin,
    ) -> Result<(), Refusal> {
        let len = hi - lo;
        if origin == Origin::Private {
            mem::advise(*stage, len, libc::MADV_DONTFORK).map_err(Refusal::Os)?;
        }
        let precopied = self.copy_while_running(mapping, lo, hi, *stage);
        if mapping.prot() != RW {
            mem::protect(*stage, len, mapping.prot()).map_err(Refusal::Os)?;
        }
        let give_up = |service: &Self| {
            if precopied {
                let _ = uffd::unregister(service.precopy, lo, len);
            }
        };
        if let Err(why) = self.stop() {
            if why == Unstoppable::Busy {
                self.pause.begin();
            }
            give_up(self);
            return Err(why.into());
        }
        self.pause.end();
        let mut trash = 0;
        let done = self.replace(
            shared, mapping, lo, hi, stage, origin, precopied, &mut trash,
        );
        if done.is_err() {
            give_up(self);
        }
        self.resume();
        if trash != 0 {
            // Freeing pages takes time: neither while the program stands nor
            // before the peer has its answer.
            self.trash = (trash, len);
        }
        done
    }

    /// Frees the pages that the last promotion has replaced.
    pub fn empty_trash(&mut self) {
        let (start, len) = core::mem::take(&mut self.trash);
        if len > 0 {
            self.scratch.unmap(start, len);
        }
    }

    /// Copies what the memory holds into the file, and maps it at `stage`, while
    /// the program goes on. Whether the second look, in the stop, can tell what
    /// changed.
    fn copy_while_running(
        &mut self,
        mapping: &Mapping,
        lo: usize,
        hi: usize,
        stage: usize,
    ) -> bool {
        let len = hi - lo;
        if !self.may_precopy() {
            return false;
        }
        if uffd::register(self.precopy, lo, len, uffd::MODE_WP).is_err() {
            return false;
        }
        let mapped = uffd::register(self.precopy, stage, len, uffd::MODE_MISSING);
        let copied = uffd::write_protect(self.precopy, lo, len).and_then(|()| match mapped {
            Ok(()) => self.copy_to_stage(mapping, lo, hi, stage),
            Err(errno) => Err(errno),
        });
        let _ = uffd::unregister(self.precopy, stage, len);
        // It may have become another while it was copied; then all of it is done
        // in another way, which says so.
        let copied = copied.or_else(|_| {
            self.copy_populated(mapping, lo, hi)?;
            // The owner's first touch after the stop need not fault.
            let _ = self.map_copied_pages(stage, lo, hi);
            Ok::<(), i32>(())
        });
        if copied.is_err() {
            let _ = uffd::unregister(self.precopy, lo, len);
        }
        copied.is_ok()
    }

    /// Copies every page that holds something, and maps the copies at `stage`.
    fn copy_to_stage(&mut self, mapping: &Mapping, lo: usize, hi: usize, stage: usize) -> Sys<()> {
        if Self::backed(mapping) {
            return self.copy_pages(stage, lo, hi - lo);
        }
        self.for_each_run(lo, hi, false, |service, run, _| {
            let to = stage + (run.0 - lo);
            service.copy_pages(to, run.0, run.1 - run.0)
        })
    }

    /// Whether absent pages of a mapping read as something else than zeros.
    fn backed(mapping: &Mapping) -> bool {
        mapping.inode != 0
    }

    /// Copies every page that holds something.
    fn copy_populated(&mut self, mapping: &Mapping, lo: usize, hi: usize) -> Sys<()> {
        if Self::backed(mapping) {
            return mem::write_from(self.memfd, lo, hi - lo, lo);
        }
        self.for_each_run(lo, hi, false, |service, run, _| {
            mem::write_from(service.memfd, run.0, run.1 - run.0, run.0)
        })
    }

    /// Calls `body` for every populated run, and with `written` told.
    fn for_each_run(
        &mut self,
        lo: usize,
        hi: usize,
        checked: bool,
        mut body: impl FnMut(&mut Self, (usize, usize), bool) -> Sys<()>,
    ) -> Sys<()> {
        let mut at = lo;
        let mut runs = [Run::default(); 64];
        while at < hi {
            let (n, walked) = self.space.populated(at, hi, &mut runs, checked)?;
            for run in &runs[..n] {
                let range = (run.start as usize, run.end as usize);
                body(self, range, run.categories & WRITTEN != 0)?;
            }
            if walked <= at {
                return Err(libc::EIO);
            }
            at = walked;
        }
        Ok(())
    }

    fn map_copied_pages(&self, stage: usize, lo: usize, hi: usize) -> Sys<()> {
        const MADV_POPULATE_WRITE: i32 = 23;
        let mut at = lo;
        while let Some((start, end)) = mem::next_data(self.memfd, at, hi) {
            mem::advise(stage + (start - lo), end - start, MADV_POPULATE_WRITE)?;
            at = end;
        }
        Ok(())
    }

    /// With all threads standing: brings the copy up to date and puts the
    /// file in the memory's place.
    #[allow(clippy::too_many_arguments)]
    fn replace(
        &mut self,
        shared: &Shared,
        mapping: &Mapping,
        lo: usize,
        hi: usize,
        stage: &mut usize,
        origin: Origin,
        precopied: bool,
        trash: &mut usize,
    ) -> Result<(), Refusal> {
        let len = hi - lo;
        if shared.guarded(lo, hi) || self.forks_under_way > 0 {
            return Err(Refusal::Later);
        }
        // The program may have changed its mind about this memory.
        match self.space.at(lo) {
            Ok(Some(now)) if now.end >= hi && same_kind(&now, mapping) => {}
            _ => return Err(Refusal::Later),
        }
        if precopied {
            self.copy_changed(mapping, lo, hi)
                .map_err(|errno| match errno {
                    libc::EPERM => Refusal::Later,
                    errno => Refusal::Os(errno),
                })?;
        } else {
            self.unwatch(lo, hi).map_err(Refusal::Os)?;
            mem::punch(self.memfd, lo, len).map_err(Refusal::Os)?;
            self.copy_populated(mapping, lo, hi).map_err(Refusal::Os)?;
        }
        self.write_hooks();
        let locked = mem::is_locked(lo);
        // The old pages step aside, to be freed when the program runs again.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let aside = self
            .scratch
            .map(Place::Aside, len, mapping.prot(), flags, -1, 0)
            .map_err(Refusal::Os)?;
        let moved = if self.can_tell_pins(mapping) && !locked {
            self.move_aside(lo, len, aside)
        } else {
            mem::move_over(lo, len, aside).map_err(Refusal::Os)
        };
        if let Err(why) = moved {
            self.scratch.unmap(aside, len);
            let _ = uffd::unregister(self.precopy, lo, len);
            return Err(why);
        }
        let placed = mem::move_over(*stage, len, lo);
        if placed.is_ok() {
            self.scratch.close(*stage, len);
            *stage = 0;
        }
        let placed = placed.and_then(|()| uffd::register(self.events, lo, len, uffd::MODE_WP));
        if let Err(errno) = placed {
            // Back as it was.
            let back = mem::move_over(aside, len, lo);
            self.scratch.close(aside, len);
            debug_log!("promotion of {lo:#x} undone: errno {errno}, {back:?}");
            return Err(Refusal::Os(errno));
        }
        *trash = aside;
        shared.promoted.insert(Range {
            start: lo,
            end: hi,
            origin,
        });
        if locked {
            // What may be locked is limited: not both at a time.
            let _ = mem::unlock(aside, len);
            self.lock_promoted(lo, hi);
        }
        Ok(())
    }

    /// Locks the memory that has taken the place of locked memory. Every page
    /// that was there is in the file by now, and is mapped so that the lock holds
    /// it; one that was not (`MLOCK_ONFAULT`) is locked when it comes.
    fn lock_promoted(&self, lo: usize, hi: usize) {
        if let Err(errno) = mem::lock(lo, hi - lo) {
            debug_log!("{lo:#x}..{hi:#x} is not locked any more: errno {errno}");
        }
        let mut at = lo;
        while let Some((start, end)) = mem::next_data(self.memfd, at, hi) {
            let _ = mem::populate(start, end - start);
            at = end;
        }
    }

    /// Copies what was written since the first copy, and drops what is no
    /// longer there. EPERM: the range is not what it was.
    fn copy_changed(&mut self, mapping: &Mapping, lo: usize, hi: usize) -> Sys<()> {
        let backed = Self::backed(mapping);
        let mut clean_from = lo;
        self.for_each_run(lo, hi, true, |service, (start, end), written| {
            service.bring_absent(backed, clean_from, start)?;
            clean_from = end;
            if written {
                mem::write_from(service.memfd, start, end - start, start)?;
            }
            Ok(())
        })?;
        self.bring_absent(backed, clean_from, hi)
    }

    /// `[from, to)` has no pages of its own: zeros, or what the file holds.
    fn bring_absent(&mut self, backed: bool, from: usize, to: usize) -> Sys<()> {
        if from >= to {
            Ok(())
        } else if backed {
            mem::write_from(self.memfd, from, to - from, from)
        } else {
            mem::punch(self.memfd, from, to - from)
        }
    }

    /// Whether another process may have this shared anonymous mapping too. Only
    /// fork can bring that about, so only relatives can have it, and each of
    /// them that lives shows it in its maps.
    pub fn may_have_relatives(&self, mapping: &Mapping) -> bool {
        let Ok(proc_dir) = crate::rawsys::open(
            c"/proc",
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
            0,
        ) else {
            return true;
        };
        let own = [self.tgid, super::sys::task::own_pid()];
        let mut found = false;
        for pid in maps::Numbers::from_start(proc_dir) {
            if own.contains(&pid) {
                continue;
            }
            // A process whose maps cannot be read has another user: it would
            // have to be a relative that changed its user.
            if maps::process_maps_file(pid, mapping.device, mapping.inode) == Ok(true) {
                debug_log!(
                    "process {pid} maps the shared memory at {:#x} too",
                    mapping.start
                );
                found = true;
                break;
            }
        }
        crate::rawsys::close(proc_dir);
        found
    }
}

/// Whether what is mapped now may be taken for what was there before.
fn same_kind(now: &Mapping, before: &Mapping) -> bool {
    now.prot() == before.prot()
        && now.shared == before.shared
        && (now.device, now.inode) == (before.device, before.inode)
        && (now.inode == 0
            || now.offset.wrapping_sub(now.start) == before.offset.wrapping_sub(before.start))
}
