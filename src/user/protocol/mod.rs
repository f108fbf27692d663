// SPDX-License-Identifier: MIT OR Apache-2.0
//! What services tell each other: ids, messages, and how much of them there may be.

#![forbid(unsafe_code)]

pub mod answers;
pub mod ids;
pub mod limits;
pub mod message;
pub mod wire;
pub mod words;
