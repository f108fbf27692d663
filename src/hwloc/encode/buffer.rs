// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes under construction.

use crate::error::{Error, Result};
use crate::hwloc::bits::sum;
use crate::hwloc::memory;
use crate::hwloc::range::map::{self, Mapping, Place};
use core::ops::Range;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

/// The bytes under construction. The memory of a small one is kept for the
/// next: pages fresh from the kernel cost more than encoding into them.
pub struct Buffer {
    room: Mapping,
    /// It is for the next too, when this one is done.
    kept: bool,
    pub(super) used: usize,
    /// Bytes that are not zero any more.
    dirty: usize,
}

/// The memory that is kept, if any.
static KEPT: AtomicPtr<Buffer> = AtomicPtr::new(null_mut());
/// What is worth keeping, and no more.
const KEEP_LIMIT: usize = 512 << 10;

/// Does what needs memory; where there is none, once more without what is kept: that
/// may be the last mapping that the program had left.
pub fn without_kept_if_short<T>(call: impl Fn() -> Result<T>) -> Result<T> {
    match call() {
        Err(Error::NoMemory) if take_kept().is_some() => call(),
        other => other,
    }
}

fn take_kept() -> Option<Buffer> {
    let kept = KEPT.swap(null_mut(), Ordering::AcqRel);
    // SAFETY: `release` put it there; whoever swaps it out owns it.
    (!kept.is_null()).then(|| *unsafe { Box::from_raw(kept) })
}

impl Buffer {
    /// Small pages cost more than one huge page, from some forty on: what is not
    /// kept is in huge ones. Where memory is short it takes no more than it has to.
    fn new(capacity: usize) -> Result<Self> {
        let capacity = capacity.next_multiple_of(map::page_size());
        let buffer = |room, kept| Buffer {
            room,
            kept,
            used: 0,
            dirty: 0,
        };
        if capacity > KEEP_LIMIT {
            if let Ok(room) = map::map_huge(capacity) {
                return Ok(buffer(room, false));
            }
        }
        match map::map(0, capacity, Place::Anonymous) {
            Ok(room) => Ok(buffer(room, capacity <= KEEP_LIMIT)),
            Err(_) => Ok(buffer(map::map(0, capacity, Place::Inherited)?, false)),
        }
    }

    pub(super) fn with_capacity(capacity: usize) -> Result<Self> {
        let Some(mut buffer) = take_kept() else {
            return Buffer::new(capacity);
        };
        if buffer.room.len() < capacity {
            // A program may have no mapping or memory left for both.
            drop(buffer);
            return Buffer::new(capacity);
        }
        buffer.dirty = buffer.dirty.max(buffer.used);
        buffer.used = 0;
        Ok(buffer)
    }

    /// Gives the memory back, or keeps it for the next.
    pub fn release(self) {
        if !self.kept {
            return;
        }
        let Ok(kept) = memory::boxed(self) else {
            return;
        };
        let old = KEPT.swap(Box::into_raw(kept), Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: as in `take_kept`.
            drop(unsafe { Box::from_raw(old) });
        }
    }

    /// Makes room for more, zeroed.
    pub(super) fn grow(&mut self, size: usize) -> Result<usize> {
        let at = self.room(size)?;
        if at < self.dirty {
            let dirty = self.used.min(self.dirty);
            self.room.bytes_mut()[at..dirty].fill(0);
        }
        Ok(at)
    }

    /// Makes room that the caller overwrites whole.
    #[inline]
    pub(super) fn room(&mut self, size: usize) -> Result<usize> {
        let at = self.used;
        if size > self.room.len() - at {
            self.enlarge(size)?;
        }
        self.used = at + size;
        Ok(at)
    }

    #[cold]
    #[inline(never)]
    fn enlarge(&mut self, size: usize) -> Result<()> {
        let at = self.used;
        let end = at.checked_add(size).ok_or(Error::NoMemory)?;
        let mut larger = Buffer::new(end + end / 2)?;
        larger.room.bytes_mut()[..at].copy_from_slice(&self.room.bytes()[..at]);
        *self = larger;
        Ok(())
    }

    /// The sum of the words in a part.
    pub(super) fn sum(&self, part: Range<usize>) -> u64 {
        sum(self.words(part))
    }

    /// A part, of whole words.
    #[inline]
    pub(super) fn words(&self, part: Range<usize>) -> &[u64] {
        assert!(part.start % 8 == 0);
        let part = &self.as_slice()[part];
        // SAFETY: aligned, as the buffer begins with a page; any bit pattern is a word.
        unsafe { core::slice::from_raw_parts(part.as_ptr().cast(), part.len() / 8) }
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.room.bytes_mut()[..self.used]
    }

    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.room.bytes()[..self.used]
    }
}
