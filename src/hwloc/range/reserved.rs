// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which ranges are reserved. No lock: a fork could leave it held.

use crate::error::{Error, Result};
use core::sync::atomic::{AtomicUsize, Ordering};

/// How many ranges can be reserved at a time.
const RESERVATIONS: usize = 16;

/// Reserved ranges: address and length. A slot belongs to whoever changes
/// its address from or to [`TAKEN`].
static RESERVED: [[AtomicUsize; 2]; RESERVATIONS] =
    [const { [AtomicUsize::new(0), AtomicUsize::new(0)] }; RESERVATIONS];
/// A slot being filled.
const TAKEN: usize = 1;

/// Writes a reservation down.
pub fn note(addr: usize, length: usize) -> Result<()> {
    for slot in &RESERVED {
        let free = slot[0].compare_exchange(0, TAKEN, Ordering::AcqRel, Ordering::Relaxed);
        if free.is_ok() {
            slot[1].store(length, Ordering::Relaxed);
            slot[0].store(addr, Ordering::Release);
            return Ok(());
        }
    }
    Err(Error::NoMemory)
}

/// Whether exactly this range is reserved.
pub fn is_reserved(addr: usize, length: usize) -> bool {
    RESERVED
        .iter()
        .any(|s| s[0].load(Ordering::Acquire) == addr && s[1].load(Ordering::Relaxed) == length)
}

/// Ends a reservation without unmapping: the caller owns the range now.
pub fn take(addr: usize, length: usize) -> bool {
    addr > TAKEN
        && RESERVED.iter().any(|slot| {
            slot[1].load(Ordering::Relaxed) == length
                && slot[0]
                    .compare_exchange(addr, 0, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
        })
}
