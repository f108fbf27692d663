// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lending: a file that the program maps shared is handed to attachers.
//!
//! Such memory cannot be moved into the memfd: others see it through the file.
//! So the attacher gets the file and maps it over that part of its window. It
//! cannot be punched either. When the program unmaps or changes the mapping, the
//! attachers are asked to take theirs away, and the program waits until they
//! have: a recall.

#![forbid(unsafe_code)]

use super::loans::LENT;
use super::refusal::Refusal;
use super::Owner;
use crate::debug_log;
use crate::errno::Errno;
use crate::fd::{self, OwnedFd};
use crate::user::arena::ranges::{Origin, Range};
use crate::user::arena::Shared;
use crate::user::protocol::message::{Elsewhere, Lent};
use crate::user::sys::maps::{Mapping, Name};
use crate::user::sys::sysv::ipc_namespace;
use crate::user::sys::{hugetlb, mem, procfs, task, Span, PAGE};
use core::ffi::{c_int, CStr};

/// What goes to an attacher.
pub struct Loan {
    /// The file; none for a System V segment.
    pub file: Option<OwnedFd>,
    pub span: Span,
    /// Offset of its start in the file.
    pub offset: usize,
    pub writable: bool,
    /// The id of the System V segment that it is, where there is no file.
    pub sysv: Option<i32>,
    /// The size of its pages: `span` and `offset` are whole ones.
    page: usize,
}

impl Loan {
    /// What an attacher is told of it.
    pub fn told(&self) -> Elsewhere {
        Elsewhere {
            span: self.span,
            offset: self.offset,
            writable: self.writable,
            file: self.sysv.map_or(Lent::File, |id| Lent::Segment {
                id,
                namespace: ipc_namespace(),
                page: self.page,
            }),
        }
    }
}

impl Owner {
    /// The file behind `addr`, if it is one that the program maps shared.
    /// `is_attachment` says so of a file by its identity, and `asker` is a connection.
    pub fn lend(
        &mut self,
        shared: &Shared,
        asker: usize,
        addr: usize,
        within: Span,
        is_attachment: &dyn Fn((u64, u64)) -> bool,
    ) -> Result<Option<Loan>, Refusal> {
        let Ok(Some(m)) = self.program.space.at(addr) else {
            return Ok(None);
        };
        let plain = matches!(m.name, Name::File | Name::SysV | Name::Device);
        let anonymous = m.name == Name::SharedAnonymous;
        if !m.shared || !m.read || self.is_own(&m) || !(plain || anonymous) {
            return Ok(None);
        }
        let lent = shared.promoted.first_in(Span::of(addr, 1));
        let lent = lent.is_some_and(|r| r.origin == Origin::Lent);
        let twice = anonymous && self.program.space.is_mapped_again(&m) != Ok(false);
        let kept = anonymous && self.is_kept(&m);
        if anonymous && !lent && !twice && !kept && !self.may_have_relatives(&m) {
            // It can be promoted.
            return Ok(None);
        }
        if m.name == Name::Device || is_attachment((m.device, m.inode)) {
            return Err(Refusal::Special);
        }
        self.can_see_end_of(&m)?;
        let file = self.file_of(&m);
        // The inode of such a segment is its id.
        let sysv = (file.is_none() && m.name == Name::SysV).then_some(m.inode as i32);
        if file.is_none() && sysv.is_none() {
            return Err(match (anonymous, twice) {
                _ if kept => Refusal::Kept,
                (true, true) => Refusal::Twice,
                (true, false) => Refusal::Relatives,
                _ => Refusal::SharedFile,
            });
        }
        self.note_lent(shared, &m, asker)?;
        let page = match &file {
            Some(file) => hugetlb::page_of_file(file.fd()),
            None => self.program.space.page_size(&m),
        };
        let part = m.span().cut_to(within);
        let lo = part.start() & !(page - 1);
        Ok(Some(Loan {
            file,
            span: Span::new(lo, part.end().next_multiple_of(page)),
            page,
            offset: m.offset + (lo - m.start),
            writable: m.write,
            sysv,
        }))
    }

    /// Puts the mapping under watch, before anybody gets it.
    fn note_lent(&mut self, shared: &Shared, m: &Mapping, asker: usize) -> Result<(), Refusal> {
        if !shared.promoted.has_room() {
            return Err(Refusal::Os(Errno::ENOMEM));
        }
        let Some(place) = self.loans.place_for(shared, m, asker) else {
            debug_log!(
                "too many of {LENT} mappings are lent: {:#x} is not",
                m.start
            );
            return Err(Refusal::Os(Errno::ENOMEM));
        };
        // Watched from here on, and so in the set: nobody changes it unaware.
        if let Err(errno) = self.program.changes().watch(m.span()) {
            debug_log!("a file at {:#x} cannot be watched: errno {errno}", m.start);
            return Err(Refusal::SharedFile);
        }
        self.loans.put(place, m, asker);
        shared.promoted.insert(Range::new(m.span(), Origin::Lent));
        // First the range, then the look at the guards; a thread puts its guard
        // down first and then looks at the ranges. One of the two sees the other.
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        if shared.guarded(m.span()) {
            return Err(Refusal::Later);
        }
        // It was looked at before it was watched, and to look for relatives takes long:
        // the program may have put another mapping there.
        let there = self.program.space.at(m.start).ok().flatten();
        if !there.is_some_and(|now| now.end >= m.end && now.is_still(m)) {
            let _ = self.program.changes().unwatch(m.span());
            shared.promoted.remove(m.span());
            return Err(Refusal::Later);
        }
        Ok(())
    }

    /// Opens the file behind a mapping, for stores where the mapping allows
    /// them: by the mapping itself, which needs a privilege, or by a descriptor
    /// of the program, or by its path.
    fn file_of(&mut self, m: &Mapping) -> Option<OwnedFd> {
        let mode = if m.write {
            libc::O_RDWR
        } else {
            libc::O_RDONLY
        };
        let flags = mode | libc::O_CLOEXEC | libc::O_NONBLOCK;
        let identity = Some((m.device, m.inode));
        let fits = |file: OwnedFd| {
            // Other pages are of files whose identity is what mappings show.
            let found = if hugetlb::page_of_file(file.fd()) > PAGE {
                let about = mem::identity(file.fd()).ok();
                about.map(|(device, inode, _)| (device, inode))
            } else {
                self.program.identity_as_mapped_for(file.fd(), m.write)
            };
            (found == identity).then_some(file)
        };
        let open = |path: &CStr| fd::open(path, flags, 0).ok().and_then(fits);
        let mut path = [0u8; 64];
        if let Some(file) = open(procfs::map_file_path(&mut path, (m.start, m.end))) {
            return Some(file);
        }
        let mut dir = [0u8; 32];
        let dir = procfs::proc_path(&mut dir, self.program.tgid(), b"/fd");
        let list = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        if let Ok(dir) = fd::open(dir, list, 0) {
            let numbered = |number: c_int| {
                let file = task::descriptor_of(self.program.pidfd(), number).ok()?;
                let (_, inode, _) = mem::identity(file.fd()).ok()?;
                let file = (inode == m.inode).then_some(file).and_then(fits)?;
                // Not the program's own: a position, flags and locks belong to
                // what is opened, and last as long as anybody has it.
                let other = mem::open_again(file.fd(), flags).ok().and_then(fits);
                Some((number, other.unwrap_or(file)))
            };
            // Files that are lent one after the other were mostly opened so: with
            // thousands of them a look at all descriptors for each takes minutes.
            let next = core::iter::once(self.loans.next_number());
            let mut numbers = next.chain(procfs::Numbers::from_start(dir.fd()));
            let found = numbers.find_map(numbered);
            if let Some((number, file)) = found {
                self.loans.note_number(number);
                return Some(file);
            }
        }
        let mut name = [0u8; 4096];
        let path = self.program.space.path_at(m.start, &mut name)?;
        open(path)
    }
}
