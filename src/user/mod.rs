// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back end that needs no module and no privilege.
