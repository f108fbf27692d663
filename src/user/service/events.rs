// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's events of promoted memory are read in a stop, or without one where
//! there is none.

#![forbid(unsafe_code)]

use crate::debug_log;
use crate::user::program::stop::{Unstoppable, LAST_PATIENCE};
use crate::user::service::state::Service;
use crate::user::sys::{Span, TOP};

/// How long, in nanoseconds, events wait for a tracer of the program to go. It
/// is waited for once: a debugger that stays must not slow each call.
const TRACER_PATIENCE: u64 = 50_000_000;

impl Service {
    /// Something has happened to promoted memory, and who did it sleeps.
    pub fn on_events(&mut self) {
        // What a stop has read that was given up then is still to be acted on.
        if !self.owner.program.changes().has_next() && !self.owner.has_changes() {
            return;
        }
        match self.owner.stop() {
            Ok(standing) => {
                self.owner.resume(standing);
                self.owner.forget_unread();
            }
            Err(Unstoppable::Busy) if self.owner.events_may_wait(LAST_PATIENCE) => {
                self.owner.punch_unmapped(Span::new(0, TOP));
            }
            Err(Unstoppable::Forbidden) if self.owner.events_may_wait(TRACER_PATIENCE) => {
                self.owner.punch_unmapped(Span::new(0, TOP));
                crate::rawsys::sleep(core::time::Duration::from_millis(1));
            }
            Err(why) => {
                // Nobody may sleep for ever. What can go wrong without the
                // stop is a change that races with the program's own threads.
                debug_log!("events are handled without a stop: {why:?}");
                self.owner.act_on_events();
                self.pay_debts();
                while self.owner.program.changes().has_next() {
                    self.owner.punch_unmapped(Span::new(0, TOP));
                    self.pay_debts();
                    self.owner.take_event();
                    self.owner.act_on_events();
                    self.pay_debts();
                }
            }
        }
        self.pay_debts();
    }
}
