// SPDX-License-Identifier: MIT OR Apache-2.0
//! A second thread of the service, for long copies, to close what peers send, and
//! to end a move of pages that has no end ([`super::rescue`]).
//!
//! Most of what a promotion costs is the copy of its pages, which the attacher
//! waits for: where the service may use another processor, both copy, piece by
//! piece. Whoever is free takes the next piece, so a copier that gets no
//! processor delays nothing; only a piece that it has begun is waited for.
//!
//! The copier copies between the call of [`Owner::copy_pages`] and its return
//! and at no other time; between copies it closes descriptors
//! ([`crate::user::arena::closing`]), where it may be held up. It touches nothing of the service's state, and of the
//! program's memory what the service would touch itself.

#![forbid(unsafe_code)]

use super::rescue;
use super::Owner;
use crate::fd::Fd;
use crate::user::arena::copying::PIECE;
use crate::user::arena::{mapping, Shared};
use crate::user::sys::{clone, mem, task, uffd, Sys, HUGE};
use core::sync::atomic::Ordering;

/// What is shorter is copied before another thread would have begun.
const WORTH_WAKING: usize = 8 * PIECE;

/// The copier: sleeps until there is a copy, for as long as the service lives.
extern "C" fn copier(_argument: usize) -> ! {
    const LONG: u64 = 3_600_000;
    task::set_name(c"xpmem-copier");
    rescue::listen();
    let mut node = 0;
    loop {
        if let Some(shared) = crate::user::arena::existing() {
            let copying = &shared.copying;
            let seen = copying.bell.load(Ordering::Acquire);
            copying.take_part(&mut node);
            shared.closing.close_all();
            task::futex_wait(&copying.bell, seen, LONG);
        }
    }
}

impl Owner {
    /// As [`uffd::copy_pages`], on two processors where it is long and there are
    /// two.
    pub fn copy_pages(&self, to: usize, from: usize, len: usize) -> Sys<()> {
        self.copy_pages_by(self.precopy, to, from, len)
    }

    /// As [`Self::copy_pages`], by another userfaultfd: of another process, perhaps.
    pub fn copy_pages_by(&self, watch: Fd, to: usize, from: usize, len: usize) -> Sys<()> {
        let shared = crate::user::arena::existing();
        let shared = shared.filter(|shared| is_worth_it(len) && is_there(shared));
        let (Some(shared), Some(node)) = (shared, self.nodes.number()) else {
            return uffd::copy_pages(watch, to, from, len);
        };
        let copying = &shared.copying;
        let mut node = node;
        copying.begin(watch, to, from, len, node);
        copying.ring();
        copying.take_part(&mut node);
        copying.await_end()
    }
}

impl Owner {
    /// Makes huge pages of `[at, at + len)`, on two processors where there are two.
    pub fn make_pages_huge(&self, at: usize, len: usize) -> Sys<()> {
        let shared = crate::user::arena::existing();
        let two = |shared: &&'static Shared| len > HUGE && is_there(shared);
        let Some(shared) = shared.filter(|s| task::processors_allowed() > 1 && two(s)) else {
            return mem::collapse(at, len);
        };
        shared.copying.begin_huge(at, len);
        shared.copying.ring();
        shared.copying.take_part(&mut 0);
        shared.copying.await_end()
    }
}

fn is_worth_it(len: usize) -> bool {
    (WORTH_WAKING..=PIECE * 0xffff).contains(&len) && task::processors_allowed() > 1
}

/// Whether the copier is there; starts it at the first need. For the service.
pub fn is_there(shared: &Shared) -> bool {
    const STARTED: u32 = 1;
    const REFUSED: u32 = 2;
    let started = &shared.copying.started;
    if started.load(Ordering::Relaxed) == 0 {
        let top = mapping::second_stack_top();
        let thread = clone::spawn_sibling(top, copier, 0);
        if let Ok(tid) = thread {
            rescue::prepare(tid);
        }
        let now = if thread.is_ok() { STARTED } else { REFUSED };
        started.store(now, Ordering::Relaxed);
    }
    started.load(Ordering::Relaxed) == STARTED
}
