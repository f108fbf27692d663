// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replaces attachments whose owner's service is gone by what raises SIGBUS.

#![forbid(unsafe_code)]

use super::{Attacher, GATED};
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use crate::user::program::Program;
use crate::user::sys::{held, mem, Sys};

impl Attacher {
    /// Keeps what [`Self::sever`] needs: later there may be no
    /// descriptor left for it.
    pub fn prepare_to_sever(&mut self, program: &Program) -> Sys<()> {
        if self.gone.is_some() {
            return Ok(());
        }
        let no_room = |_| Errno::ENOMEM;
        let empty = mem::memfd(c"xpmem-gone").map_err(no_room)?;
        match program.identity_as_mapped(empty.fd()) {
            Some(identity) => {
                (self.gone, self.gone_identity) = (Some(empty), identity);
                Ok(())
            }
            None => Err(Errno::ENOMEM),
        }
    }

    /// The service of a living owner is gone: nobody would revoke its pages any
    /// more, so they must not stay in sight here. Its memory is not ours to
    /// change: something whose touch is SIGBUS takes the attachments' places,
    /// while the threads stand, and stays there until they are detached.
    pub fn sever(&self, program: &mut Program, i: usize) {
        let empty = self.gone.as_ref().map_or(Fd::NONE, OwnedFd::fd);
        let identity = self.gone_identity;
        let mut k = 0;
        while let Some(piece) = program.attachments.get(k) {
            k += 1;
            if self.permits.get(piece.permit).connection == i {
                program.for_mapped_parts(piece, &mut |program, part| {
                    if program.touches().ensure_unwatched(part).is_err() {
                        return;
                    }
                    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
                    // A store is SIGBUS too, and not SIGSEGV.
                    let prot = libc::PROT_READ | libc::PROT_WRITE;
                    let (start, len) = (part.start(), part.len());
                    let offset = start - piece.start;
                    let _ = held::map(start, len, prot, flags, empty, offset);
                    let _ = program.touches().watch(part, GATED);
                });
                program.attachments.show(k - 1, identity);
            }
        }
    }
}
