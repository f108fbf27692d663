// SPDX-License-Identifier: MIT OR Apache-2.0
//! How pages of the file take the place of memory, and how nothing is lost
//! where they do not.
//!
//! While the program runs its memory is copied into the file, where the kernel lets
//! one copy from memory that others write to. Then all threads stand still, and piece
//! by piece:
//!
//! 1. The old pages are moved aside. From here on nobody changes them, and
//!    where one of them is pinned they do not move (see [`super::pins`]).
//! 2. The copy is compared with them and brought up to date. So it does not
//!    matter who wrote since the copy, and whether the kernel noticed: a thread,
//!    a device whose pin has ended since, another process.
//! 3. The mapping of the file is moved to the old place.
//!
//! Until a piece is in place, its old pages are the only ones that count. What
//! undoes a step must not fail for the reason that the step failed for: pages
//! move back without the kernel making a mapping, and where it must make one,
//! mappings are given up for it first ([`Scratch::give_room`]). Pieces that are in
//! place stay there when a later one fails. Where the service is killed meanwhile
//! another task ends what it has begun ([`super::journal`]).
//!
//! [`Scratch::give_room`]: crate::user::program::scratch::Scratch::give_room

#![forbid(unsafe_code)]

use super::refusal::Refusal;
use super::rescue::Rescue;
use super::revoke::{FILE_MAP, PRIVATE, RW};
use super::Owner;
use crate::debug_log;
use crate::fd::Fd;
use crate::user::arena::ranges::{Origin, Range};
use crate::user::arena::Shared;
use crate::user::program::scratch::Place;
use crate::user::program::stop::Unstoppable;
use crate::user::program::threads::Standing;
use crate::user::sys::advice::Bits;
use crate::user::sys::maps::Mapping;
use crate::user::sys::policy::Policy;
use crate::user::sys::{held, insist, mem, task, uffd, Span};

/// Most bytes that are copied while all threads stand, if there is no copy yet.
pub const STANDING_CHUNK: usize = 256 * 1024;

/// What changes place at a time. Between its first and its third step a system
/// call of another process that reaches for it is EFAULT.
pub const PIECE: usize = 256 * 1024;

/// One exchange under way.
pub struct Exchange {
    pub mapping: Mapping,
    pub lo: usize,
    pub len: usize,
    /// Where the file's pages are mapped meanwhile, and where the old ones go.
    pub stage: usize,
    pub aside: usize,
    /// Where pages are to come from that are not there yet.
    policy: Policy,
    /// The old pages move one by one, and not their mapping.
    pub by_page: bool,
    /// The file has a copy.
    pub copied: bool,
    /// Where that begins, without a gap: what the file has need not be asked for there.
    pub data: Span,
    /// Some of that is on huge pages.
    pub huge: bool,
    /// The kernel notes what is written since.
    pub tracked: bool,
    /// The old place is watched for missing pages.
    pub watched: bool,
    /// The old mapping has been moved.
    pub moved: bool,
    /// The memory is locked, and has been unlocked for the time being.
    pub locked: bool,
    pub unlocked: bool,
    /// What the program has said about it, once that is known.
    settings: Option<Bits>,
    /// How much is in place.
    pub done: usize,
}

impl Exchange {
    /// Whether absent pages of the memory read as something else than zeros.
    pub fn backed(&self) -> bool {
        self.mapping.inode != 0
    }

    /// The place whose pages are exchanged.
    pub fn span(&self) -> Span {
        Span::of(self.lo, self.len)
    }

    /// What of it is not in place yet.
    pub fn rest(&self) -> Span {
        self.span().from(self.lo + self.done)
    }

    pub fn aside_of(&self, addr: usize) -> usize {
        self.aside + (addr - self.lo)
    }

    pub fn stage_of(&self, addr: usize) -> usize {
        self.stage + (addr - self.lo)
    }
}

impl Owner {
    /// Puts pages of the file in place of `span`, a part of `mapping`. Answers for how
    /// many bytes from its start on that is done, and why not for the rest.
    pub fn exchange(
        &mut self,
        shared: &Shared,
        mapping: &Mapping,
        span: Span,
        origin: Origin,
    ) -> (usize, Option<Refusal>) {
        let (lo, len) = (span.start(), span.len());
        let staged = self
            .program
            .scratch
            .map(Place::Stage, len, RW, FILE_MAP, self.memfd, lo);
        let stage = match staged {
            Ok(stage) => stage,
            Err(errno) => return (0, Some(Refusal::Os(errno))),
        };
        let policy = self.take_policy(lo, stage, len);
        let mut x = Exchange {
            mapping: *mapping,
            lo,
            len,
            stage,
            policy,
            aside: 0,
            by_page: self.can_tell_pins(mapping),
            copied: false,
            data: Span::EMPTY,
            huge: false,
            tracked: false,
            watched: false,
            moved: false,
            locked: false,
            unlocked: false,
            settings: None,
            done: 0,
        };
        if x.by_page {
            // It ends a move that has no end.
            let _ = super::copier::is_there(shared);
        }
        let why = self.copy_and_replace(shared, &mut x, origin).err();
        if x.stage != 0 {
            self.program.scratch.unmap(Span::of(x.stage, len));
        }
        if x.done < len {
            let _ = mem::punch(self.memfd, lo + x.done, len - x.done);
        }
        (x.done, why)
    }

    fn copy_and_replace(
        &mut self,
        shared: &Shared,
        x: &mut Exchange,
        origin: Origin,
    ) -> Result<(), Refusal> {
        if origin == Origin::Private && !crate::testing::children_inherit() {
            held::advise(x.stage, x.len, libc::MADV_DONTFORK).map_err(Refusal::Os)?;
        }
        x.copied = self.copy_while_running(x);
        if x.copied {
            self.make_huge(x);
            x.data = mem::next_data(self.memfd, x.lo, x.lo + x.len).unwrap_or(Span::EMPTY);
        }
        let prepared = if x.mapping.prot() == RW {
            Ok(())
        } else {
            held::protect(x.stage, x.len, x.mapping.prot())
        };
        let stopped = prepared.map_err(Refusal::Os).and_then(|()| {
            self.stop().map_err(|why| {
                if why == Unstoppable::Busy {
                    self.program.pause.begin();
                }
                why.into()
            })
        });
        let standing = match stopped {
            Ok(standing) => standing,
            Err(why) => {
                self.untrack(x, x.span());
                return Err(why);
            }
        };
        self.program.pause.end();
        let mut result = self.replace(&standing, shared, x, origin);
        if x.done > 0 {
            if let Err(why) = self.settle(&standing, shared, x, origin) {
                result = Err(why);
            }
        }
        if x.done < x.len {
            self.untrack(x, x.rest());
        }
        self.clear_away(&standing, x);
        self.journal.close();
        self.resume(standing);
        result
    }

    /// The service watches the old memory no longer.
    pub fn untrack(&self, x: &Exchange, span: Span) {
        if x.tracked || x.watched {
            let (start, len) = (span.start(), span.len());
            let _ = insist(|| uffd::ensure_unregistered(self.precopy, start, len));
        }
    }

    /// With all threads standing: the exchange itself, as far as it goes.
    fn replace(
        &mut self,
        standing: &Standing,
        shared: &Shared,
        x: &mut Exchange,
        origin: Origin,
    ) -> Result<(), Refusal> {
        self.make_ready(standing, shared, x, origin)?;
        let rescue = Rescue::begin();
        let mut result = Ok(());
        while x.done < x.len && result.is_ok() {
            let at = x.lo + x.done;
            result = self.replace_piece(&rescue, x, Span::of(at, x.piece_at(at)));
        }
        drop(rescue);
        if x.unlocked && x.done < x.len {
            self.lock_again(x.rest());
        }
        result
    }

    /// Replaces `piece`, or as much of it as can be moved.
    fn replace_piece(
        &mut self,
        rescue: &Rescue,
        x: &mut Exchange,
        piece: Span,
    ) -> Result<(), Refusal> {
        let (at, n) = (piece.start(), piece.len());
        let (n, why) = if x.by_page {
            self.move_aside(rescue, piece, x.aside_of(at))
        } else {
            held::move_over(at, n, x.aside_of(at)).map_err(Refusal::of_refused_change)?;
            x.moved = true;
            (n, None)
        };
        if n > 0 {
            let seen = match x.settings {
                None if x.by_page => self.look(at).map(|bits| x.settings = Some(bits)),
                _ => Ok(()),
            };
            let placed = seen
                .and_then(|()| self.bring_up_to_date(x, Span::of(at, n)))
                .and_then(|()| held::move_over(x.stage_of(at), n, at));
            if let Err(errno) = placed {
                debug_log!("{at:#x}+{n:#x} is not exchanged: errno {errno}");
                self.put_back(x, Span::of(at, n));
                return Err(Refusal::of_refused_change(errno));
            }
            x.done += n;
        }
        why.map_or(Ok(()), Err)
    }

    /// Undoes the first step for a piece, whatever stands in its place now.
    fn put_back(&mut self, x: &Exchange, piece: Span) {
        if crate::testing::nothing_is_undone() {
            return;
        }
        let (at, n) = (piece.start(), piece.len());
        let aside = x.aside_of(at);
        let back = if x.by_page {
            let there = insist(|| self.program.space.at(at)).ok().flatten();
            let is_old = |m: &Mapping| m.end >= at + n && m.is_still(&x.mapping);
            let room = if there.is_some_and(|m| is_old(&m)) {
                Ok(())
            } else {
                self.program.scratch.give_room();
                let flags = PRIVATE | libc::MAP_FIXED;
                insist(|| held::map(at, n, x.mapping.prot(), flags, Fd::NONE, 0)).and_then(|_| {
                    insist(|| uffd::register(self.precopy, at, n, uffd::MODE_MISSING))
                })
            };
            room.map(|()| self.move_back(piece, aside))
        } else {
            self.program.scratch.give_room();
            insist(|| held::move_over(aside, n, at))
        };
        if let Err(errno) = back {
            debug_log!("{at:#x}+{n:#x} cannot be put back: errno {errno}");
            // It would go on with memory that is not its own.
            let _ = task::signal_task(self.program.tgid(), self.program.tgid(), libc::SIGKILL);
        }
    }

    /// What is in place is watched from now on, and known to be promoted. If it
    /// cannot be watched, nothing is in place any more.
    fn settle(
        &mut self,
        _: &Standing,
        shared: &Shared,
        x: &mut Exchange,
        origin: Origin,
    ) -> Result<(), Refusal> {
        let placed = Span::of(x.lo, x.done);
        if let Err(errno) = self.program.changes().watch(placed) {
            debug_log!("promotion of {:#x} is undone: errno {errno}", x.lo);
            self.put_back(x, placed);
            x.done = 0;
            if x.unlocked {
                self.lock_again(placed);
            }
            return Err(Refusal::Os(errno));
        }
        shared.promoted.insert(Range::new(placed, origin));
        if x.locked {
            // What may be locked is limited: not both at a time.
            let _ = mem::unlock(x.aside, x.len);
        }
        let settings = match x.settings {
            Some(bits) => Ok(bits),
            None => self.look(x.aside),
        };
        match settings {
            Ok(bits) => self.keep_settings(placed, bits),
            Err(errno) => debug_log!("the settings of {:#x} cannot be seen: errno {errno}", x.lo),
        }
        self.give_policy(&x.policy, placed);
        if x.locked {
            self.lock_promoted(placed);
        }
        Ok(())
    }
}
