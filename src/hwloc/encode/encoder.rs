// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state of an encoding, and where everything goes.

use super::buffer::Buffer;
use crate::error::Result;
use crate::hwloc::bits::Bits;
use crate::hwloc::image::{Image, OrInvalid};
use crate::hwloc::layout::*;
use crate::hwloc::validate::Levels;
use core::hash::{BuildHasherDefault, Hasher};
use core::mem::size_of;
use core::ops::Range;
use std::collections::HashMap;

/// Words are their own hash, well spread.
#[derive(Default)]
pub(super) struct WordHasher(u64);

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }
    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

pub(super) type Fast = BuildHasherDefault<WordHasher>;

/// A word after a run of zeros, in the file; at 0 there is none.
#[derive(Clone, Copy, Default)]
pub(super) struct Run {
    pub(super) word_at: usize,
    pub(super) zeros: usize,
}

pub(super) struct Encoder<'a, 'w> {
    pub(super) source: Image<'a>,
    pub(super) levels: &'w Levels<'a>,
    pub(super) base: Addr,
    pub(super) buffer: Buffer,
    /// Where the objects of each normal and each special level begin.
    pub(super) normal: Vec<usize>,
    pub(super) special: [usize; SPECIAL_LEVELS],
    /// The arrays of the normal levels.
    pub(super) arrays: Vec<usize>,
    pub(super) runs: HashMap<u64, Run, Fast>,
    /// Those of the words of one bit.
    pub(super) singles: [Run; 64],
    pub(super) strings: HashMap<&'a [u8], Addr, Fast>,
    /// The largest set of processors.
    pub(super) root_cpus: Bits<'a>,
    pub(super) no_attr: Addr,
    /// Bytes of strings and words of sets that a check of the file looks at,
    /// each as often as it is named.
    pub(super) looked_at: usize,
    /// The largest number of words of a set.
    pub(super) longest: usize,
    /// Where the objects are, and the sum of their words.
    pub(super) objects: Range<usize>,
    pub(super) sum: u64,
}

impl Encoder<'_, '_> {
    /// Makes zeroed room and answers its offset.
    pub(super) fn reserve(&mut self, size: usize) -> Result<usize> {
        self.buffer.grow(size.next_multiple_of(8))
    }

    #[inline]
    pub(super) fn set<T: Plain>(&mut self, at: usize, value: T) {
        let room = &mut self.buffer.bytes()[at..at + size_of::<T>()];
        // SAFETY: the slice is as long as the value.
        unsafe { room.as_mut_ptr().cast::<T>().write_unaligned(value) };
    }

    /// The object at an offset of whole words, to be written in place.
    #[inline]
    pub(super) fn slot(&mut self, at: usize) -> &mut Obj {
        let room = &mut self.buffer.bytes()[at..at + size_of::<Obj>()];
        assert!(at % 8 == 0);
        // SAFETY: as long as an object, and aligned, as the buffer begins with
        // a page; any bit pattern is an object.
        unsafe { &mut *room.as_mut_ptr().cast::<Obj>() }
    }

    #[inline]
    pub(super) fn peek<T: Plain>(&self, at: usize) -> T {
        let room = &self.buffer.as_slice()[at..at + size_of::<T>()];
        // SAFETY: as long as the value; any bit pattern is one.
        unsafe { room.as_ptr().cast::<T>().read_unaligned() }
    }

    /// A set that was written, without what is beyond its words.
    #[inline]
    pub(super) fn written_set(&self, addr: Addr) -> Result<Bits<'_>> {
        let offset = |addr: Addr| addr.checked_sub(self.base).valid();
        let set: Bitmap = self.peek(offset(addr)? as usize);
        let first = offset(set.ulongs)? as usize;
        Ok(Bits {
            words: self.buffer.words(first..first + set.count as usize * 8),
            infinite: false,
        })
    }

    pub(super) fn addr(&self, at: usize) -> Addr {
        self.base + at as u64
    }

    /// Room of whole words that the caller overwrites whole.
    pub(super) fn claim(&mut self, size: usize) -> Result<usize> {
        if size % 8 != 0 {
            return self.reserve(size);
        }
        self.buffer.room(size)
    }

    pub(super) fn put<T: Plain>(&mut self, value: T) -> Result<Addr> {
        self.put_slice(&[value])
    }

    /// As [`Encoder::put`], of whole words and often.
    #[inline(always)]
    pub(super) fn put_small<T: Plain>(&mut self, value: T) -> Result<Addr> {
        let at = self.buffer.room(size_of::<T>())?;
        self.set(at, value);
        Ok(self.addr(at))
    }

    pub(super) fn put_slice<T: Plain>(&mut self, values: &[T]) -> Result<Addr> {
        // SAFETY: any plain value is its bytes.
        self.put_bytes(unsafe {
            core::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values))
        })
    }

    #[inline(never)]
    fn put_bytes(&mut self, bytes: &[u8]) -> Result<Addr> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let at = self.claim(bytes.len())?;
        self.buffer.bytes()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(self.addr(at))
    }

    /// Where the object at a depth and logical index goes.
    #[inline]
    pub(super) fn place(&self, depth: i32, logical_index: u32) -> Result<usize> {
        let start = match usize::try_from(depth) {
            Ok(normal) => *self.normal.get(normal).valid()?,
            Err(_) => self.special[special_level(depth).valid()?],
        };
        Ok(start + logical_index as usize * size_of::<Obj>())
    }

    /// Adds up the words of a part that was just written, and is at hand.
    pub(super) fn add_up(&mut self, part: Range<usize>) {
        self.sum = self.sum.wrapping_add(self.buffer.sum(part));
    }

    /// The sum of all words.
    pub(super) fn total(&self) -> u64 {
        let before = self.buffer.sum(0..self.objects.start);
        let after = self.buffer.sum(self.objects.end..self.buffer.used);
        self.sum.wrapping_add(before).wrapping_add(after)
    }

    /// The address in the file of an object of the source.
    #[inline(never)]
    pub(super) fn object(&self, addr: Addr) -> Result<Addr> {
        if addr == 0 {
            return Ok(0);
        }
        let obj: &Obj = self.source.at(addr).valid()?;
        Ok(self.addr(self.place(obj.depth, obj.logical_index)?))
    }

    pub(super) fn objects(&mut self, list: &[Addr]) -> Result<Addr> {
        if list.is_empty() {
            return Ok(0);
        }
        let at = self.claim(size_of_val(list))?;
        for (i, obj) in list.iter().enumerate() {
            let addr = self.object(*obj)?;
            self.set(at + i * 8, addr);
        }
        Ok(self.addr(at))
    }

    /// The array of a level, whose objects lie in a row.
    pub(super) fn row(&mut self, first: usize, count: usize) -> Result<usize> {
        let at = self.claim(count * 8)?;
        let base = self.base;
        let room = &mut self.buffer.bytes()[at..at + count * 8];
        for (i, word) in room.chunks_exact_mut(8).enumerate() {
            let addr = base + (first + i * size_of::<Obj>()) as u64;
            word.copy_from_slice(&addr.to_ne_bytes());
        }
        Ok(at)
    }
}
