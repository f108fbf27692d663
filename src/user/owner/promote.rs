// SPDX-License-Identifier: MIT OR Apache-2.0
//! Promotion: the program's own memory becomes pages of its memfd, in place.
//!
//! What may be promoted, and how much of it at a time, is decided here; how one
//! takes the place of the other is in [`super::exchange`]. The program's pointers
//! stay valid; from then on owner and attachers touch the same pages.

#![forbid(unsafe_code)]

use super::exchange::STANDING_CHUNK;
use super::Owner;
use crate::debug::{count, COUNTERS};
use crate::debug_log;
use crate::errno::Errno;
use crate::user::arena::ranges::Origin;
use crate::user::arena::{mapping, Shared};
use crate::user::owner::refusal::Refusal;
use crate::user::protocol::limits::CHUNK_MAX;
use crate::user::sys::maps::{self, Mapping, Name};
use crate::user::sys::{mem, procfs, Span, BOTTOM, HUGE, PAGE, TOP};
use core::sync::atomic::Ordering;

/// Pages that stay below what is promoted of the main stack, so that it can
/// go on growing.
const STACK_RESERVE: usize = 64 * PAGE;

/// How much of a shared anonymous mapping is promoted at its first touch.
const SHARED_AT_ONCE: usize = 64 << 20;

impl Owner {
    /// Makes the page at `addr` sharable, and what lies around it in a block
    /// of `block` bytes, within `[lo, hi)`. Answers what is sharable now. `wait` says
    /// whether attachers that have not acted upon an answer are still waited for.
    pub fn share_chunk(
        &mut self,
        shared: &Shared,
        addr: usize,
        (lo, hi): (usize, usize),
        block: usize,
        wait: &mut dyn FnMut() -> bool,
    ) -> Result<(usize, usize), Refusal> {
        let mapping = self.mapping_at(addr)?;
        let huge = block > PAGE && self.is_huge(&mapping, addr);
        if huge && self.can_precopy && !self.may_precopy() && wait() {
            // As for shared anonymous memory, below.
            return Err(Refusal::Later);
        }
        if self.is_own(&mapping) {
            self.newborn.note_asked(addr);
            if let Some(run) = self.ready_around(shared, &mapping, addr, (lo, hi)) {
                return Ok(run);
            }
        }
        let block = if self.may_precopy() {
            block.max(if huge { HUGE } else { PAGE })
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
        if self.program.space.page_size(&mapping) > PAGE {
            return Err(Refusal::HugePages);
        }
        let (lo, hi) = self.without_own_memory(addr, lo, hi)?;
        match (mapping.name, mapping.shared) {
            (Name::Special | Name::Device, _) => Err(Refusal::Special),
            (Name::SharedAnonymous, true) => {
                if self.program.space.is_mapped_again(&mapping) != Ok(false) {
                    return Err(Refusal::Twice);
                }
                if self.is_kept(&mapping) {
                    return Err(Refusal::Kept);
                }
                if self.may_have_relatives(&mapping) {
                    return Err(Refusal::Relatives);
                }
                if self.can_precopy && !self.may_precopy() && wait() {
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
                let done = self.promote(shared, &mapping, addr, (all, end), Origin::Shared)?;
                Ok((lo.max(done.0), hi.min(done.1)))
            }
            (_, true) => Err(Refusal::SharedFile),
            (_, false) if self.grows(&mapping) => {
                let (mapping, lo) = self.room_below_stack(mapping, addr, lo)?;
                self.promote(shared, &mapping, addr, (lo, hi), Origin::Private)
            }
            (_, false) => {
                let part = self.be_thrifty(shared, &mapping, addr, (lo, hi));
                let part = if huge && self.may_precopy() {
                    let (start, end) = self.whole_huge_pages(&mapping, part);
                    self.without_own_memory(addr, start, end)?
                } else {
                    part
                };
                let done = self.promote(shared, &mapping, addr, part, Origin::Private)?;
                Ok((lo.max(done.0), hi.min(done.1)))
            }
        }
    }

    fn mapping_at(&self, addr: usize) -> Result<Mapping, Refusal> {
        match self.program.space.at(addr) {
            Ok(Some(mapping)) => Ok(mapping),
            Ok(None) => Err(Refusal::Hole),
            Err(errno) => Err(Refusal::Os(errno)),
        }
    }

    /// Whether a mapping is of this process's own memfd.
    pub fn is_own(&self, m: &Mapping) -> bool {
        m.shared && (m.device, m.inode) == self.memfd_identity
    }

    /// What of promoted memory the file has around `addr`, as much as an attacher
    /// maps at a time: that may be mapped without more ado.
    fn ready_around(
        &self,
        shared: &Shared,
        m: &Mapping,
        addr: usize,
        (lo, hi): (usize, usize),
    ) -> Option<(usize, usize)> {
        /// How many gaps are stepped over.
        const RUNS: u32 = 8;
        let block = addr & !(CHUNK_MAX - 1);
        let lo = lo.max(m.start).max(block).max(BOTTOM);
        let hi = hi.min(m.end).min(block + CHUNK_MAX).min(TOP);
        let known = shared
            .promoted
            .first_in(Span::new(addr, addr + PAGE))
            .is_some();
        if !known || !m.read || m.offset != m.start || addr < lo {
            return None;
        }
        let mut at = lo;
        for _ in 0..RUNS {
            let data = mem::next_data(self.memfd, at, hi)?;
            if addr < data.end() {
                let (start, end) = (data.start().max(lo), data.end().min(hi));
                let here = start <= addr && !shared.guarded(Span::new(start, end));
                return here.then_some((start, end));
            }
            at = data.end();
        }
        None
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
        if shared.guarded(Span::new(lo, hi)) {
            // Attachers may just have been asked to let go of it.
            return Err(Refusal::Later);
        }
        if shared.promoted.first_in(Span::new(hi - PAGE, hi)).is_none() {
            self.note_growth();
        }
        if !self.has_headroom(hi - lo) {
            return Err(Refusal::Os(Errno::ENOMEM));
        }
        self.populate_as_owner(lo, hi - lo)
            .map_err(Refusal::of_changed)?;
        Ok((lo, hi))
    }

    /// Cuts what must never be promoted out of `[lo, hi)`.
    pub fn without_own_memory(
        &self,
        addr: usize,
        lo: usize,
        hi: usize,
    ) -> Result<(usize, usize), Refusal> {
        let (mut lo, mut hi) = (lo, hi);
        for own in self.own_memory() {
            if own.contains(addr) {
                return Err(Refusal::Special);
            }
            if own.end() > lo && own.end() <= addr {
                lo = own.end();
            }
            if own.start() > addr && own.start() < hi {
                hi = own.start();
            }
        }
        Ok((lo, hi))
    }

    /// Memory of the library's own, which is never shared nor given to anybody.
    pub fn own_memory(&self) -> impl Iterator<Item = Span> {
        let page = crate::process::wiped_page();
        let thunks = crate::user::hooks::PAGE.load(Ordering::Acquire);
        let others = [
            self.program.scratch.range(),
            Span::of(page, crate::process::WIPED_PAGE_SIZE),
            Span::of(thunks, PAGE),
        ];
        mapping::ranges().chain(others)
    }

    /// Whether a private mapping is the lowest part of the main stack, the
    /// one that grows. What is promoted of the stack cuts it in pieces, and so
    /// does what the program says of a part (`MADV_DONTFORK` for a device).
    fn grows(&self, mapping: &Mapping) -> bool {
        // No stack is larger, and no walk through other memory is worth it.
        const LARGEST: usize = 16 << 30;
        if mapping.start > self.program.stack_begin()
            || self.program.stack_begin() - mapping.start > LARGEST
        {
            return false;
        }
        let mut piece = *mapping;
        while !(piece.start..piece.end).contains(&self.program.stack_begin()) {
            match self.program.space.at(piece.end) {
                Ok(Some(above)) if self.is_own(&above) || above.inode == 0 => piece = above,
                _ => return false,
            }
        }
        !matches!(self.program.space.at(mapping.start - PAGE), Ok(Some(_)))
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

    /// Promotes `[lo, hi)`, a part of `mapping`, for the sake of `addr`.
    pub fn promote(
        &mut self,
        shared: &Shared,
        mapping: &Mapping,
        addr: usize,
        (lo, hi): (usize, usize),
        origin: Origin,
    ) -> Result<(usize, usize), Refusal> {
        if !shared.promoted.has_room() {
            return Err(Refusal::Os(Errno::ENOMEM));
        }
        if shared.promoted.first_in(Span::new(lo, hi)).is_some() {
            // Something else stood here and was promoted; what became of it, the
            // events are about to tell. If it was moved its content is needed.
            return Err(Refusal::Later);
        }
        // A thread that is about to register it with a userfaultfd of the program's own
        // could not while it is registered here.
        if self.program.pause.left() > 0 || shared.guarded(Span::new(lo, hi)) {
            return Err(Refusal::Later);
        }
        if self.is_stuck(addr) {
            return Err(Refusal::Pinned);
        }
        let len = hi - lo;
        if mem::is_sealed(lo, len) && !crate::testing::nothing_is_undone() {
            return Err(Refusal::Sealed);
        }
        if self.program.changes().find_others_at(Span::of(lo, len)) {
            return Err(Refusal::Os(Errno::EBUSY));
        }
        // Nothing older may show through where the memory has no pages.
        mem::punch(self.memfd, lo, len).map_err(Refusal::Os)?;
        self.empty_trash();
        if !self.has_headroom(len) {
            return Err(Refusal::Os(Errno::ENOMEM));
        }
        // One descriptor is needed on the way, and is kept for that.
        self.program.spare.keep();
        if !self.program.spare.give_up() {
            return Err(Refusal::Os(Errno::EMFILE));
        }
        let (done, why) = self.exchange(shared, mapping, (lo, hi), origin);
        self.program.spare.keep();
        if done > 0 {
            count(&COUNTERS.promotions);
            COUNTERS
                .bytes_promoted
                .fetch_add(done as u64, Ordering::Relaxed);
        }
        match why {
            Some(why) if !(lo..lo + done).contains(&addr) => Err(why),
            _ => Ok((lo, lo + done)),
        }
    }

    /// Whether another process may have this shared anonymous mapping too. Only
    /// fork can bring that about, so only relatives can have it, and each of
    /// them that lives shows it in its maps.
    pub fn may_have_relatives(&self, mapping: &Mapping) -> bool {
        let Ok(proc_dir) = crate::fd::open(
            c"/proc",
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
            0,
        ) else {
            return true;
        };
        let own = [self.program.tgid(), crate::user::sys::task::own_pid()];
        let mut found = false;
        let mut processes = procfs::Numbers::from_start(proc_dir.fd());
        for pid in processes.by_ref() {
            if own.contains(&pid) {
                continue;
            }
            // A process whose maps cannot be read has another user: it would
            // have to be a relative that changed its user. Or nothing can be read,
            // where no descriptor is left.
            const NOTHING: [Errno; 3] = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM];
            let maps_it = maps::process_maps_file(pid, mapping.device, mapping.inode);
            if maps_it.unwrap_or_else(|errno| NOTHING.contains(&errno)) {
                debug_log!(
                    "process {pid} maps the shared memory at {:#x} too",
                    mapping.start
                );
                found = true;
                break;
            }
        }
        found || processes.is_cut()
    }
}
