// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `xpmem` command-line tool.

fn main() {}
