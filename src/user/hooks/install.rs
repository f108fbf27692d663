// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes the hooks into libc's instructions, with all threads standing.

#![forbid(unsafe_code)]

use super::text::Thunks;
use super::{Hooks, MET, NAMES, WRITTEN};
use crate::debug::COUNTERS;
use crate::debug_log;
use core::sync::atomic::Ordering;

/// Where the sites of one function of libc are met.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    Nowhere,
    Partly,
    Everywhere,
}

impl Hooks {
    /// Whether there are some that nobody has tried to write.
    pub fn are_due(&self) -> bool {
        !self.tried && self.count > 0
    }

    /// Writes the hooks, with all threads standing, before the first promotion.
    /// `standing` is one of them.
    pub fn write(&mut self, standing: i32) {
        if core::mem::replace(&mut self.tried, true) || self.count == 0 {
            return;
        }
        WRITTEN.store(true, Ordering::Release);
        let thunks = Thunks { page: self.page };
        let mut met = [Met::Nowhere; NAMES.len()];
        for i in 0..self.count {
            let number = self.sites[i].number;
            let Some(name) = NAMES.iter().position(|n| n.1 == number) else {
                continue;
            };
            match thunks.lead(i, &self.sites[i], standing) {
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
}
