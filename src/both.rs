// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both back ends at a time, where the kernel module is loaded.
//!
//! What is made is exported by the module and, under the same segid, by the
//! service: whoever has only the module attaches as ever. What is attached comes
//! from the owner's service, if it exports both ways: ordinary shared pages, which
//! system calls may pin. Everything else comes from the module.
//!
//! An id is the module's, or else the service's; both are too random to meet.

#![forbid(unsafe_code)]

use crate::backend::Backend;
use crate::debug_log;
use crate::error::{Error, Result};
use crate::{kernel, uapi, user};
use core::ffi::c_int;

struct Both;

static BOTH: Both = Both;

/// The back end that is both.
pub fn backend() -> &'static dyn Backend {
    &BOTH
}

/// What the service answers to what the module does not know.
fn or_service<T>(
    answer: Result<T>,
    unknown: Error,
    ask: impl FnOnce(&'static dyn Backend) -> Result<T>,
) -> Result<T> {
    match answer {
        Err(error) if error == unknown => match user::backend().and_then(ask) {
            Err(Error::Unsupported) => Err(error),
            answer => answer,
        },
        answer => answer,
    }
}

impl Backend for Both {
    fn name(&self) -> &'static str {
        "both"
    }

    fn version(&self) -> Result<c_int> {
        kernel::backend().version()
    }

    fn make(&self, wanted: &uapi::Make) -> Result<i64> {
        let segid = kernel::backend().make(wanted)?;
        if let Err(error) = user::make_named(segid, wanted) {
            debug_log!("exported by the module alone: {error:?}");
        }
        Ok(segid)
    }

    fn remove(&self, segid: i64) -> Result<()> {
        // The module knows whether the caller may.
        kernel::backend().remove(segid)?;
        let _ = user::remove_named(segid);
        Ok(())
    }

    fn get(&self, segid: i64, flags: c_int, permit_type: c_int, permit_value: u64) -> Result<i64> {
        let apid = kernel::backend().get(segid, flags, permit_type, permit_value)?;
        match user::get_named(segid, flags) {
            Ok(named) => {
                let _ = kernel::backend().release(apid);
                Ok(named)
            }
            Err(_) => Ok(apid),
        }
    }

    fn release(&self, apid: i64) -> Result<()> {
        or_service(kernel::backend().release(apid), Error::NotFound, |user| {
            user.release(apid)
        })
    }

    fn attach(&self, apid: i64, offset: i64, size: usize, vaddr: usize) -> Result<usize> {
        let answer = kernel::backend().attach(apid, offset, size, vaddr);
        or_service(answer, Error::NotFound, |user| {
            user.attach(apid, offset, size, vaddr)
        })
    }

    fn detach(&self, vaddr: usize) -> Result<()> {
        or_service(kernel::backend().detach(vaddr), Error::Invalid, |user| {
            user.detach(vaddr)
        })
    }
}
