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
    /// Makes the page at `addr` sharable, and what lies around it in a block of `block`
    /// bytes, of what `within` holds. Answers what is sharable now. `peers_lag`
    /// says whether attachers that have not acted upon an answer are still waited for.
    pub fn share_chunk(
        &mut self,
        shared: &Shared,
        addr: usize,
        within: Span,
        block: usize,
        peers_lag: &mut dyn FnMut() -> bool,
    ) -> Result<Span, Refusal> {
        let mapping = self.mapping_at(addr)?;
        let huge = block > PAGE && self.is_huge(&mapping, addr);
        if huge && self.can_precopy && !self.may_precopy() && peers_lag() {
            // As for shared anonymous memory.
            return Err(Refusal::Later);
        }
        if self.is_own(&mapping) {
            self.newborn.note_asked(addr);
            if let Some(run) = self.ready_around(shared, &mapping, addr, within) {
                return Ok(run);
            }
        }
        let block = if self.may_precopy() {
            block.max(if huge { HUGE } else { PAGE })
        } else {
            block.min(STANDING_CHUNK)
        };
        let part = part_around(&mapping, addr, block).cut_to(within);
        if !mapping.read || addr < part.start() {
            return Err(Refusal::Hole);
        }
        if self.is_own(&mapping) {
            return self.populate(shared, &mapping, part);
        }
        if self.program.space.page_size(&mapping) > PAGE {
            return Err(Refusal::HugePages);
        }
        let part = self.without_own_memory(addr, part)?;
        match (mapping.name, mapping.shared) {
            (Name::Special | Name::Device, _) => Err(Refusal::Special),
            (Name::SharedAnonymous, true) => {
                let done = self.promote_shared(shared, &mapping, addr, peers_lag)?;
                Ok(part.cut_to(done))
            }
            (_, true) => Err(Refusal::SharedFile),
            (_, false) if self.grows(&mapping) => {
                let (mapping, part) = self.room_below_stack(mapping, addr, part)?;
                self.promote(shared, &mapping, addr, part, Origin::Private)
            }
            (_, false) => {
                let all = self.be_thrifty(shared, &mapping, addr, part);
                let all = if huge && self.may_precopy() {
                    self.without_own_memory(addr, self.whole_huge_pages(&mapping, all))?
                } else {
                    all
                };
                let done = self.promote(shared, &mapping, addr, all, Origin::Private)?;
                Ok(part.cut_to(done))
            }
        }
    }

    /// Promotes shared anonymous memory around `addr`: all of it, as long as no fork has
    /// made it common. What is left out could be refused later on; holes cost nothing.
    fn promote_shared(
        &mut self,
        shared: &Shared,
        mapping: &Mapping,
        addr: usize,
        peers_lag: &mut dyn FnMut() -> bool,
    ) -> Result<Span, Refusal> {
        if self.program.space.is_mapped_again(mapping) != Ok(false) {
            return Err(Refusal::Twice);
        }
        if self.is_kept(mapping) {
            return Err(Refusal::Kept);
        }
        if self.may_have_relatives(mapping) {
            return Err(Refusal::Relatives);
        }
        if self.can_precopy && !self.may_precopy() && peers_lag() {
            // So much is not copied while all threads stand, if it can be helped.
            return Err(Refusal::Later);
        }
        let all = part_around(mapping, addr, SHARED_AT_ONCE);
        let all = self.without_own_memory(addr, all)?;
        self.promote(shared, mapping, addr, all, Origin::Shared)
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
        within: Span,
    ) -> Option<Span> {
        /// How many gaps are stepped over.
        const RUNS: u32 = 8;
        let part = part_around(m, addr, CHUNK_MAX).cut_to(within);
        let known = shared.promoted.first_in(Span::of(addr, PAGE)).is_some();
        if !known || !m.read || m.offset != m.start || addr < part.start() {
            return None;
        }
        let mut at = part.start();
        for _ in 0..RUNS {
            let data = mem::next_data(self.memfd, at, part.end())?;
            if addr < data.end() {
                let run = data.cut_to(part);
                let here = run.start() <= addr && !shared.guarded(run);
                return here.then_some(run);
            }
            at = data.end();
        }
        None
    }

    /// Gives promoted memory pages where it has none.
    fn populate(&mut self, shared: &Shared, m: &Mapping, part: Span) -> Result<Span, Refusal> {
        if m.offset != m.start {
            // The program has moved it; the event is on its way.
            return Err(Refusal::Later);
        }
        if shared.guarded(part) {
            // Attachers may just have been asked to let go of it.
            return Err(Refusal::Later);
        }
        let last = Span::new(part.end() - PAGE, part.end());
        if shared.promoted.first_in(last).is_none() {
            self.note_growth();
        }
        if !self.has_headroom(part.len()) {
            return Err(Refusal::Os(Errno::ENOMEM));
        }
        self.populate_as_owner(part).map_err(Refusal::of_changed)?;
        Ok(part)
    }

    /// Cuts what must never be promoted out of `part`, which holds `addr`.
    pub fn without_own_memory(&self, addr: usize, part: Span) -> Result<Span, Refusal> {
        let (mut lo, mut hi) = (part.start(), part.end());
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
        Ok(Span::new(lo, hi))
    }

    /// Memory of the library's own, which is never shared nor given to anybody.
    pub fn own_memory(&self) -> impl Iterator<Item = Span> {
        let page = crate::process::wiped_page();
        let thunks = crate::user::hooks::THUNKS.load(Ordering::Acquire);
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
        part: Span,
    ) -> Result<(Mapping, Span), Refusal> {
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
        Ok((mapping, part.from(floor)))
    }

    /// Promotes `part` of `mapping` for the sake of `addr`. Answers what of it is.
    pub fn promote(
        &mut self,
        shared: &Shared,
        mapping: &Mapping,
        addr: usize,
        part: Span,
        origin: Origin,
    ) -> Result<Span, Refusal> {
        if !shared.promoted.has_room() {
            return Err(Refusal::Os(Errno::ENOMEM));
        }
        if shared.promoted.first_in(part).is_some() {
            // Something else stood here and was promoted; what became of it, the
            // events are about to tell. If it was moved its content is needed.
            return Err(Refusal::Later);
        }
        // A thread that is about to register it with a userfaultfd of the program's own
        // could not while it is registered here.
        if self.program.pause.left() > 0 || shared.guarded(part) {
            return Err(Refusal::Later);
        }
        if self.is_stuck(addr) {
            return Err(Refusal::Pinned);
        }
        let (lo, len) = (part.start(), part.len());
        if mem::is_sealed(lo, len) && !crate::testing::nothing_is_undone() {
            return Err(Refusal::Sealed);
        }
        if self.program.is_watched_by_others(part) {
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
        let (done, why) = self.exchange(shared, mapping, part, origin);
        self.program.spare.keep();
        if done > 0 {
            count(&COUNTERS.promotions);
            COUNTERS
                .bytes_promoted
                .fetch_add(done as u64, Ordering::Relaxed);
        }
        let placed = Span::of(lo, done);
        match why {
            Some(why) if !placed.contains(addr) => Err(why),
            _ => Ok(placed),
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

/// What of `m` may be exported, in the block of `block` bytes that holds `addr`.
fn part_around(m: &Mapping, addr: usize, block: usize) -> Span {
    let block = Span::of(addr & !(block - 1), block);
    m.span().cut_to(block).cut_to(Span::new(BOTTOM, TOP))
}
