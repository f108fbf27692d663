// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attachments whose owner's service is gone are taken out of sight.

#![forbid(unsafe_code)]

use crate::user::attacher::GATED;
use crate::user::service::state::Service;
use crate::user::sys::{mem, uffd, Sys};

impl Service {
    /// Keeps what [`Self::sever_attachments_of`] needs: later there may be no
    /// descriptor left for it.
    pub fn prepare_to_sever(&mut self) -> Sys<()> {
        if self.gone >= 0 {
            return Ok(());
        }
        let no_room = |_| libc::ENOMEM;
        let empty = mem::memfd(c"xpmem-gone").map_err(no_room)?;
        match self.owner.program.identity_as_mapped(empty) {
            Some(identity) => {
                (self.gone, self.gone_identity) = (empty, identity);
                Ok(())
            }
            None => {
                crate::rawsys::close(empty);
                Err(libc::ENOMEM)
            }
        }
    }

    /// The service of a living owner is gone: nobody would revoke its pages any
    /// more, so they must not stay in sight here. Its memory is not ours to
    /// change: something whose touch is SIGBUS takes the attachments' places,
    /// while the threads stand, and stays there until they are detached.
    pub fn sever_attachments_of(&mut self, i: usize) {
        let (empty, identity) = (self.gone, self.gone_identity);
        let stopped = self.insist_on_stop(50);
        self.on_faults();
        let mut k = 0;
        while let Some(piece) = self.owner.program.attachments.get(k) {
            k += 1;
            if self.permits[piece.permit].connection == i {
                self.owner
                    .program
                    .for_mapped_parts(piece, |program, lo, len| {
                        if uffd::unwatch(program.faults, lo, len).is_err() {
                            return;
                        }
                        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
                        // A store is SIGBUS too, and not SIGSEGV.
                        let prot = libc::PROT_READ | libc::PROT_WRITE;
                        let offset = lo - piece.start;
                        let _ = mem::map(lo, len, prot, flags, empty, offset);
                        let _ = uffd::register(program.faults, lo, len, GATED);
                    });
                self.owner.program.attachments.show(k - 1, identity);
            }
        }
        if stopped {
            self.owner.resume();
        }
    }
}
