// SPDX-License-Identifier: MIT OR Apache-2.0
//! Overlays: an owner's shared file in the middle of an attachment.

#![forbid(unsafe_code)]

use super::{Attacher, OwnersFile, Piece};
use crate::debug_log;
use crate::errno::Errno;
use crate::fd::Fd;
use crate::user::program::Program;
use crate::user::protocol::message::{Elsewhere, Lent};
use crate::user::sys::sysv::{self, ipc_namespace};
use crate::user::sys::{held, hugetlb, uffd, PAGE};
use core::ffi::c_int;

pub const FIXED: c_int = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;

/// A file that an owner has lent, and what it says of it.
pub struct OnLoan {
    pub said: Elsewhere,
    /// None for a System V segment, which has a name.
    pub file: Option<Fd>,
}

impl OnLoan {
    /// The size of its pages, if it can be one. A file is asked itself.
    pub fn page(&self) -> Option<usize> {
        match self.said.file {
            Lent::Segment { page, .. } => hugetlb::sane(page),
            Lent::File => Some(self.file.map_or(PAGE, hugetlb::page_of_file)),
        }
    }
}

/// The part of a piece that shows what an owner lends: whole pages, since no part of
/// one can be mapped.
fn part_of(p: Piece, said: &Elsewhere, page: usize) -> Option<Piece> {
    let last = p.source + (p.end - p.start);
    let begin = said.span.start();
    let (lo, hi) = (begin.max(p.source), said.span.end().min(last));
    if lo >= hi || (lo | hi | said.offset) % PAGE != 0 || p.overlay {
        return None;
    }
    let (lo, hi) = (lo.next_multiple_of(page), hi & !(page - 1));
    let offset = said.offset.wrapping_add(lo.wrapping_sub(begin));
    let fits = (offset | p.start.wrapping_sub(p.source)) % page == 0;
    (fits && lo < hi).then(|| Piece {
        end: p.start + (hi - p.source),
        ..p.from(p.start + (lo - p.source))
    })
}

impl Attacher {
    /// The owner's memory around `addr` is the file in `lent`: it takes the place of
    /// that part of the attachment, with all threads standing.
    ///
    /// Answers whether the touch has an end: that it is served, or made again.
    pub fn cover(
        &mut self,
        program: &mut Program,
        addr: usize,
        lent: &OnLoan,
        file: &OwnersFile,
    ) -> bool {
        let Some(p) = program.attachments.at(addr) else {
            return true;
        };
        let Some(page) = lent.page() else {
            return false;
        };
        match part_of(p, &lent.said, page) {
            Some(part) if part.start <= addr && addr < part.end => {
                self.place(program, part, lent, file)
            }
            _ if page > PAGE => {
                debug_log!("no whole page of {page:#x} bytes is in an attachment");
                false
            }
            _ => true,
        }
    }

    fn place(
        &mut self,
        program: &mut Program,
        part: Piece,
        lent: &OnLoan,
        file: &OwnersFile,
    ) -> bool {
        let said = &lent.said;
        let offset = said.offset + (part.source - said.span.start());
        let mut whole = 0;
        program.for_mapped_parts(part, &mut |_, mapped| whole += mapped.len());
        if whole != part.end - part.start {
            // The program has changed it meanwhile.
            return true;
        }
        let write = said.writable && self.permits.get(part.permit).writable;
        let prot = libc::PROT_READ | if write { libc::PROT_WRITE } else { 0 };
        let (start, len) = (part.start, part.end - part.start);
        if !program.attachments.has_room() {
            // It could not be recalled.
            return false;
        }
        if program.unwatch(part.span()).is_err() {
            return false;
        }
        let placed = match said.file {
            // The same number would name another segment here.
            Lent::Segment { namespace, .. } if namespace != ipc_namespace() => Err(Errno::EXDEV),
            Lent::Segment { id, .. } => sysv::map(&program.space, id, (offset, len), start, write),
            Lent::File => {
                let fd = lent.file.unwrap_or(Fd::NONE);
                held::map(start, len, prot, FIXED, fd, offset).map(drop)
            }
        };
        if let Err(errno) = placed {
            debug_log!("a file cannot be mapped into an attachment: errno {errno}");
            // Some files refuse when nothing stands there any more.
            if let Err(errno) = self.put_back(program, part, file) {
                debug_log!("an attachment is lost: errno {errno}");
            }
            return false;
        }
        let _ = held::advise(start, len, libc::MADV_DONTFORK);
        // So that the program's own changes of it are told, where that can be.
        let _ = program.touches().watch(part.span(), uffd::MODE_WP);
        let Ok(Some(now)) = program.space.at(start) else {
            return true;
        };
        program.attachments.insert(Piece {
            overlay: true,
            identity: (now.device, now.inode),
            offset,
            ..part
        });
        self.faulting.forget(part.span());
        true
    }
}
