// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program that is served: its threads, and its address space.

pub mod alarm;
pub mod fork;
pub mod scratch;
pub mod stop;
