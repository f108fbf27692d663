// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back end that needs no module and no privilege.
//!
//! The exported address space of a process is a sparse memfd whose offset is
//! the process's virtual address. A page that is in the memfd is a page that is
//! shared: attaching is mapping the memfd, promotion moves a page of the
//! program into it, and revocation punches it out again.
//!
//! | where           | what                                                         |
//! |-----------------|--------------------------------------------------------------|
//! | [`start`]       | the back end is brought up                                   |
//! | [`anchor`]      | a thread of the program that holds the service, and watches it |
//! | [`shared`]      | commands from the program's threads to the service           |
//! | [`service`]     | the loop: owner and attacher for its process                 |
//! | [`owner`]       | segments, permissions, requests for pages                    |
//! | [`promote`]     | the program's memory becomes pages of the memfd              |
//! | [`exchange`]    | how they take its place, or nothing changes                  |
//! | [`thrift`]      | how many ranges stand alone                                  |
//! | [`copies`]      | what is copied, and when                                     |
//! | [`copier`]      | on two processors, where it is long                          |
//! | [`closing`]     | descriptors of peers are closed                              |
//! | [`pins`]        | but not where a device writes to it                           |
//! | [`revoke`]      | what the program does to them reaches attachers              |
//! | [`lend`]        | shared files of the owner are handed out, and recalled         |
//! | [`segments`]    | but for those whose end nobody would tell                     |
//! | [`withdraw`]    | attachers let go of pages that stay where they are            |
//! | [`overlay`]     | and mapped into attachments                                   |
//! | [`remap`]       | mremap of what promotion has cut in pieces                    |
//! | [`hooks`]       | memory calls of libc are met before they happen               |
//! | [`settings`]    | what madvise said of promoted memory is kept                  |
//! | [`fork`]        | a child gets private copies                                  |
//! | [`rites`]       | the end of a service before its program's                    |
//! | [`stop`]        | all threads of the program stand still                       |
//! | [`attacher`]    | permits, attachments, faults                                 |
//! | [`pieces`]      | the table of attachments                                     |
//! | [`sigbus`]      | the answer to a touch of what is not there                   |
//! | [`peers`]       | connections between services                                 |
//! | [`admission`]   | who is taken as an attacher                                  |
//! | [`messages`]    | what is done with what comes on them                         |
//! | [`questions`]   | what owners are asked                                        |
//! | [`requests`]    | what attachers ask for                                       |
//! | [`turns`]       | and get, in turn                                             |
//! | [`limits`]      | how many of them there may be                                |
//! | [`recall`]      | what attachers must let go of                                |
//! | [`patience`]    | and how long that may take                                   |
//! | [`wire`]        | the messages on them                                         |
//! | [`rendezvous`]  | how processes find each other                                |
//! | [`folder`]      | and where                                                    |
//! | [`ids`]         | segids and apids                                             |
//! | [`ranges`]      | the set of promoted ranges                                   |
//! | [`scratch`]     | where mappings are made ready                                |
//! | [`sys`]         | system calls; all `unsafe` is there                          |

pub mod admission;
pub mod anchor;
pub mod attacher;
pub mod closing;
pub mod copier;
pub mod copies;
pub mod exchange;
pub mod folder;
pub mod fork;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod hooks;
pub mod ids;
pub mod lend;
pub mod limits;
pub mod messages;
pub mod overlay;
pub mod owner;
pub mod patience;
pub mod peers;
pub mod pieces;
pub mod pins;
pub mod promote;
pub mod questions;
pub mod ranges;
pub mod recall;
pub mod remap;
pub mod rendezvous;
pub mod requests;
pub mod revoke;
pub mod rites;
pub mod scratch;
pub mod segments;
pub mod service;
pub mod settings;
pub mod shared;
pub mod sigbus;
pub mod start;
pub mod stop;
pub mod sys;
pub mod thrift;
pub mod turns;
pub mod wire;
pub mod withdraw;

use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::uapi;
use core::ffi::c_int;
use ids::Id;
use shared::Op;
use sys::{PAGE, TOP};

/// The user back end: stateless here, its state is in [`shared`].
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
fn call(op: Op, args: [u64; 4]) -> Result<u64> {
    const ATTEMPTS: u32 = 4;
    let [a, b, c, d] = args;
    let mut answer = Err(libc::ENOSYS);
    for _ in 0..ATTEMPTS {
        answer =
            start::running_with_same_rights().and_then(|shared| shared.call(op, [a, b, c, d, 0]));
        if answer != Err(shared::OVER) {
            break;
        }
        answer = Err(libc::ENOSYS);
    }
    answer.map_err(Error::from_errno)
}

impl Backend for User {
    fn name(&self) -> &'static str {
        "user"
    }

    fn version(&self) -> Result<c_int> {
        start::running().map_err(Error::from_errno)?;
        Ok(uapi::CURRENT_VERSION)
    }

    fn make(
        &self,
        vaddr: usize,
        size: usize,
        permit_type: c_int,
        permit_value: u64,
    ) -> Result<i64> {
        if permit_type != uapi::PERMIT_MODE || permit_value & !0o777 != 0 || size == 0 {
            return Err(Error::Invalid);
        }
        if size == uapi::MAXADDR_SIZE {
            if vaddr != 0 {
                return Err(Error::Invalid);
            }
        } else if vaddr.checked_add(size).is_none_or(|end| end > TOP) || (vaddr | size) % PAGE != 0
        {
            return Err(Error::Invalid);
        }
        call(Op::Make, [vaddr as u64, size as u64, permit_value, 0]).map(|id| id as i64)
    }

    fn remove(&self, segid: i64) -> Result<()> {
        if segid <= 0 {
            return Err(Error::Invalid);
        }
        call(Op::Remove, [segid as u64, 0, 0, 0]).map(drop)
    }

    fn get(&self, segid: i64, flags: c_int, permit_type: c_int, permit_value: u64) -> Result<i64> {
        let known = flags == uapi::RDONLY || flags == uapi::RDWR;
        if segid <= 0 || !known || permit_type != uapi::PERMIT_MODE || permit_value != 0 {
            return Err(Error::Invalid);
        }
        let got = call(Op::Get, [segid as u64, flags as u64, 0, 0]).map(|id| id as i64);
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
        call(Op::Release, [apid as u64, 0, 0, 0]).map(drop)
    }

    fn attach(&self, apid: i64, offset: i64, size: usize, vaddr: usize) -> Result<usize> {
        if apid <= 0 || vaddr % PAGE != 0 || offset % PAGE as i64 != 0 {
            return Err(Error::Invalid);
        }
        let args = [apid as u64, offset as u64, size as u64, vaddr as u64];
        call(Op::Attach, args).map(|addr| addr as usize)
    }

    fn detach(&self, vaddr: usize) -> Result<()> {
        if vaddr == 0 {
            return Ok(());
        }
        call(Op::Detach, [vaddr as u64, 0, 0, 0]).map(drop)
    }
}
