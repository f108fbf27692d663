// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ranges of addresses: free ones, what is mapped there, and files to map.

pub mod file;
pub mod hole;
pub mod map;
pub mod reserved;
