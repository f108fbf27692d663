// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back end that needs no module and no privilege.
//!
//! The exported address space of a process is a sparse memfd whose offset is
//! the process's virtual address. A page that is in the memfd is a page that is
//! shared: attaching is mapping the memfd, promotion moves a page of the
//! program into it, and revocation punches it out again.
//!
//! | room          | what is in it                                                     |
//! |---------------|-------------------------------------------------------------------|
//! | [`service`]   | the task's loop, and every flow that needs more than one room     |
//! | [`owner`]     | what this process exports: segments, promotion, revocation        |
//! | [`attacher`]  | what this process has attached: permits, attachments, faults      |
//! | [`hooks`]     | libc's memory calls, in the program's own threads                 |
//! | [`peers`]     | connections between services, and how they find each other        |
//! | [`program`]   | the program that is served: its threads, its address space        |
//! | [`arena`]     | the memory that its threads and the service share                 |
//! | [`protocol`]  | ids and messages                                                  |
//! | [`patience`]  | how long others are waited for                                    |
//! | [`span`]      | ranges of addresses                                               |
//! | [`sys`]       | system calls, without policy                                      |

pub mod arena;
pub mod attacher;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod hooks;
pub mod owner;
pub mod patience;
pub mod peers;
pub mod program;
pub mod protocol;
pub mod service;
mod span;
pub mod sys;

use crate::backend::Backend;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::uapi;
use arena::Command;
use core::ffi::c_int;
use peers::rendezvous;
use protocol::ids::Id;
use service::start;
use sys::{Span, PAGE};

/// The user back end: stateless here, its state is in [`arena`].
struct User;

static USER: User = User;

/// The user back end of this process.
///
/// # Errors
/// None: what the kernel lacks is told by the first call that needs it.
pub fn backend() -> Result<&'static dyn Backend> {
    Ok(&USER)
}

/// Has the service do something; a new one, if the program's rights have changed
/// or the old one has ended meanwhile.
fn call(command: Command) -> Result<u64> {
    const ATTEMPTS: u32 = 4;
    let mut answer = Err(Errno::ENOSYS);
    for _ in 0..ATTEMPTS {
        answer = start::running_with_same_rights()
            .and_then(|shared| shared.call_with_same_rights(command));
        if answer != Err(arena::OVER) {
            break;
        }
        answer = Err(Errno::ENOSYS);
    }
    answer.map_err(Error::from)
}

/// Exports what the module has exported as `segid`, too.
pub fn make_named(segid: i64, made: &uapi::Make) -> Result<()> {
    call(Command::Make {
        start: made.vaddr as usize,
        size: made.size,
        mode: made.permit_value as u32,
        module: segid,
    })
    .map(drop)
}

/// Withdraws what the module has exported as `segid`.
pub fn remove_named(segid: i64) -> Result<()> {
    let by_module = true;
    call(Command::Remove { segid, by_module }).map(drop)
}

/// Asks for access to what the module has exported as `segid`, and its owner by
/// its service, too.
pub fn get_named(segid: i64, flags: c_int) -> Result<i64> {
    let by_module = true;
    call(Command::Get {
        segid,
        flags,
        by_module,
    })
    .map(|id| id as i64)
}

impl Backend for User {
    fn name(&self) -> &'static str {
        "user"
    }

    fn version(&self) -> Result<c_int> {
        start::running().map_err(Error::from)?;
        Ok(uapi::CURRENT_VERSION)
    }

    fn make(&self, wanted: &uapi::Make) -> Result<i64> {
        let uapi::Make {
            vaddr,
            size,
            permit_type,
            permit_value,
            ..
        } = *wanted;
        let vaddr = usize::try_from(vaddr).map_err(|_| Error::Invalid)?;
        if permit_type != uapi::PERMIT_MODE || permit_value & !0o777 != 0 || size == 0 {
            return Err(Error::Invalid);
        }
        if size == uapi::MAXADDR_SIZE {
            if vaddr != 0 {
                return Err(Error::Invalid);
            }
        } else if !Span::below_top(vaddr, size).is_some_and(Span::is_whole_pages) {
            return Err(Error::Invalid);
        }
        call(Command::Make {
            start: vaddr,
            size,
            mode: permit_value as u32,
            module: 0,
        })
        .map(|id| id as i64)
    }

    fn remove(&self, segid: i64) -> Result<()> {
        if segid <= 0 {
            return Err(Error::Invalid);
        }
        let by_module = false;
        call(Command::Remove { segid, by_module }).map(drop)
    }

    fn get(&self, segid: i64, flags: c_int, permit_type: c_int, permit_value: u64) -> Result<i64> {
        let known = flags == uapi::RDONLY || flags == uapi::RDWR;
        if segid <= 0 || !known || permit_type != uapi::PERMIT_MODE || permit_value != 0 {
            return Err(Error::Invalid);
        }
        let by_module = false;
        let got = call(Command::Get {
            segid,
            flags,
            by_module,
        });
        let got = got.map(|id| id as i64);
        match (got, Id::decode(segid)) {
            (Err(Error::NotFound), Some(id)) if rendezvous::belongs_to_another_user(id.token) => {
                Err(Error::Denied)
            }
            (got, _) => got,
        }
    }

    fn release(&self, apid: i64) -> Result<()> {
        if apid <= 0 {
            return Err(Error::Invalid);
        }
        call(Command::Release { apid }).map(drop)
    }

    fn attach(&self, apid: i64, offset: i64, size: usize, vaddr: usize) -> Result<usize> {
        if apid <= 0 || vaddr % PAGE != 0 || offset % PAGE as i64 != 0 {
            return Err(Error::Invalid);
        }
        call(Command::Attach {
            apid,
            offset,
            size,
            vaddr,
        })
        .map(|addr| addr as usize)
    }

    fn detach(&self, vaddr: usize) -> Result<()> {
        if vaddr == 0 {
            return Ok(());
        }
        call(Command::Detach { addr: vaddr }).map(drop)
    }
}
