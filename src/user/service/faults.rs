// SPDX-License-Identifier: MIT OR Apache-2.0
//! Touches of attached memory, and changes that the program makes to it.

#![forbid(unsafe_code)]

use crate::debug::{count, COUNTERS};
use crate::errno::Errno;
use crate::fd::Fd;
use crate::user::attacher::overlay::OnLoan;
use crate::user::attacher::sigbus::Faulting;
use crate::user::attacher::{OwnersFile, GATED};
use crate::user::peers::Side;
use crate::user::program::pieces::Piece;
use crate::user::program::stop::Unstoppable;
use crate::user::protocol::limits::{CHUNK_MAX, CONNECTIONS};
use crate::user::protocol::message::{About, Extent, Message, Pages, Question, Wish};
use crate::user::service::state::Service;
use crate::user::sys::{page_down, page_up, task, uffd, Span, Sys, PAGE, TOP};

/// How often pages are tried to be mapped while the program changes its address
/// space; who waits for them then faults again.
const TRIES: u32 = 8;

impl Service {
    /// Faults on attachments, and changes that the program made to them.
    pub fn on_faults(&mut self) {
        while let Ok(event) = self.owner.program.touches().next() {
            match event.kind {
                uffd::EVENT_PAGEFAULT => {
                    let protected = event.a & uffd::FAULT_WP != 0;
                    let page = page_down(event.b as usize);
                    self.on_fault(page, event.c as u32 as i32, protected);
                }
                uffd::EVENT_UNMAP => {
                    let gone = Span::new(event.a as usize, event.b as usize);
                    self.owner.program.on_unmapped(gone);
                }
                uffd::EVENT_REMAP => {
                    let from = Span::of(event.a as usize, page_up(event.c as usize));
                    let attachments = &mut self.owner.program.attachments;
                    attachments.moved(from, event.b as usize);
                }
                _ => {}
            }
        }
    }

    /// A thread waits for a page: `protected` if it is there and the thread
    /// wants to write to it.
    pub fn on_fault(&mut self, page: usize, tid: i32, protected: bool) {
        let question = self.peers.next_question();
        let piece = self.owner.program.attachments.at(page);
        let fault = Faulting {
            page,
            tid,
            protected,
            question,
            connection: piece.map_or(CONNECTIONS, |p| {
                self.attacher.permits.get(p.permit).connection
            }),
            attachment: piece.map_or(0, |p| p.attachment),
            unsent: true,
        };
        if self.attacher.faulting.ask(fault) {
            self.ask_for_page(&fault);
        }
    }

    /// Asks for the page of a fault; whether that is settled for now.
    pub fn ask_for_page(&mut self, fault: &Faulting) -> bool {
        let (page, question, i) = (fault.page, fault.question, fault.connection);
        let piece = self.owner.program.attachments.at(page);
        let piece = piece.filter(|p| p.attachment == fault.attachment);
        let permit = piece.map(|p| self.attacher.permits.get(p.permit));
        let alive = i < CONNECTIONS && self.peers.side(i) == Side::Attacher;
        let permit = permit.filter(|p| !p.dead && p.connection == i && alive);
        let (Some(piece), Some(permit)) = (piece, permit) else {
            self.attacher.faulting.is_sent(question);
            if piece.is_some() || fault.attachment == 0 {
                self.answer_sigbus(page, question);
            } else {
                // Something else stands there by now.
                self.attacher.fault_again(&self.owner.program, page);
            }
            return true;
        };
        let mut m = Message::question(Question::Share(Wish {
            segid: permit.segid,
            addr: piece.source_of(page),
            span: Span::new(piece.source, piece.source_of(piece.end)),
            extent: Extent::Page,
        }));
        (m.cookie, m.serial) = (page as u64, question);
        let sent = self.peers.ask(i, &m);
        if sent {
            self.attacher.faulting.is_sent(question);
        }
        sent
    }

    /// Owner `i` has answered a fault. The answer is used where a thread still
    /// waits for that page, having asked this owner, and where the attachment is
    /// the one that it asked for: else it is too late, or a lie.
    pub fn on_fault_answer(&mut self, i: usize, m: &Message, pages: Pages, file: Option<Fd>) {
        let page = page_down(m.cookie as usize);
        let asked = self.attacher.faulting.last(page).copied();
        let Some(asked) = asked.filter(|f| f.connection == i) else {
            return;
        };
        let still = |p: &Piece| {
            p.attachment == asked.attachment && self.attacher.permits.get(p.permit).connection == i
        };
        let Some(piece) = self.owner.program.attachments.at(page).filter(still) else {
            return self.attacher.fault_again(&self.owner.program, page);
        };
        let source = piece.source_of(page);
        match pages {
            Pages::Elsewhere(said) if said.span.contains(source) => {
                count(&COUNTERS.faults_served);
                if !self.overlay(i, page, &OnLoan { said, file }) {
                    return self.answer_sigbus(page, m.serial);
                }
            }
            Pages::Here { span, about } if span.contains(source) => {
                let read_only =
                    about == About::ReadOnly || !self.attacher.may_write(&self.owner.program, page);
                if read_only && self.attacher.faulting.is_refused_write(page) {
                    return self.answer_sigbus(page, m.serial);
                }
                count(&COUNTERS.faults_served);
                self.publish(page, span, about);
            }
            _ => return self.answer_sigbus(page, m.serial),
        }
        self.attacher.fault_again(&self.owner.program, page);
    }

    /// The owner has `ready`: maps what of it is within the piece
    /// that holds `addr`, and lets those go on who wait for it. No owner shares
    /// more at a time than is looked at here: each page may cost a system call.
    pub fn publish(&mut self, addr: usize, ready: Span, about: About) {
        let read_only =
            about == About::ReadOnly || !self.attacher.may_write(&self.owner.program, addr);
        for _ in 0..TRIES {
            let Some(p) = self.owner.program.attachments.at(addr) else {
                return;
            };
            if p.overlay {
                return;
            }
            let source = p.source_of(addr);
            let near = Span::new(
                source.saturating_sub(CHUNK_MAX),
                source.saturating_add(CHUNK_MAX),
            );
            let pages = Span::new(page_up(ready.start().min(TOP)), page_down(ready.end()));
            let shown = Span::of(p.source, p.span().len());
            let part = pages.cut_to(shown).cut_to(near);
            if part.is_empty() {
                return;
            }
            let here = Span::of(p.start + (part.start() - p.source), part.len());
            // The whole range is mapped, not only what SEEK_DATA finds: pages that the
            // file has but nobody has written to are holes to it.
            let huge = about == About::Huge;
            let done = if read_only {
                self.map_protected(p, here)
            } else {
                self.map_writable(here, huge)
            };
            self.attacher.faulting.forget(here);
            self.owner.program.touches().wake(here);
            if done != Err(Errno::EAGAIN) {
                return;
            }
            // The program is unmapping or moving something, and waits for us to
            // take note of it.
            self.on_faults();
        }
    }

    /// Maps the pages of `part` that the file has.
    fn map_writable(&mut self, part: Span, huge: bool) -> Sys<()> {
        let touches = self.owner.program.touches();
        // What the owner could not write to before, it can now.
        if touches.map(part, huge)? {
            // Where nothing was ever protected the kernel knows of no protection.
            match touches.unprotect(part) {
                Err(Errno::ENOENT) => {}
                done => return done,
            }
        }
        Ok(())
    }

    /// Maps the pages of `part` of `p` that the file has, for loads alone.
    fn map_protected(&mut self, p: Piece, part: Span) -> Sys<()> {
        if self.attacher.permits.get(p.permit).writable {
            self.owner
                .program
                .for_mapped_parts(p, &mut |program, mapped| {
                    let _ = program.touches().watch(mapped, GATED);
                });
        }
        if self.attacher.can_map_protected() {
            return self.owner.program.touches().map_small(part, true);
        }
        // If they cannot be stopped the pages can be written to for a moment.
        let standing = self.owner.stop().ok();
        let mapped = self.owner.program.touches().map_small(part, false);
        let done = self.owner.program.touches().protect(part).and(mapped);
        self.owner.resume(standing);
        done
    }

    /// The owner's memory around `addr` is the file that it has `lent`, if it is one: it takes the place of
    /// that part of the attachment, with all threads standing.
    ///
    /// Answers whether the touch has an end: that it is served, or made again.
    pub fn overlay(&mut self, i: usize, addr: usize, lent: &OnLoan) -> bool {
        let standing = match self.owner.stop() {
            Ok(standing) => Some(standing),
            // The touch is made again, and asked again.
            Err(Unstoppable::Busy | Unstoppable::Ended) => return true,
            // A debugger has the threads: then they change nothing just now.
            Err(Unstoppable::Forbidden) => None,
        };
        self.on_faults();
        let c = self.peers.connection(i);
        let (memfd, identity) = (c.owners_file(), c.identity);
        let file = OwnersFile { memfd, identity };
        let program = &mut self.owner.program;
        let served = self.attacher.cover(program, addr, lent, &file);
        self.owner.resume(standing);
        served
    }

    /// The service of a living owner is gone: nobody would revoke its pages any
    /// more, so they are taken out of sight here.
    pub fn sever_attachments_of(&mut self, i: usize) {
        let standing = self.insist_on_stop(50);
        self.on_faults();
        self.attacher.sever(&mut self.owner.program, i);
        self.owner.resume(standing);
    }

    /// There is nothing at `page`, says the answer to `question`: whoever waits
    /// for it gets SIGBUS.
    pub fn answer_sigbus(&mut self, page: usize, question: u64) {
        let Some(tid) = self.attacher.faulting.last_asker(page, question) else {
            return;
        };
        self.attacher.faulting.forget(Span::of(page, PAGE));
        if self.attacher.can_poison() {
            match self.deliver(page, tid) {
                Ok(()) => {
                    self.attacher.faulting.stopped();
                    return;
                }
                // The thread faults again, and asks again. But one that is in a
                // system call can not be stopped before it has its answer.
                Err(Unstoppable::Busy) if self.attacher.faulting.tries_again() => {
                    self.owner.program.touches().wake(Span::of(page, PAGE));
                    return;
                }
                Err(_) => self.attacher.faulting.stopped(),
            }
        }
        let can = self.attacher.can_poison() && self.attacher.poisoned.has_room();
        let poisoned = can.then(|| self.owner.program.touches().poison(Span::of(page, PAGE)));
        if let Some(Ok(())) = poisoned {
            self.attacher.poisoned.push(page);
        } else {
            if !self.attacher.can_poison() || poisoned == Some(Err(Errno::EEXIST)) {
                // Linux before 6.6 cannot poison; or what is there cannot be
                // taken away while the threads run. The signal comes without its
                // address.
                let _ = task::signal_task(self.owner.program.tgid(), tid, libc::SIGBUS);
            }
            // The thread faults again, when there is room for its page.
            self.owner.program.touches().wake(Span::of(page, PAGE));
        }
    }

    /// Has thread `tid` take its SIGBUS, if the threads can be stopped. Others
    /// that wait for the page fault again.
    fn deliver(&mut self, page: usize, tid: i32) -> Result<(), Unstoppable> {
        if self.owner.program.forks.watched() == Some(tid) {
            return Err(Unstoppable::Forbidden);
        }
        let standing = self.owner.stop()?;
        let program = &mut self.owner.program;
        self.attacher.deliver(&standing, program, page, tid);
        self.owner.resume(standing);
        Ok(())
    }

    /// Makes pages touchable again whose SIGBUS has been taken by threads that
    /// are not traced. All others stand meanwhile, so that nobody can have put
    /// other memory there between the look and the deed.
    pub fn clear_poison(&mut self) {
        if !self.attacher.has_poison_to_clear() {
            return;
        }
        let standing = self.owner.stop().ok();
        self.on_faults();
        self.attacher.clear_poison(&self.owner.program);
        self.owner.resume(standing);
    }
}
