// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ranges of addresses: free ones, and what is mapped there.

pub mod hole;
pub mod map;
pub mod reserved;
