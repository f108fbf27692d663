// SPDX-License-Identifier: MIT OR Apache-2.0
//! A topology as the bytes of a file, for a given address.
//!
//! The parts lie in the order header, topology, objects level by level, then
//! all the rest. So the address of an object follows from its depth and
//! logical index, and no table is needed. What is equal is written once:
//! sets, attributes and strings are read-only for whoever adopts. So are the
//! arrays of children: they are parts of the array of a level. The arrays
//! of sets end at their last member, and sets whose members all fall into
//! one word share a run of zeros before that word: a machine with 10,000
//! processors would otherwise be mostly zeros.

use crate::error::{Error, Result};
use crate::hwloc::image::{same_words, sum, work_for, Bits, Image, OrInvalid};
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use crate::hwloc::range::map::{self, Mapping, Place};
use crate::hwloc::resolve::{goes_by_os_index, Place as Origin, Resolver};
use crate::hwloc::validate::{Levels, MAX_DEPTH};
use core::hash::{BuildHasherDefault, Hasher};
use core::mem::{offset_of, size_of};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use std::collections::HashMap;

/// Room for the topology structure: an adopter of any release copies its own
/// size of it, so zeros have to follow.
const TOPOLOGY_ROOM: usize = 1024;

/// Words are their own hash, well spread.
#[derive(Default)]
struct WordHasher(u64);

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }
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

type Fast = BuildHasherDefault<WordHasher>;

/// A word after a run of zeros, in the file.
#[derive(Clone, Copy)]
struct Run {
    word_at: usize,
    zeros: usize,
}

/// The bytes under construction. The memory of a small one is kept for the
/// next: pages fresh from the kernel cost more than encoding into them.
pub struct Buffer {
    room: Mapping,
    used: usize,
    /// Bytes that are not zero any more.
    dirty: usize,
}

/// The memory that is kept, if any.
static KEPT: AtomicPtr<Buffer> = AtomicPtr::new(null_mut());
/// What is worth keeping, and no more.
const KEEP_LIMIT: usize = 512 << 10;

impl Buffer {
    fn new(capacity: usize) -> Result<Self> {
        let capacity = capacity.next_multiple_of(map::page_size());
        Ok(Buffer {
            room: if capacity < map::HUGE_PAGE / 2 {
                map::map(0, capacity, Place::Anonymous)?
            } else {
                map::map_huge(capacity)?
            },
            used: 0,
            dirty: 0,
        })
    }

    fn with_capacity(capacity: usize) -> Result<Self> {
        let kept = KEPT.swap(null_mut(), Ordering::AcqRel);
        if kept.is_null() {
            return Buffer::new(capacity);
        }
        // SAFETY: `release` put it there; whoever swaps it out owns it.
        let mut buffer = *unsafe { Box::from_raw(kept) };
        if buffer.room.len() < capacity {
            return Buffer::new(capacity);
        }
        buffer.dirty = buffer.dirty.max(buffer.used);
        buffer.used = 0;
        Ok(buffer)
    }

    /// Gives the memory back, or keeps it for the next.
    pub fn release(self) {
        if self.room.len() > KEEP_LIMIT {
            return;
        }
        let Ok(kept) = memory::boxed(self) else {
            return;
        };
        let old = KEPT.swap(Box::into_raw(kept), Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: as in `with_capacity`.
            drop(unsafe { Box::from_raw(old) });
        }
    }

    /// Makes room for more, zeroed.
    fn grow(&mut self, size: usize) -> Result<usize> {
        let at = self.room(size)?;
        if at < self.dirty {
            let dirty = self.used.min(self.dirty);
            self.room.bytes_mut()[at..dirty].fill(0);
        }
        Ok(at)
    }

    /// Makes room that the caller overwrites whole.
    fn room(&mut self, size: usize) -> Result<usize> {
        let at = self.used;
        let end = at.checked_add(size).ok_or(Error::NoMemory)?;
        if end > self.room.len() {
            let mut larger = Buffer::new(end + end / 2)?;
            larger.room.bytes_mut()[..at].copy_from_slice(&self.room.bytes()[..at]);
            *self = larger;
        }
        self.used = end;
        Ok(at)
    }

    /// The sum of all words.
    fn sum(&self) -> u64 {
        // SAFETY: pages of whole words, of which this many are in use.
        sum(unsafe { core::slice::from_raw_parts(self.as_slice().as_ptr().cast(), self.used / 8) })
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.room.bytes_mut()[..self.used]
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.room.bytes()[..self.used]
    }
}

struct Encoder<'a, 'w> {
    source: &'w Image<'a>,
    levels: &'w Levels<'a>,
    base: Addr,
    buffer: Buffer,
    /// Where the objects of each normal and each special level begin.
    normal: Vec<usize>,
    special: [usize; SPECIAL_LEVELS],
    /// The arrays of the normal levels.
    arrays: Vec<usize>,
    runs: HashMap<u64, Run, Fast>,
    strings: HashMap<&'a [u8], Addr, Fast>,
    /// The largest set of processors.
    root_cpus: Bits<'a>,
    no_attr: Addr,
    /// Bytes of strings and words of sets that a check of the file looks at,
    /// each as often as it is named.
    looked_at: usize,
    /// The largest number of words of a set.
    longest: usize,
}

/// A topology as bytes.
pub struct Encoded {
    pub bytes: Buffer,
    /// Nothing was seen that a check of the tree could refuse.
    pub sure: bool,
}

/// Encodes `t`, whose pointers lead into `source`, for `base`. The header
/// says that `length` bytes belong to the file; the result may be longer.
///
/// `support` is how many bytes each support array of the source has.
pub fn encode(
    source: &Image<'_>,
    t: &Topology,
    support: [usize; 4],
    base: Addr,
    length: usize,
) -> Result<Encoded> {
    let levels = Levels::read(source, t)?;
    let root = levels.at(0).and_then(|l| l.objs.first()).copied();
    let root_cpus = root
        .and_then(|r| source.get::<Obj>(r))
        .and_then(|r| source.bitmap(r.cpuset))
        .valid()?;
    let mut encoder = Encoder {
        source,
        levels: &levels,
        base,
        buffer: Buffer::with_capacity(levels.total() * 300 + (16 << 10))?,
        normal: memory::list(levels.depth())?,
        special: [0; SPECIAL_LEVELS],
        arrays: memory::list(levels.depth())?,
        runs: HashMap::default(),
        strings: HashMap::default(),
        root_cpus,
        no_attr: 0,
        looked_at: 0,
        longest: 0,
    };
    encoder.whole(t, support, length)?;
    Ok(Encoded {
        sure: encoder.is_sure(length),
        bytes: encoder.buffer,
    })
}

/// The members' words without the zeros behind the last.
#[inline]
fn trimmed<'a>(set: &Bits<'a>) -> &'a [u64] {
    if set.words.last().is_some_and(|w| *w != 0) && !set.infinite {
        return set.words;
    }
    let tail = if set.infinite { u64::MAX } else { 0 };
    let used = set.words.iter().rposition(|w| *w != tail);
    &set.words[..used.map_or(1, |last| last + 1)]
}

/// Whether no word has a bit set. Eight at a time: half of what a machine with
/// thousands of processors costs is here.
fn all_zero(words: &[u64]) -> bool {
    let mut eights = words.chunks_exact(8);
    let rest = eights.remainder();
    eights.all(|eight| eight.iter().fold(0, |all, w| all | w) == 0) && rest.iter().all(|w| *w == 0)
}

impl<'a> Encoder<'a, '_> {
    /// Makes zeroed room and answers its offset.
    fn reserve(&mut self, size: usize) -> Result<usize> {
        self.buffer.grow(size.next_multiple_of(8))
    }

    fn set<T: Plain>(&mut self, at: usize, value: T) {
        let room = &mut self.buffer.bytes()[at..at + size_of::<T>()];
        // SAFETY: the slice is as long as the value.
        unsafe { room.as_mut_ptr().cast::<T>().write_unaligned(value) };
    }

    fn peek<T: Plain>(&self, at: usize) -> T {
        let room = &self.buffer.as_slice()[at..at + size_of::<T>()];
        // SAFETY: as long as the value; any bit pattern is one.
        unsafe { room.as_ptr().cast::<T>().read_unaligned() }
    }

    fn addr(&self, at: usize) -> Addr {
        self.base + at as u64
    }

    /// Room of whole words that the caller overwrites whole.
    fn claim(&mut self, size: usize) -> Result<usize> {
        if size % 8 != 0 {
            return self.reserve(size);
        }
        self.buffer.room(size)
    }

    fn put<T: Plain>(&mut self, value: T) -> Result<Addr> {
        let at = self.claim(size_of::<T>())?;
        self.set(at, value);
        Ok(self.addr(at))
    }

    fn put_slice<T: Plain>(&mut self, values: &[T]) -> Result<Addr> {
        if values.is_empty() {
            return Ok(0);
        }
        let at = self.claim(size_of_val(values))?;
        let room = &mut self.buffer.bytes()[at..at + size_of_val(values)];
        // SAFETY: source and room have the same size and do not overlap.
        unsafe {
            let from = values.as_ptr().cast::<u8>();
            room.as_mut_ptr()
                .copy_from_nonoverlapping(from, size_of_val(values));
        }
        Ok(self.addr(at))
    }

    #[inline]
    fn string(&mut self, addr: Addr) -> Result<Addr> {
        match addr {
            0 => Ok(0),
            _ => self.text(addr),
        }
    }

    #[inline(never)]
    fn text(&mut self, addr: Addr) -> Result<Addr> {
        let text = self.source.string(addr).valid()?;
        self.looked_at += text.len();
        if let Some(known) = self.strings.get(text) {
            return Ok(*known);
        }
        let at = self.reserve(text.len() + 1)?;
        self.buffer.bytes()[at..at + text.len()].copy_from_slice(text);
        let written = self.addr(at);
        memory::insert(&mut self.strings, text, written)?;
        Ok(self.addr(at))
    }

    #[inline]
    fn infos(&mut self, array: Addr, count: u32) -> Result<Addr> {
        match count {
            0 => Ok(0),
            _ => self.some_infos(array, count),
        }
    }

    #[inline(never)]
    fn some_infos(&mut self, array: Addr, count: u32) -> Result<Addr> {
        let list = self.source.slice::<Info>(array, count as usize).valid()?;
        let at = self.reserve(size_of_val(list))?;
        for (i, info) in list.iter().enumerate() {
            let info = Info {
                name: self.string(info.name)?,
                value: self.string(info.value)?,
            };
            self.set(at + i * size_of::<Info>(), info);
        }
        Ok(self.addr(at))
    }

    /// Writes a set, unless it equals one of `written`, pairs of a set of
    /// the source and where that went.
    #[inline(always)]
    fn bitmap(&mut self, addr: Addr, written: &[(Addr, Addr)]) -> Result<Addr> {
        if addr == 0 {
            return Ok(0);
        }
        for (from, to) in written {
            if *to != 0 && (*from == addr || self.are_same(*from, addr)?) {
                return Ok(*to);
            }
        }
        self.new_bitmap(addr)
    }

    /// Whether two sets have the same members.
    #[inline]
    fn are_same(&self, one: Addr, other: Addr) -> Result<bool> {
        let one: &Bitmap = self.source.at(one).valid()?;
        let other: &Bitmap = self.source.at(other).valid()?;
        // The tail of one may be longer, and say nothing.
        if one.count != other.count {
            return self.are_same_trimmed(one, other);
        }
        let words = self.source.words(one).valid()?;
        let others = self.source.words(other).valid()?;
        Ok(one.infinite == other.infinite && same_words(words, others))
    }

    #[inline(never)]
    fn are_same_trimmed(&self, one: &Bitmap, other: &Bitmap) -> Result<bool> {
        let bits = |set: &Bitmap| {
            Some(Bits {
                words: self.source.words(set)?,
                infinite: set.infinite != 0,
            })
        };
        let (one, other) = (bits(one).valid()?, bits(other).valid()?);
        Ok(one.infinite == other.infinite && same_words(trimmed(&one), trimmed(&other)))
    }

    #[inline(never)]
    fn new_bitmap(&mut self, addr: Addr) -> Result<Addr> {
        let set = self.source.bitmap(addr).valid()?;
        let words = trimmed(&set);
        let (last, zeros) = words.split_last().valid()?;
        let ulongs = if !set.infinite && all_zero(zeros) {
            self.run(zeros.len(), *last)?
        } else {
            self.put_slice(words)?
        };
        self.put_bitmap(words.len() as u32, ulongs, set.infinite)
    }

    fn put_bitmap(&mut self, count: u32, ulongs: Addr, infinite: bool) -> Result<Addr> {
        self.looked_at += count as usize * 8;
        self.longest = self.longest.max(count as usize);
        self.put(Bitmap {
            count,
            allocated: count,
            ulongs,
            infinite: i32::from(infinite),
            mark: BITMAP_MARK,
        })
    }

    /// An array of `zeros` zeros and a word: the end of a longer one.
    fn run(&mut self, zeros: usize, word: u64) -> Result<Addr> {
        let run = match self.runs.get(&word) {
            Some(run) if run.zeros >= zeros => *run,
            _ => {
                let zeros = zeros.max(self.root_cpus.words.len().saturating_sub(1));
                let at = self.reserve((zeros + 1) * 8)?;
                let run = Run {
                    word_at: at + zeros * 8,
                    zeros,
                };
                self.set(run.word_at, word);
                memory::insert(&mut self.runs, word, run)?;
                run
            }
        };
        Ok(self.addr(run.word_at - zeros * 8))
    }

    /// Where the object at a depth and logical index goes.
    #[inline]
    fn place(&self, depth: i32, logical_index: u32) -> Result<usize> {
        let start = match usize::try_from(depth) {
            Ok(normal) => *self.normal.get(normal).valid()?,
            Err(_) => self.special[special_level(depth).valid()?],
        };
        Ok(start + logical_index as usize * size_of::<Obj>())
    }

    /// The address in the file of an object of the source.
    fn object(&self, addr: Addr) -> Result<Addr> {
        if addr == 0 {
            return Ok(0);
        }
        let obj: &Obj = self.source.at(addr).valid()?;
        Ok(self.addr(self.place(obj.depth, obj.logical_index)?))
    }

    fn objects(&mut self, list: &[Addr]) -> Result<Addr> {
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
    fn row(&mut self, first: usize, count: usize) -> Result<usize> {
        let at = self.claim(count * 8)?;
        let base = self.base;
        let room = &mut self.buffer.bytes()[at..at + count * 8];
        for (i, word) in room.chunks_exact_mut(8).enumerate() {
            let addr = base + (first + i * size_of::<Obj>()) as u64;
            word.copy_from_slice(&addr.to_ne_bytes());
        }
        Ok(at)
    }

    /// The normal children of an object: their array, the first and the last.
    fn children(&mut self, source: &Obj) -> Result<[Addr; 3]> {
        let (array, count) = (source.children, source.arity as usize);
        let list = self.source.slice::<Addr>(array, count).valid()?;
        let (Some(first), Some(last)) = (list.first(), list.last()) else {
            return Ok([0; 3]);
        };
        let obj: &Obj = self.source.at(*first).valid()?;
        let at = obj.logical_index as usize;
        let level = self.levels.at(obj.depth).valid()?.objs;
        let array = usize::try_from(obj.depth).ok();
        let array = array.and_then(|depth| self.arrays.get(depth)).copied();
        // Mostly they are a part of their level.
        match array.filter(|_| level.get(at..at + count) == Some(list)) {
            Some(array) => {
                let first = self.addr(self.place(obj.depth, obj.logical_index)?);
                let beyond = ((count - 1) * size_of::<Obj>()) as u64;
                Ok([self.addr(array + at * 8), first, first + beyond])
            }
            None => Ok([
                self.objects(list)?,
                self.object(*first)?,
                self.object(*last)?,
            ]),
        }
    }

    fn attr(&mut self, obj: &Obj, previous: &mut Option<(Attr, Addr)>) -> Result<Addr> {
        // A processor has none: a look would be for nothing.
        if obj.kind == ty::PU {
            return Ok(self.no_attr);
        }
        let mut attr: Attr = self.source.get(obj.attr).valid()?;
        if obj.kind == ty::BRIDGE && !attr.is_bridge() {
            return Err(Error::Invalid);
        }
        if obj.kind == ty::NUMANODE {
            let n = attr.page_types_len() as usize;
            let pages = self.source.slice::<u64>(attr.page_types(), n * 2).valid()?;
            attr.words[2] = self.put_slice(pages)?;
        }
        if same_words(&attr.words, &[0; 5]) {
            return Ok(self.no_attr);
        }
        if let Some((_, at)) = previous.filter(|p| same_words(&p.0.words, &attr.words)) {
            return Ok(at);
        }
        let at = self.put(attr)?;
        *previous = Some((attr, at));
        Ok(at)
    }

    /// The source is scattered over the heap: an object is asked for early,
    /// then its sets, then their words. Of processors three sets are read.
    #[inline]
    fn ahead(&self, objs: &[Addr], i: usize, processors: bool) {
        if let Some(addr) = objs.get(i + 16) {
            self.source.soon(*addr, size_of::<Obj>());
        }
        let sets = |i: usize| {
            let obj: &Obj = self.source.at(*objs.get(i)?)?;
            Some([
                obj.cpuset,
                obj.complete_cpuset,
                if processors { 0 } else { obj.nodeset },
                obj.complete_nodeset,
            ])
        };
        if let Some(sets) = sets(i + 11) {
            for set in &sets {
                self.source.soon(*set, 1);
            }
        }
        if let Some(sets) = sets(i + 6) {
            for set in sets.iter().filter(|set| **set != 0) {
                if let Some(bitmap) = self.source.at::<Bitmap>(*set) {
                    self.source.soon(bitmap.ulongs, 1);
                    // Long ones lie apart too.
                    if bitmap.count > 8 {
                        self.long_ahead(bitmap);
                    }
                }
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn long_ahead(&self, bitmap: &Bitmap) {
        let words = bitmap.count.min(256) as usize;
        self.source.soon(bitmap.ulongs, words * 8);
    }

    /// One level of objects. Levels above come first, so that a set equal
    /// to the parent's finds it written.
    fn level(&mut self, depth: i32) -> Result<()> {
        let level = *self.levels.at(depth).valid()?;
        let mut attr_before = None;
        let mut nodeset_before = (0, 0);
        let mut parent = (0, 0);
        for (i, addr) in level.objs.iter().enumerate() {
            self.ahead(level.objs, i, level.kind == ty::PU);
            let source: &Obj = self.source.at(*addr).valid()?;
            let here = (source.kind, source.depth, source.logical_index);
            if here != (level.kind, depth, i as u32) || source.symmetric_subtree & !1 != 0 {
                return Err(Error::Invalid);
            }
            let mut obj = *source;
            let here = self.place(depth, i as u32)?;
            let size = size_of::<Obj>();
            let neighbour = |there: bool, at: usize| if there { at as u64 } else { 0 };
            obj.prev_cousin = neighbour(i > 0, here.wrapping_sub(size));
            obj.next_cousin = neighbour(i + 1 < level.objs.len(), here + size);
            for cousin in [&mut obj.prev_cousin, &mut obj.next_cousin] {
                if *cousin != 0 {
                    *cousin += self.base;
                }
            }
            obj.name = self.string(source.name)?;
            obj.subtype = self.string(source.subtype)?;
            obj.attr = self.attr(source, &mut attr_before)?;
            // Looking at another object is a cache line of the source each:
            // most of these are known.
            if parent.0 != source.parent {
                parent = (source.parent, self.object(source.parent)?);
            }
            obj.parent = parent.1;
            obj.next_sibling = if source.next_sibling == source.next_cousin {
                obj.next_cousin
            } else {
                self.object(source.next_sibling)?
            };
            obj.prev_sibling = if source.prev_sibling == source.prev_cousin {
                obj.prev_cousin
            } else {
                self.object(source.prev_sibling)?
            };
            for (to, from) in [
                (&mut obj.memory_first_child, source.memory_first_child),
                (&mut obj.io_first_child, source.io_first_child),
                (&mut obj.misc_first_child, source.misc_first_child),
            ] {
                if from != 0 {
                    *to = self.object(from)?;
                }
            }
            [obj.children, obj.first_child, obj.last_child] = self.children(source)?;
            obj.infos = self.infos(source.infos, source.infos_count)?;
            let sets = [
                source.cpuset,
                source.complete_cpuset,
                source.nodeset,
                source.complete_nodeset,
            ];
            if is_special(level.kind) {
                // Adopters refuse those of a device, and an object without any.
                if sets != [0; 4] {
                    return Err(Error::Invalid);
                }
            } else if sets.contains(&0) {
                return Err(Error::Invalid);
            } else {
                self.sets(source, &mut obj, &mut nodeset_before)?;
            }
            for pad in [
                &mut obj._pad0,
                &mut obj._pad1,
                &mut obj._pad2,
                &mut obj._pad3,
                &mut obj._pad4,
                &mut obj._pad5,
                &mut obj._pad6,
            ] {
                *pad = 0;
            }
            self.set(here, obj);
        }
        Ok(())
    }

    /// The sets of an object. Those of processors are the same two words after
    /// many zeros: they are looked at, and written from one copy. Their memory
    /// is what is attached above.
    fn sets(&mut self, source: &Obj, obj: &mut Obj, nodes: &mut (Addr, Addr)) -> Result<()> {
        for set in [source.cpuset, source.complete_cpuset, source.nodeset] {
            // Adopters refuse an object with all processors that there can be.
            if self.source.at::<Bitmap>(set).valid()?.infinite != 0 {
                return Err(Error::Invalid);
            }
        }
        let (mut cpus_above, mut nodes_above) = ((0, 0), (0, 0));
        let (mut alone, mut only_processors) = (false, false);
        if source.parent != 0 {
            let above: &Obj = self.source.at(source.parent).valid()?;
            let written = (obj.parent - self.base) as usize;
            let field = |at| self.peek::<Addr>(written + at);
            cpus_above = (above.cpuset, field(offset_of!(Obj, cpuset)));
            nodes_above = (above.nodeset, field(offset_of!(Obj, nodeset)));
            alone = above.arity == 1;
            // Processors are the last level: with nothing between, there is
            // nothing else that memory could be attached to.
            only_processors = above.depth + 1 == source.depth;
        }
        let processor = source.kind == ty::PU && source.parent != 0;
        // A program may have given it another number than it was found with.
        let sets = [source.cpuset, source.complete_cpuset];
        if processor && self.are_single(sets, source.os_index)? {
            obj.cpuset = match alone {
                true => cpus_above.1,
                false => self.single(source.os_index)?,
            };
            obj.complete_cpuset = obj.cpuset;
        } else {
            obj.cpuset = self.bitmap(source.cpuset, &[cpus_above])?;
            obj.complete_cpuset =
                self.bitmap(source.complete_cpuset, &[(source.cpuset, obj.cpuset)])?;
        }
        *nodes = if processor && only_processors {
            nodes_above
        } else {
            let written = self.bitmap(source.nodeset, &[nodes_above, *nodes])?;
            (source.nodeset, written)
        };
        obj.nodeset = nodes.1;
        obj.complete_nodeset = self.bitmap(source.complete_nodeset, &[*nodes])?;
        Ok(())
    }

    /// Whether both sets hold just this number.
    #[inline]
    fn are_single(&self, sets: [Addr; 2], os_index: u32) -> Result<bool> {
        for set in sets {
            let set: &Bitmap = self.source.at(set).valid()?;
            let words = self.source.words(set).valid()?;
            let (last, zeros) = words.split_last().valid()?;
            let right = *last == 1 << (os_index % 64)
                && zeros.len() == os_index as usize / 64
                && set.infinite == 0
                && all_zero(zeros);
            if !right {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The set of one processor.
    fn single(&mut self, os_index: u32) -> Result<Addr> {
        let zeros = os_index / 64;
        let ulongs = self.run(zeros as usize, 1 << (os_index % 64))?;
        self.put_bitmap(zeros + 1, ulongs, false)
    }

    fn distances(&mut self, t: &mut Topology, resolver: &Resolver<'a, '_>) -> Result<()> {
        let mut at = t.first_dist;
        (t.first_dist, t.last_dist) = (0, 0);
        let mut before: Option<usize> = None;
        while at != 0 {
            let source: Distances = self.source.get(at).valid()?;
            at = source.next;
            let Some(mut d) = self.matrix(&source, resolver)? else {
                continue;
            };
            d.prev = before.map_or(0, |b| self.addr(b));
            let here = self.put(d)?;
            let offset = (here - self.base) as usize;
            match before {
                Some(b) => self.set(b + offset_of!(Distances, next), here),
                None => t.first_dist = here,
            }
            t.last_dist = here;
            before = Some(offset);
        }
        Ok(())
    }

    /// The distances between the objects that are left of those they were
    /// given for; `None` if there are fewer than two, of which hwloc keeps none.
    fn matrix(
        &mut self,
        source: &Distances,
        resolver: &Resolver<'a, '_>,
    ) -> Result<Option<Distances>> {
        let objs = resolver.distances(source)?;
        let n = objs.len();
        let mut left = memory::list(n)?;
        left.extend((0..n).filter(|i| objs[*i].is_some()));
        if left.len() < 2 {
            return Ok(None);
        }
        let values = self.source.slice::<u64>(source.values, n * n).valid()?;
        let mut d = *source;
        d.name = self.string(source.name)?;
        d.nbobjs = left.len() as u32;
        (d._pad0, d._pad1, d.next) = (0, 0, 0);
        d.iflags |= DIST_OBJS_VALID;
        if source.different_types != 0 {
            let types = self.source.slice::<u32>(source.different_types, n);
            let types = types.valid()?;
            let mut kept = memory::list(left.len())?;
            kept.extend(left.iter().map(|i| types[*i]));
            d.different_types = self.put_slice(&kept)?;
        }
        let mut kept = memory::list(left.len())?;
        kept.extend(left.iter().filter_map(|i| objs[*i]));
        // The names of the objects as they are now: a program may have given
        // one another number.
        let mut indexes = memory::list(left.len())?;
        for addr in &kept {
            let obj: &Obj = self.source.at(*addr).valid()?;
            indexes.push(match goes_by_os_index(source.unique_type) {
                true => u64::from(obj.os_index),
                false => obj.gp_index,
            });
        }
        d.indexes = self.put_slice(&indexes)?;
        d.objs = self.objects(&kept)?;
        let mut kept = memory::list(left.len() * left.len())?;
        for row in &left {
            kept.extend(left.iter().map(|column| values[row * n + column]));
        }
        d.values = self.put_slice(&kept)?;
        Ok(Some(d))
    }

    fn memattrs(&mut self, t: &mut Topology, resolver: &Resolver<'a, '_>) -> Result<()> {
        let count = t.nr_memattrs as usize;
        let list = self.source.slice::<Memattr>(t.memattrs, count).valid()?;
        let array = self.reserve(size_of_val(list))?;
        for (i, source) in list.iter().enumerate() {
            let mut attr = *source;
            attr.name = self.string(source.name)?;
            attr.iflags = (source.iflags & !MEMATTR_STATIC_NAME) | MEMATTR_CACHE_VALID;
            let count = source.nr_targets as usize;
            let targets = self.source.slice::<Target>(source.targets, count).valid()?;
            let mut kept = memory::list(count)?;
            for target in targets {
                kept.extend(self.target(resolver, source, target)?);
            }
            attr.nr_targets = kept.len() as u32;
            attr.targets = self.put_slice(&kept)?;
            self.set(array + i * size_of::<Memattr>(), attr);
        }
        t.memattrs = self.addr(array);
        Ok(())
    }

    /// A target with its initiators, or `None` if it is gone.
    fn target(
        &mut self,
        resolver: &Resolver<'a, '_>,
        attr: &Memattr,
        source: &Target,
    ) -> Result<Option<Target>> {
        let Some(found) = resolver.target(source) else {
            return Ok(None);
        };
        let mut target = *source;
        target.obj = self.object(found)?;
        target.gp_index = self.source.at::<Obj>(found).valid()?.gp_index;
        target._pad = 0;
        let needed = attr.flags & MEMATTR_NEED_INITIATOR != 0;
        let count = if needed { source.nr_initiators } else { 0 };
        let list = self.source.slice(source.initiators, count as usize);
        let list: &[Initiator] = list.valid()?;
        let mut kept = memory::list(list.len())?;
        for initiator in list {
            let mut i = *initiator;
            let valid = attr.iflags & MEMATTR_CACHE_VALID != 0;
            i.obj_or_cpuset = match resolver.initiator(initiator, valid, &self.root_cpus) {
                Origin::Object(addr) => self.object(addr)?,
                Origin::Set => self.bitmap(initiator.obj_or_cpuset, &[])?,
                Origin::Clipped(set) => self.clipped(&set)?,
                Origin::Gone => continue,
            };
            if i.location == LOCATION_CPUSET {
                (i.gp_index, i.kind) = (0, 0);
            }
            (i._pad0, i._pad1) = (0, 0);
            kept.push(i);
        }
        if needed && kept.is_empty() {
            return Ok(None);
        }
        target.nr_initiators = kept.len() as u32;
        target.initiators = self.put_slice(&kept)?;
        Ok(Some(target))
    }

    /// The part of a set that the machine has.
    fn clipped(&mut self, set: &Bits<'a>) -> Result<Addr> {
        let mut words = memory::list(self.root_cpus.words.len())?;
        words.extend(set.within(&self.root_cpus));
        let part = Bits {
            words: &words,
            infinite: false,
        };
        let words = trimmed(&part);
        let ulongs = self.put_slice(words)?;
        self.put_bitmap(words.len() as u32, ulongs, false)
    }

    fn cpukinds(&mut self, t: &mut Topology) -> Result<()> {
        let count = t.nr_cpukinds as usize;
        let list = self.source.slice::<Cpukind>(t.cpukinds, count).valid()?;
        t.nr_cpukinds_allocated = t.nr_cpukinds;
        t.cpukinds = 0;
        if count == 0 {
            return Ok(());
        }
        let array = self.reserve(size_of_val(list))?;
        for (i, source) in list.iter().enumerate() {
            let mut kind = *source;
            kind.cpuset = self.bitmap(source.cpuset, &[])?;
            kind.infos = self.infos(source.infos, source.nr_infos)?;
            kind._pad = 0;
            self.set(array + i * size_of::<Cpukind>(), kind);
        }
        t.cpukinds = self.addr(array);
        Ok(())
    }

    fn supports(&mut self, t: &mut Topology, support: [usize; 4]) -> Result<()> {
        for (array, bytes) in [
            &mut t.support_discovery,
            &mut t.support_cpubind,
            &mut t.support_membind,
            &mut t.support_misc,
        ]
        .into_iter()
        .zip(support)
        {
            let from = self.source.slice::<u8>(*array, bytes).valid()?;
            let at = self.reserve(16)?;
            self.buffer.bytes()[at..at + from.len()].copy_from_slice(from);
            *array = self.addr(at);
        }
        Ok(())
    }

    fn whole(&mut self, source: &Topology, support: [usize; 4], length: usize) -> Result<()> {
        let head = size_of::<Header>();
        self.reserve(head + TOPOLOGY_ROOM)?;
        for depth in 0..self.levels.depth() {
            let objs = self.levels.at(depth as i32).valid()?.objs.len();
            let at = self.claim(objs * size_of::<Obj>())?;
            self.normal.push(at);
        }
        for i in 0..SPECIAL_LEVELS {
            let objs = self
                .levels
                .at(DEPTH_NUMANODE - i as i32)
                .valid()?
                .objs
                .len();
            self.special[i] = self.claim(objs * size_of::<Obj>())?;
        }
        self.no_attr = self.put(Attr { words: [0; 5] })?;
        for depth in 0..self.levels.depth() {
            let objs = self.levels.at(depth as i32).valid()?.objs.len();
            let array = self.row(self.normal[depth], objs)?;
            self.arrays.push(array);
        }

        let mut t = *source;
        let allowed = (source.allowed_cpuset, source.allowed_nodeset);
        t.allowed_cpuset = self.bitmap(allowed.0, &[])?;
        t.allowed_nodeset = self.bitmap(allowed.1, &[])?;
        for depth in 0..self.levels.depth() {
            self.level(depth as i32)?;
        }
        // Memory caches before the nodes below them.
        for i in (0..SPECIAL_LEVELS).rev() {
            self.level(DEPTH_NUMANODE - i as i32)?;
        }
        self.level_arrays(&mut t)?;
        self.named(&mut t)?;
        self.cpukinds(&mut t)?;
        self.supports(&mut t, support)?;

        // Nothing of this process goes out but what the API promises.
        t.binding_hooks = [0; 24];
        t.userdata = 0;
        (t.userdata_export_cb, t.userdata_import_cb) = (0, 0);
        (t.adopted_shmem_addr, t.adopted_shmem_length) = (0, 0);
        (t.backends, t.pci_busid_backend) = (0, 0);
        t.grouping = [0; 8];
        (t.next_subkind, t._pad0, t._pad1, t._pad2) = (0, 0, 0, 0);
        t.is_loaded = 1;
        t.modified = 0;
        t.tma = self.buffer.used as u64;
        t.sum = 0;
        self.set(head, t);
        self.set(
            0,
            Header {
                version: HEADER_VERSION,
                header_length: head as u32,
                mmap_address: self.base,
                mmap_length: length as u64,
            },
        );
        let sum = self.buffer.sum();
        self.set(head + offset_of!(Topology, sum), sum);
        Ok(())
    }

    /// Whether a check of the tree finds nothing to refuse: the links are right
    /// as they were made here, what the source can have wrong was looked at, and
    /// nothing is nested too deeply or, for a file of `length`, too much work.
    fn is_sure(&self, length: usize) -> bool {
        // Special levels, memory among them, can be nested.
        let special = (0..SPECIAL_LEVELS).filter_map(|i| self.levels.at(DEPTH_NUMANODE - i as i32));
        let nested = special.map(|level| level.objs.len()).sum::<usize>() + self.levels.depth();
        // A set of an object is looked at so often, by `validate::tree`.
        let sets = self.levels.total() * self.longest * 8 * 15;
        let work = sets + 4 * (self.looked_at + self.buffer.used);
        nested < MAX_DEPTH && work as u64 <= work_for(length).get()
    }

    /// What names objects by index.
    fn named(&mut self, t: &mut Topology) -> Result<()> {
        let count = t.nr_memattrs as usize;
        let list = self.source.slice::<Memattr>(t.memattrs, count).valid()?;
        let any = t.first_dist != 0 || list.iter().any(|attr| attr.nr_targets != 0);
        let resolver = match any {
            true => Resolver::new(self.source, self.levels)?,
            false => Resolver::empty(self.source),
        };
        self.distances(t, &resolver)?;
        self.memattrs(t, &resolver)
    }

    fn level_arrays(&mut self, t: &mut Topology) -> Result<()> {
        let depth = self.levels.depth();
        let arrays = self.reserve(depth * 8)?;
        let counts = self.reserve(depth * 4)?;
        for d in 0..depth {
            let objs = self.levels.at(d as i32).valid()?.objs;
            let array = self.addr(self.arrays[d]);
            self.set(arrays + d * 8, array);
            self.set(counts + d * 4, objs.len() as u32);
        }
        t.levels = self.addr(arrays);
        t.level_nbobjects = self.addr(counts);
        for i in 0..SPECIAL_LEVELS {
            let objs = self.levels.at(DEPTH_NUMANODE - i as i32).valid()?.objs;
            let first = self.special[i];
            let array = self.row(first, objs.len())?;
            let end = |index: usize| self.addr(first + index * size_of::<Obj>());
            let ends = match objs.len() {
                0 => [0; 3],
                n => [self.addr(array), end(0), end(n - 1)],
            };
            t.slevels[i] = SpecialLevel {
                nbobjs: objs.len() as u32,
                _pad: 0,
                objs: ends[0],
                first: ends[1],
                last: ends[2],
            };
        }
        Ok(())
    }
}
