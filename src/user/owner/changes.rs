// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel's events tell of promoted memory, acted upon while all threads stand.

#![forbid(unsafe_code)]

use super::Owner;
use crate::debug_log;
use crate::user::arena;
use crate::user::arena::ranges::Origin;
use crate::user::program::stop::{self, Events, Unstoppable};
use crate::user::program::threads::Standing;
use crate::user::program::Program;
use crate::user::sys::{task, uffd, Span};

/// An event of promoted memory, to be acted upon while all threads stand.
#[derive(Clone, Copy)]
pub struct Change {
    /// `uffd::EVENT_REMAP` or `uffd::EVENT_UNMAP`.
    pub kind: u8,
    /// What has been moved or unmapped.
    pub from: Span,
    /// Where it has been moved.
    pub to: usize,
    /// Some of it was shared anonymous memory.
    pub shared: bool,
}

/// Most of them: a thread has at most three, one after the other.
pub const CHANGES: usize = 3 * crate::user::program::threads::THREADS;

impl Events for Owner {
    fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    fn take(&mut self) {
        self.take_event();
    }

    fn is_urgent(&self) -> bool {
        self.change_count > 0
    }
}

impl Owner {
    /// Whether something has been read that is still to be acted upon.
    pub fn has_changes(&self) -> bool {
        self.change_count > 0
    }

    /// No event waits any more.
    pub fn forget_unread(&mut self) {
        self.events_wait_since = 0;
    }

    /// Whether the unread events stay unread for now, after a stop that did not
    /// come about: their callers sleep, other work is done, and the loop comes
    /// here again.
    pub fn events_may_wait(&mut self, patience: u64) -> bool {
        let now = task::now();
        if self.events_wait_since == 0 {
            self.events_wait_since = now;
        }
        now - self.events_wait_since < patience
    }

    /// Stops all threads of the program; nothing that they wait for is left unread.
    pub fn stop(&mut self) -> Result<Standing, Unstoppable> {
        if let Some(standing) = self.program.stands_again() {
            return Ok(standing);
        }
        if !self.debts.is_empty() {
            // Whoever stops now reads events, and lets their callers go.
            return Err(Unstoppable::Busy);
        }
        let stopped = stop::stop(self);
        if stopped.is_ok() {
            self.act_on_events();
        } else {
            // Who has unmapped something, and waited for its event, is about to go on.
            self.revoke_unmapped();
            self.program.give_up(!self.debts.is_empty());
        }
        stopped
    }

    /// Lets the threads go, or holds them until what is owed has been paid. Nothing
    /// where they could not be stopped.
    pub fn resume(&mut self, standing: impl Into<Option<Standing>>) {
        if let Some(standing) = standing.into() {
            self.program.resume(standing, !self.debts.is_empty());
        }
    }

    /// Reads one event. Its caller goes on, and must stand before it comes back
    /// to user mode.
    pub fn take_event(&mut self) {
        let Ok(event) = self.program.changes().next() else {
            return;
        };
        let (start, to) = (event.a as usize, event.b as usize);
        let (from, to) = match event.kind {
            uffd::EVENT_REMAP => (Span::of(start, event.c as usize), to),
            uffd::EVENT_UNMAP => (Span::new(start, to), 0),
            uffd::EVENT_REMOVE => {
                // One for each mapping, and no matter when until the caller is back.
                let _ = self.discard(Span::new(start, to));
                return;
            }
            _ => return,
        };
        if self.change_count == CHANGES {
            debug_log!("more changes at a time than there are threads");
            self.act_on_events();
        }
        self.changes[self.change_count] = Change {
            kind: event.kind,
            from,
            to,
            shared: arena::existing()
                .is_some_and(|shared| shared.promoted.has(from, Origin::Shared)),
        };
        self.change_count += 1;
    }

    /// Acts on all events that have been read.
    pub fn act_on_events(&mut self) {
        let Some(shared) = arena::existing() else {
            return;
        };
        self.revoke_unmapped();
        for i in 0..core::mem::take(&mut self.change_count) {
            let c = self.changes[i];
            if let Err(errno) = self.settle_moved(shared, &c) {
                debug_log!("memory moved to {:#x} cannot be copied back: {errno}", c.to);
                shared.promoted.remove(c.from);
                self.moved_astray = true;
            }
        }
    }
}
