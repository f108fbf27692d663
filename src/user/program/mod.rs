// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program that is served: its threads, and its address space.

pub mod alarm;
pub mod child;
pub mod fork;
pub mod hold;
#[cfg(target_arch = "x86_64")]
mod limit;
pub mod restart;
pub mod scratch;
pub mod stop;
#[cfg(target_arch = "x86_64")]
mod waits;
