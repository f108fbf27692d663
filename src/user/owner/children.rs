// SPDX-License-Identifier: MIT OR Apache-2.0
//! Gives a stopped fork child private copies of what is promoted.

#![forbid(unsafe_code)]

use super::revoke::RW;
use super::Owner;
use crate::errno::Errno;
use crate::user::arena;
use crate::user::arena::ranges::Origin;
use crate::user::sys::advice::{advice_for, Bits, ABSENT, WIPED};
use crate::user::sys::trace::{self, Waited};
use crate::user::sys::{mem, regs, Sys};

impl Owner {
    /// Gives the standing child private copies.
    pub fn privatize(&mut self, child: i32) -> Sys<()> {
        let Some(shared) = arena::existing() else {
            return Ok(());
        };
        if crate::testing::children_inherit() {
            return Ok(());
        }
        let original = regs::registers(child)?;
        let mut done = Ok(());
        let mut i = 0;
        while let (Some(r), Ok(())) = (shared.promoted.get(i), done) {
            i += 1;
            if r.origin == Origin::Private {
                done = self.for_each_setting(r, &mut |service, lo, hi, bits| {
                    service.privatize_range(child, &original, (lo, hi), bits)
                });
            }
        }
        regs::set_registers(child, &original)?;
        done
    }

    /// Says of `[lo, hi)` whether children inherit it. They cannot have what is sealed,
    /// since nothing could take its place there: they are given a copy where they have
    /// nothing.
    pub fn advise_for_children(&self, lo: usize, hi: usize, advice: i32) -> Sys<()> {
        let mut at = lo;
        while at < hi {
            let sealed = if advice == libc::MADV_DOFORK {
                self.program.space.first_sealed(at, hi)?
            } else {
                None
            };
            let (start, end) = sealed.unwrap_or((hi, hi));
            if at < start {
                let _ = mem::advise(at, start - at, advice);
            }
            at = end;
        }
        Ok(())
    }

    fn privatize_range(
        &mut self,
        child: i32,
        original: &regs::Registers,
        (start, end): (usize, usize),
        bits: Bits,
    ) -> Sys<()> {
        if bits & ABSENT != 0 {
            return Ok(());
        }
        let mut lo = start;
        while lo < end {
            let Some(m) = self.program.space.at(lo)? else {
                return Err(Errno::EFAULT);
            };
            let hi = m.end.min(end);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            let flags = flags | libc::MAP_NORESERVE;
            let none = u64::MAX;
            let map = [
                lo as u64,
                (hi - lo) as u64,
                RW as u64,
                flags as u64,
                none,
                0,
            ];
            in_child(child, original, libc::SYS_mmap, map)?;
            for advice in advice_for(bits) {
                let advise = [lo as u64, (hi - lo) as u64, advice as u64, 0, 0, 0];
                in_child(child, original, libc::SYS_madvise, advise)?;
            }
            if bits & WIPED == 0 {
                let mut at = lo;
                while let Some(data) = mem::next_data(self.memfd, at, hi) {
                    let (start, len) = (data.start(), data.len());
                    mem::copy_file_to_process(self.memfd, child, start, len)?;
                    at = data.end();
                }
            }
            if m.prot() != RW {
                let protect = [lo as u64, (hi - lo) as u64, m.prot() as u64, 0, 0, 0];
                in_child(child, original, libc::SYS_mprotect, protect)?;
            }
            lo = hi;
        }
        Ok(())
    }
}

/// Has a standing thread make one system call, and leaves it at its exit.
fn in_child(
    child: i32,
    original: &regs::Registers,
    number: libc::c_long,
    args: [u64; 6],
) -> Sys<()> {
    let mut regs = *original;
    regs.prepare_syscall(number, args);
    regs::set_registers(child, &regs)?;
    for _ in 0..2 {
        trace::to_syscall(child, 0)?;
        loop {
            match trace::wait_soon(child, || false) {
                Waited::Syscall => break,
                // A signal on its way: it comes again when the child runs.
                Waited::Stopped { signal, .. } => trace::to_syscall(child, signal)?,
                _ => return Err(Errno::ESRCH),
            }
        }
    }
    match regs::registers(child)?.answer() {
        answer if (-4095..0).contains(&answer) => Err(Errno::new(-answer as i32)),
        _ => Ok(()),
    }
}
