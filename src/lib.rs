// SPDX-License-Identifier: MIT OR Apache-2.0
//! Load and store directly in another process's memory.
//!
//! One idea carries everything here: *an exported address space is a file
//! whose offset is the owner's virtual address*. Attaching is mapping that
//! file; revoking is removing a range of it.
//!
//! The map of the house, in reading order:
//!
//! | where          | what                                                            |
//! |----------------|-----------------------------------------------------------------|
//! | [`capi`]       | the exported C symbols: thin shims over [`api`]                 |
//! | [`api`]        | the operations as Rust functions: find the back end, count, log |
//! | [`backend`]    | what a back end does; the choice, once per process, of who serves |
//! | [`kernel`]     | back end 1: ioctls on `/dev/xpmem`                              |
//! | [`user`]       | back end 2: no module, no privilege                             |
//! | [`hwloc`]      | topologies of hwloc in shared memory                            |
//! | [`uapi`]       | the ioctl numbers and structures both speak                     |
//! | [`ioctl`]      | `xpmem_ioctl` where there is no device to do it                 |
//! | [`error`]      | every way to fail, and its errno                                |
//! | [`facilities`] | what is used of the kernel, and what is done without it         |
//! | [`debug`]      | `XPMEM_DEBUG`, the counters and the one line at exit            |
//! | [`process`]    | which process is this: the answer that a fork changes           |
//! | [`rawsys`]     | raw system calls                                                |

pub mod api;
pub mod backend;
pub mod capi;
pub mod debug;
pub mod error;
pub mod facilities;
pub mod hwloc;
pub mod ioctl;
pub mod kernel;
pub mod process;
pub mod rawsys;
pub mod uapi;
pub mod user;
