// SPDX-License-Identifier: MIT OR Apache-2.0
//! `XPMEM_DEBUG`: errors, decisions and counters.
