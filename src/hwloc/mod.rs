// SPDX-License-Identifier: MIT OR Apache-2.0
//! hwloc topologies shared between processes.
//!
//! Three functions of libhwloc are replaced: they write a topology into a
//! file and adopt it from there, at the same address in every process. The
//! file, the layouts and the answers are those of hwloc, so either side may
//! be stock. Everything else is libhwloc's own, found in the process.
//!
//! | where        | what                                                     |
//! |--------------|----------------------------------------------------------|
//! | [`layout`]   | the structures of layout ABI `0x20400` (hwloc 2.4 to 2.15), and what others change |
//! | [`bits`]     | sets of small integers                                   |
//! | [`image`]    | bytes of a file, reached by bounded addresses            |
//! | [`validate`] | is a file a topology, whole and consistent?              |
//! | [`resolve`]  | from stored indexes to objects                           |
//! | [`length`]   | what stock would need                                    |
//! | [`encode`]   | a topology as bytes                                      |
//! | [`mod@write`]    | `get_length`, `write`                                    |
//! | [`adopt`]    | `adopt`                                                  |
//! | [`range`]    | addresses that are free in several processes, and what is mapped |
//! | [`stock`]    | the libhwloc of a topology, and its binding hooks        |
//! | [`tool`]     | what the command-line tool alone needs                   |
//! | [`memory`]   | allocations that may fail; [`environment`] variables     |

pub mod adopt;
pub mod bits;
pub mod encode;
pub mod environment;
pub mod image;
pub mod layout;
pub mod length;
pub mod memory;
pub mod range;
pub mod resolve;
pub mod stock;
pub mod tool;
pub mod validate;
pub mod write;
