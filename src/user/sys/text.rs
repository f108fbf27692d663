// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changing the first instructions of a function of libc.
