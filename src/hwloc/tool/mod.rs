// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the command-line tool alone needs.

pub mod file;
pub mod machine;
