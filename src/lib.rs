// SPDX-License-Identifier: MIT OR Apache-2.0
//! Load and store directly in another process's memory.
//!
//! An owner exports memory and passes the number of the segment on; an attacher
//! maps it, and loads and stores there with no copy and no system call:
//!
//! ```
//! use xpmem::{api, uapi};
//!
//! # fn main() -> Result<(), xpmem::error::Error> {
//! # if api::back_end().is_err() {
//! #     return Ok(()); // Neither the module nor userfaultfd.
//! # }
//! // The owner: all of its address space, to processes of its own user.
//! let shared = Box::new(42_u64);
//! let address = std::ptr::from_ref(&*shared).expose_provenance();
//! let segid = api::make(0, uapi::MAXADDR_SIZE, uapi::PERMIT_MODE, 0o600)?;
//!
//! // The attacher, any other process; here the same one. It has segid and address.
//! let apid = api::get(segid, uapi::RDWR, uapi::PERMIT_MODE)?;
//! let page = address & !4095;
//! let window = api::attach(apid, page as i64, 4096)?;
//! let there = std::ptr::with_exposed_provenance::<u64>(window + (address - page));
//! // SAFETY: mapped by the line above, aligned as in the owner, and nobody writes to it.
//! assert_eq!(unsafe { there.read_volatile() }, 42);
//!
//! api::detach(window)?;
//! api::release(apid)?;
//! api::remove(segid)?;
//! # Ok(())
//! # }
//! ```
//!
//! What an attachment shows is always the owner's present memory. What the owner
//! has unmapped raises SIGBUS in whoever touches it, so a program that attaches
//! memory of others has to know when they are done with it.
//!
//! For users there are [`api`], [`error`] and [`uapi`]; the rest is inside.
//!
//! # The map of the house
//!
//! One idea carries everything here: *an exported address space is a file
//! whose offset is the owner's virtual address*. Attaching is mapping that
//! file; revoking is removing a range of it. In reading order:
//!
//! | where         | what                                                             |
//! |---------------|------------------------------------------------------------------|
//! | `capi`        | the exported C symbols: thin shims over [`api`]                  |
//! | [`api`]       | the operations as Rust functions: find the back end, count, log  |
//! | `choice`      | who serves, chosen once per process                              |
//! | `backend`     | what a back end does                                             |
//! | `backtrace`   | why the final libraries have none                                |
//! | `both`        | the two back ends together                                       |
//! | `kernel`      | back end 1: ioctls on `/dev/xpmem`                               |
//! | `user`        | back end 2: no module, no privilege                              |
//! | [`hwloc`]     | topologies of hwloc in shared memory                             |
//! | [`uapi`]      | the ioctl numbers and structures both speak                      |
//! | `ioctl`       | `xpmem_ioctl` where there is no device to do it                  |
//! | [`error`]     | every way to fail, and its errno                                 |
//! | `errno`       | why the kernel refused a system call                             |
//! | [`facilities`]| what is used of the kernel, and what is done without it          |
//! | [`environment`]| the environment variables                                       |
//! | `probe`       | tries those facilities, for the tool                             |
//! | `debug`       | `XPMEM_DEBUG`, the counters and the one line at exit             |
//! | `testing`     | switches with which tests have something left out                |
//! | `process`     | which process is this: the answer that a fork changes            |
//! | `fd`          | descriptors                                                      |
//! | `rawsys`      | raw system calls                                                 |
//!
//! Imports run downwards alone; `ci/imports.py` holds them to that.

pub mod api;
mod backend;
#[cfg(xpmem_no_backtrace)]
mod backtrace;
mod both;
mod capi;
mod choice;
mod debug;
#[doc(hidden)]
pub mod environment;
mod errno;
pub mod error;
#[doc(hidden)]
pub mod facilities;
mod fd;
#[doc(hidden)]
pub mod hwloc;
mod ioctl;
mod kernel;
#[cfg(feature = "tool")]
#[doc(hidden)]
pub mod probe;
mod process;
mod rawsys;
mod testing;
pub mod uapi;
mod user;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use user::fuzzing;

pub(crate) use debug::debug_log;
pub(crate) use rawsys::raw_syscall;
