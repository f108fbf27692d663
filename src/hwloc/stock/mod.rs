// SPDX-License-Identifier: MIT OR Apache-2.0
//! hwloc's own implementation, as this process has it.

#[cfg(test)]
mod layouts;
pub mod library;
pub mod minimal;
pub mod native;
pub mod objects;
mod proof;
