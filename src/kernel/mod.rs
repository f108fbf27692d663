// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back end behind `/dev/xpmem`.
