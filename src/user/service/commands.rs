// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands of the program's threads.

#![forbid(unsafe_code)]

use super::attach::Wanted;
use super::pending::Reply;
use crate::errno::Errno;
use crate::user::arena::{Op, Shared};
use crate::user::owner::remap::Remap;
use crate::user::peers::names;
use crate::user::service::state::Service;
use crate::user::sys::{task, Sys};
use core::ffi::c_int;

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
        while let Some((slot, op, args)) = shared.take(from) {
            from = slot + 1;
            self.serve(shared, slot, op, args);
            self.pay_debts();
        }
    }

    /// Makes a segment; unless `name` is 0, the module has made it as that, too.
    fn make_named(&mut self, start: usize, size: usize, mode: u32, name: i64) -> Sys<u64> {
        if name == 0 {
            return self.owner.segments.make(start, size, mode);
        }
        self.owner.program.meet_the_module()?;
        let segid = self.owner.segments.make(start, size, mode)?;
        names::note(self.peers.token(), segid as i64, name)?;
        Ok(segid)
    }

    fn serve(&mut self, shared: &Shared, slot: usize, op: Option<Op>, args: [u64; 5]) {
        let Reply::Now(answer) = self.reply(shared, slot, op, args) else {
            return;
        };
        if answer == Err(OWNER_BUSY) {
            return self.try_again(shared, slot);
        }
        self.pending.answered(slot);
        shared.finish(slot, answer);
    }

    fn reply(&mut self, shared: &Shared, slot: usize, op: Option<Op>, args: [u64; 5]) -> Reply {
        let [a, b, c, d, e] = args;
        let (start, end) = (a as usize, b as usize);
        Reply::Now(match op {
            Some(Op::Make) => {
                // From now on what a device is to pin is promoted before.
                let _ = self.owner.meet_libc();
                self.make_named(start, end, c as u32, d as i64)
            }
            Some(Op::Pin) => self.before_pin(shared, start, end),
            Some(Op::Remove) => return self.remove(shared, slot, names::take_segid(a, b)),
            Some(Op::Get) => return self.get(shared, slot, names::segid(a, c), b as c_int),
            Some(Op::Release) => return self.release(shared, slot, a as i64),
            Some(Op::Attach) => {
                let wanted = Wanted {
                    apid: a as i64,
                    offset: b as i64,
                    size: c as usize,
                    vaddr: d as usize,
                };
                return self.attach(shared, slot, &wanted);
            }
            Some(Op::Detach) => self.detach(start),
            Some(Op::Retire) => {
                self.retire(start, end);
                Ok(0)
            }
            Some(Op::Demote) => self.demote_stopped(start, end).map(|()| 0),
            Some(Op::Withdraw) => {
                self.withdraw(shared, start, end);
                Ok(0)
            }
            Some(Op::Advise) => self.owner.advise_all(start, end, c as c_int),
            Some(Op::Discard) => self.owner.discard_all(start, end, c as c_int),
            Some(Op::Remap) => {
                let r = Remap {
                    old: start,
                    old_len: end,
                    new_len: c as usize,
                    flags: d as c_int,
                    target: e as usize,
                };
                return self.remap(shared, slot, r);
            }
            Some(Op::RecallSegment) => {
                self.recall_segment(shared, start);
                Ok(0)
            }
            Some(Op::Rearrange) => self.rearrange(shared, start, end),
            Some(Op::ForkBegin) => Ok(self.fork_begin(shared, a as i32, b != 0)),
            // The end of this service is the answer.
            Some(Op::Rights) => {
                self.on_other_rights(shared, a as i32);
                return Reply::Later;
            }
            Some(Op::ForkEnd) => {
                self.fork_end();
                Ok(0)
            }
            None => Err(Errno::EINVAL),
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
