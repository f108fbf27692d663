// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hooks in libc are written, with all threads standing.

#![forbid(unsafe_code)]

use crate::debug::COUNTERS;
use crate::debug_log;
use crate::user::hooks::text::Thunks;
use crate::user::hooks::{MET, NAMES, WRITTEN};
use crate::user::owner::refusal::Refusal;
use crate::user::service::state::Service;
use core::sync::atomic::Ordering;

/// Where the sites of one function of libc are met.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    Nowhere,
    Partly,
    Everywhere,
}

impl Service {
    /// Writes the hooks, with all threads standing, before the first promotion.
    pub fn write_hooks(&mut self) {
        if core::mem::replace(&mut self.hooks.tried, true) || self.hooks.count == 0 {
            return;
        }
        WRITTEN.store(true, Ordering::Release);
        let thunks = Thunks {
            page: self.hooks.page,
        };
        let stopped = self.program.traced[..self.program.traced_count]
            .iter()
            .find(|t| t.stopped);
        let standing = stopped.map_or(0, |t| t.tid);
        let mut met = [Met::Nowhere; NAMES.len()];
        for i in 0..self.hooks.count {
            let number = self.hooks.sites[i].number;
            let Some(name) = NAMES.iter().position(|n| n.1 == number) else {
                continue;
            };
            match thunks.lead(i, &self.hooks.sites[i], standing) {
                Ok(()) => {
                    crate::debug::count(&COUNTERS.hooks_installed);
                    if met[name] == Met::Nowhere {
                        met[name] = Met::Everywhere;
                    }
                }
                Err(errno) => {
                    debug_log!("libc's system call {number} is not met: errno {errno}");
                    met[name] = Met::Partly;
                }
            }
        }
        for (known, met) in MET.iter().zip(met) {
            known.store(met == Met::Everywhere, Ordering::Release);
        }
    }

    /// Sees to it that libc is met before anything is shared that the kernel's
    /// events say too little of.
    pub fn meet_libc(&mut self) -> Result<(), Refusal> {
        if !self.hooks.tried && self.hooks.count > 0 {
            self.stop()?;
            self.write_hooks();
            self.resume();
        }
        Ok(())
    }
}
