// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands of the program's threads.

#![forbid(unsafe_code)]

use super::attach::Wanted;
use super::pending::Reply;
use crate::errno::Errno;
use crate::user::arena::{Command, Shared};
use crate::user::owner::remap::Remap;
use crate::user::peers::names;
use crate::user::service::state::Service;
use crate::user::sys::{task, Span, Sys};

/// No errno: the owner that was dialled has too many who wait to be accepted.
pub const OWNER_BUSY: Errno = Errno::new(1 << 16);

impl Service {
    /// Serves the commands of the program's threads.
    pub fn on_bell(&mut self, shared: &Shared) {
        task::count_down(self.bell);
        self.take_commands(shared);
    }

    pub fn take_commands(&mut self, shared: &Shared) {
        self.retrying = false;
        let mut from = 0;
        while let Some((slot, command)) = shared.take(from) {
            from = slot + 1;
            self.serve(shared, slot, command);
            self.pay_debts();
        }
    }

    /// Makes a segment; unless `name` is 0, the module has made it as that, too.
    fn make_named(&mut self, span: Span, mode: u32, name: i64) -> Sys<u64> {
        if name == 0 {
            return self.owner.segments.make(span, mode);
        }
        self.owner.program.meet_the_module()?;
        let segid = self.owner.segments.make(span, mode)?;
        names::note(self.peers.token(), segid as i64, name)?;
        Ok(segid)
    }

    fn serve(&mut self, shared: &Shared, slot: usize, command: Option<Command>) {
        let reply = match command {
            Some(command) => self.reply(shared, slot, command),
            None => Reply::Now(Err(Errno::EINVAL)),
        };
        let Reply::Now(answer) = reply else {
            return;
        };
        if answer == Err(OWNER_BUSY) {
            return self.try_again(shared, slot);
        }
        self.pending.answered(slot);
        shared.finish(slot, answer);
    }

    fn reply(&mut self, shared: &Shared, slot: usize, command: Command) -> Reply {
        let span = command.span();
        Reply::Now(match command {
            Command::Make {
                start,
                size,
                mode,
                module,
            } => {
                // From now on what a device is to pin is promoted before.
                let _ = self.owner.meet_libc();
                self.make_named(Span::of(start, size), mode, module)
            }
            Command::Remove { segid, by_module } => {
                return self.remove(shared, slot, names::take_segid(segid, by_module))
            }
            Command::Get {
                segid,
                flags,
                by_module,
            } => return self.get(shared, slot, names::segid(segid, by_module), flags),
            Command::Release { apid } => return self.release(shared, slot, apid),
            Command::Attach {
                apid,
                offset,
                size,
                vaddr,
            } => {
                let wanted = Wanted {
                    apid,
                    offset,
                    size,
                    vaddr,
                };
                return self.attach(shared, slot, &wanted);
            }
            Command::Detach { addr } => self.detach(addr),
            Command::Pin { .. } => self.before_pin(shared, span),
            Command::Pinned { .. } => {
                self.owner.keep(span);
                Ok(0)
            }
            Command::Bear { .. } if self.recalling => Err(Errno::EAGAIN),
            Command::Bear { .. } => self.owner.bear(shared, span),
            Command::Retire { .. } => {
                self.owner.learn_from(shared, span);
                self.retire(span);
                Ok(0)
            }
            Command::Demote { .. } => {
                // What peers store while it is copied would be lost.
                self.withdraw(shared, span);
                self.demote_stopped(span).map(|()| 0)
            }
            Command::Withdraw { .. } => {
                self.withdraw(shared, span);
                Ok(0)
            }
            Command::Advise { advice, .. } => self.owner.advise_all(span, advice),
            Command::Discard { advice, .. } => self.owner.discard_all(span, advice),
            Command::Remap {
                old,
                old_len,
                new_len,
                flags,
                target,
            } => {
                let r = Remap {
                    old,
                    old_len,
                    new_len,
                    flags,
                    target,
                };
                return self.remap(shared, slot, r);
            }
            Command::RecallSegment { addr } => {
                self.recall_segment(shared, addr);
                Ok(0)
            }
            Command::Rearrange { .. } => self.rearrange(shared, span),
            Command::ForkBegin { tid, alone } => Ok(self.fork_begin(shared, tid, alone)),
            Command::ForkEnd {} => {
                self.fork_end();
                Ok(0)
            }
            // The end of this service is the answer.
            Command::Rights { tid } => {
                self.on_other_rights(shared, tid);
                return Reply::Later;
            }
        })
    }

    /// The owner that a command is about has more to accept than it can: the
    /// command is looked at again, for a while.
    fn try_again(&mut self, shared: &Shared, slot: usize) {
        if !self.pending.retry(slot) {
            return shared.finish(slot, Err(Errno::ENOENT));
        }
        self.retrying = true;
        shared.put_back(slot);
    }
}
