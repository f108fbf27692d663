// SPDX-License-Identifier: MIT OR Apache-2.0
//! A second adoption of the same file in one process.
//!
//! The address is taken by the first, whose destroy unmaps it, and stock's
//! destroy cannot be told to leave it. So the second gets a copy of its own at
//! other addresses ([`crate::hwloc::adopt::relocate`]): each goes with its topology, and
//! nothing stays.
//!
//! Who holds the address is not remembered but looked at, so that neither a
//! destroy nor a fork can make it wrong. A wrong guess would do no harm: the
//! copy is made from the file.

use crate::error::Result;
use crate::hwloc::adopt::source::Source;
use crate::hwloc::memory;
use crate::hwloc::range::file::is_refused;
use crate::hwloc::range::map::{self, Mapping};
use core::sync::atomic::{AtomicU32, Ordering};

const SLOTS: usize = 256;

/// How many adoptions are on their way to addresses that fall on a slot: what
/// is mapped there may not have its bytes yet. A fork can leave a count behind
/// in the child, which then copies where it might have said EBUSY.
static FILLING: [AtomicU32; SLOTS] = [const { AtomicU32::new(0) }; SLOTS];

fn slot(addr: usize) -> &'static AtomicU32 {
    // Addresses are chosen far apart or page after page: take of both.
    &FILLING[(addr >> 12 ^ addr >> 21 ^ addr >> 30) % SLOTS]
}

/// Says, while it lives, that an adoption is on its way to an address.
pub struct Filling {
    slot: &'static AtomicU32,
}

impl Filling {
    pub fn at(addr: usize) -> Self {
        let slot = slot(addr);
        slot.fetch_add(1, Ordering::SeqCst);
        Filling { slot }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.slot.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether an adoption is on its way to an address.
pub fn is_filling(addr: usize) -> bool {
    slot(addr).load(Ordering::SeqCst) != 0
}

/// Whether what is mapped at the file's address are the bytes of `copy`, the
/// file's own. Another thread may unmap them meanwhile: so the kernel reads
/// them, and answers that they are not there.
pub fn is_there(source: &Source, copy: &Mapping) -> Result<bool> {
    let wanted = &copy.bytes()[..source.used];
    let mut mapped = [0; 512];
    let start = &wanted[..mapped.len()];
    match map::read_memory(source.addr, &mut mapped) {
        Ok(()) if mapped == *start => {}
        // Header and topology of no other file are the same, but of a copy of it.
        Err(error) if is_refused(error) => return Ok(map::holds(source.addr, halves(start))),
        _ => return Ok(false),
    }
    let mut mapped = memory::filled(0, wanted.len().min(64 << 10))?;
    let mut at = source.addr;
    Ok(wanted.chunks(mapped.len()).all(|wanted| {
        let mapped = &mut mapped[..wanted.len()];
        let there = map::read_memory(at, mapped).is_ok();
        at += wanted.len();
        there && (mapped == wanted || source.strict_infos && is_changed(mapped, wanted))
    }))
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let half = |part: &[u8]| part.try_into().map(u32::from_ne_bytes).unwrap_or(0);
    bytes.chunks_exact(4).map(half)
}

/// Whether `mapped` is `wanted` but for words that are 0: an adopted copy may
/// have been changed to the running release's liking.
fn is_changed(mapped: &[u8], wanted: &[u8]) -> bool {
    let words = mapped.chunks(8).zip(wanted.chunks(8));
    words
        .into_iter()
        .all(|(mapped, wanted)| mapped == wanted || mapped.iter().all(|b| *b == 0))
}
