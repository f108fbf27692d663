// SPDX-License-Identifier: MIT OR Apache-2.0
//! The attacher's side: permits, attachments and their faults.

#![forbid(unsafe_code)]

pub mod overlay;
pub mod permits;
pub mod sever;
pub mod sigbus;
pub mod waiters;
pub mod withdrawn;

use super::program::Program;
use super::sys::{held, hugetlb, uffd, Span, Sys, HUGE};
use crate::debug_log;
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
pub use crate::user::program::pieces::Piece;
use overlay::FIXED;
use permits::Permits;
use sigbus::{FaultingThreads, Poisoned};

/// A page of the memfd may be one that its owner is still filling. So a page is
/// only ever mapped here after the owner has said that it is ready: until then
/// a touch is reported whether the file has the page or not. And it is mapped
/// write-protected where the owner may not write either, or the permit does not
/// allow it: then a write is reported too.
pub const GATED: u64 = uffd::MODE_MISSING | uffd::MODE_MINOR | uffd::MODE_WP;

/// The kinds of touches that are told where writing is allowed. The kernel maps huge
/// pages only where nothing is registered for write protection; so a part that turns out
/// to be read-only is registered once more, for that too.
const WRITABLE: u64 = uffd::MODE_MISSING | uffd::MODE_MINOR;

/// Where an attachment is to stand.
#[derive(Clone, Copy)]
pub enum Place {
    /// Where pages of this size can be mapped.
    ForPages(usize),
    /// Here, where nothing is watched any more.
    At(usize),
}

/// The file of an owner's exported address space, and its identity as mappings show it.
#[derive(Clone, Copy)]
pub struct OwnersFile {
    pub memfd: Fd,
    pub identity: (u64, u64),
}

/// What this process has attached: permits, and threads that wait for pages. Where
/// attachments stand is known to the [`Program`]. All zero is valid; the service
/// gives the real values at its start.
pub struct Attacher {
    pub permits: Permits,
    /// What takes the place of a lost owner's memory, a file without a page, once
    /// it is needed. And its identity.
    gone: Option<OwnedFd>,
    gone_identity: (u64, u64),
    pub poisoned: Poisoned,
    pub faulting: FaultingThreads,
    pub hugetlb: hugetlb::Seen,
    /// Touching a hole can be answered with SIGBUS by userfaultfd.
    can_poison: bool,
    /// A page can be mapped write-protected at once. Without, the threads stand
    /// while it is mapped first and protected then.
    can_map_protected: bool,
}

impl Attacher {
    /// Takes note of what this kernel can do.
    pub fn begin(&mut self, poison: bool, map_protected: bool) {
        (self.can_poison, self.can_map_protected) = (poison, map_protected);
    }

    /// Whether a touch of a hole can be answered with SIGBUS by userfaultfd.
    pub fn can_poison(&self) -> bool {
        self.can_poison
    }

    /// Whether a page can be mapped write-protected at once.
    pub fn can_map_protected(&self) -> bool {
        self.can_map_protected
    }

    /// Maps `source` of an owner's for permit `p`.
    pub fn map(
        &self,
        program: &mut Program,
        p: usize,
        source: Span,
        at: Place,
        file: &OwnersFile,
    ) -> Sys<usize> {
        let len = source.len();
        // Not to be touched before it is registered: a touch would be served
        // by the file, and not by its owner.
        let addr = match at {
            Place::ForPages(page) => program.place_window(source, page, file.memfd)?,
            Place::At(at) => {
                held::map(at, len, libc::PROT_NONE, FIXED, file.memfd, source.start())?
            }
        };
        let (write, mode) = match self.permits.get(p).writable {
            true if len >= HUGE => (libc::PROT_WRITE, WRITABLE),
            true => (libc::PROT_WRITE, GATED),
            false => (0, GATED),
        };
        let window = Span::of(addr, len);
        let ready = program
            .touches()
            .watch(window, mode)
            .and_then(|()| held::advise(addr, len, libc::MADV_DONTFORK))
            .and_then(|()| held::protect(addr, len, libc::PROT_READ | write));
        if let Err(errno) = ready {
            debug_log!("attachment of {len:#x} at {addr:#x} fails: errno {errno}");
            if program.touches().ensure_unwatched(window).is_ok() {
                let _ = held::unmap(addr, len);
            }
            return Err(if errno == Errno::EINVAL {
                Errno::ENOMEM
            } else {
                errno
            });
        }
        let _ = held::advise(addr, len, libc::MADV_DONTDUMP);
        let attachment = program.attachments.new_number();
        program.attachments.insert(Piece {
            start: window.start(),
            end: window.end(),
            source: source.start(),
            attachment,
            permit: p,
            overlay: false,
            identity: file.identity,
            offset: source.start(),
        });
        Ok(addr)
    }
}

/// Unmaps all pieces of the attachment that holds `addr`.
pub fn unmap(program: &mut Program, addr: usize) {
    let mut at = Some(addr);
    while let Some((piece, other)) = at.and_then(|at| program.attachments.take(at)) {
        at = other;
        program.for_mapped_parts(piece, &mut |program, part| {
            // Else each page would be looked at for its protection first.
            let _ = held::advise(part.start(), part.len(), libc::MADV_DONTNEED);
            if program.touches().ensure_unwatched(part).is_ok() {
                let _ = held::unmap(part.start(), part.len());
            }
        });
    }
}
