// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects, level by level.

use super::encoder::Encoder;
use crate::error::{Error, Result};
use crate::hwloc::bits::all_zero;
use crate::hwloc::image::OrInvalid;
use crate::hwloc::layout::*;
use core::mem::{offset_of, size_of};

/// Of a machine with more processors the sets of a processor are looked at only
/// if its number is not the one that the parent's set has next: reading them is
/// half of what writing such a machine costs, and hwloc wants nobody to change a
/// set.
const LOOKED_AT: usize = 2048;

/// Objects whose words are added up in one go.
const TOGETHER: usize = 16;

/// What the children of an object need of it.
#[derive(Clone, Copy, Default)]
pub(super) struct Above {
    /// In the source and in the file.
    addr: Addr,
    written: Addr,
    depth: i32,
    /// The sets, in the source and in the file.
    cpus: (Addr, Addr),
    nodes: (Addr, Addr),
    /// It has one normal child.
    alone: bool,
    /// The level below is of processors, and of more than [`LOOKED_AT`].
    processors: bool,
    many: bool,
    /// The members of the set below this one have met their processors.
    met: u32,
}

impl Encoder<'_, '_> {
    /// An object whose level is written.
    fn above(&self, addr: Addr) -> Result<Above> {
        if addr == 0 {
            return Ok(Above::default());
        }
        let obj: &Obj = self.source.at(addr).valid()?;
        let at = self.place(obj.depth, obj.logical_index)?;
        let written = |field| self.peek::<Addr>(at + field);
        Ok(Above {
            addr,
            written: self.addr(at),
            depth: obj.depth,
            cpus: (obj.cpuset, written(offset_of!(Obj, cpuset))),
            nodes: (obj.nodeset, written(offset_of!(Obj, nodeset))),
            alone: obj.arity == 1,
            processors: false,
            many: false,
            met: 0,
        })
    }

    /// One level of objects. Levels above come first, so that a set equal
    /// to the parent's finds it written.
    pub(super) fn level(&mut self, depth: i32) -> Result<()> {
        let level = *self.levels.at(depth).valid()?;
        let mut attr_before = None;
        let mut nodeset_before = (0, 0);
        let mut parent = Above::default();
        let processors = level.kind == ty::PU;
        let many = processors && level.objs.len() > LOOKED_AT;
        for (i, addr) in level.objs.iter().enumerate() {
            self.ahead(level.objs, i, processors, many);
            let source: &Obj = self.source.at(*addr).valid()?;
            let kind = self.source.kind(source.kind);
            let here = (kind, source.depth, source.logical_index);
            if here != (level.kind, depth, i as u32) || source.symmetric_subtree & !1 != 0 {
                return Err(Error::Invalid);
            }
            let here = self.place(depth, i as u32)?;
            let size = size_of::<Obj>();
            let first = self.base + here as u64;
            let more = i + 1 < level.objs.len();
            let prev_cousin = if i > 0 { first - size as u64 } else { 0 };
            let next_cousin = if more { first + size as u64 } else { 0 };
            let name = self.string(source.name)?;
            let subtype = self.string(source.subtype)?;
            let attr = self.attr(source, kind, &mut attr_before)?;
            // Looking at another object is a cache line of the source each:
            // most of these are known.
            if parent.addr != source.parent {
                parent = self.above(source.parent)?;
                (parent.processors, parent.many) = (processors, many);
            }
            let next_sibling = if source.next_sibling == source.next_cousin {
                next_cousin
            } else {
                self.object(source.next_sibling)?
            };
            let prev_sibling = if source.prev_sibling == source.prev_cousin {
                prev_cousin
            } else {
                self.object(source.prev_sibling)?
            };
            let mut others = [0; 3];
            if source.memory_first_child | source.io_first_child | source.misc_first_child != 0 {
                others = [
                    self.object(source.memory_first_child)?,
                    self.object(source.io_first_child)?,
                    self.object(source.misc_first_child)?,
                ];
            }
            let children = self.children(source)?;
            let infos = self.infos(source.infos, source.infos_count)?;
            let sets = self.all_sets(source, level.kind, &mut parent, &mut nodeset_before)?;
            // In its place at once: a copy on the way would be copied again.
            let obj: &mut Obj = self.slot(here);
            *obj = *source;
            (obj.prev_cousin, obj.next_cousin) = (prev_cousin, next_cousin);
            (obj.name, obj.subtype, obj.attr) = (name, subtype, attr);
            obj.parent = parent.written;
            (obj.prev_sibling, obj.next_sibling) = (prev_sibling, next_sibling);
            [
                obj.memory_first_child,
                obj.io_first_child,
                obj.misc_first_child,
            ] = others;
            [obj.children, obj.first_child, obj.last_child] = children;
            obj.infos = infos;
            [
                obj.cpuset,
                obj.complete_cpuset,
                obj.nodeset,
                obj.complete_nodeset,
            ] = sets;
            (obj._pad0, obj._pad1, obj._pad2, obj._pad3) = (0, 0, 0, 0);
            (obj._pad4, obj._pad5, obj._pad6) = (0, 0, 0);
            if i % TOGETHER == TOGETHER - 1 || !more {
                let objs = i % TOGETHER + 1;
                self.add_up(here + size - objs * size..here + size);
            }
        }
        Ok(())
    }

    /// Where the four sets of an object are written.
    #[inline(always)]
    fn all_sets(
        &mut self,
        source: &Obj,
        kind: u32,
        above: &mut Above,
        nodes: &mut (Addr, Addr),
    ) -> Result<[Addr; 4]> {
        let sets = [
            source.cpuset,
            source.complete_cpuset,
            source.nodeset,
            source.complete_nodeset,
        ];
        // Adopters refuse those of a device, and an object without any.
        match is_special(kind) {
            true if sets == [0; 4] => Ok(sets),
            false if !sets.contains(&0) => self.sets(source, above, nodes),
            _ => Err(Error::Invalid),
        }
    }

    /// The sets of an object. Those of processors are the same two words after
    /// many zeros: they are looked at, and written from one copy. Their memory
    /// is what is attached above.
    pub(super) fn sets(
        &mut self,
        source: &Obj,
        above: &mut Above,
        nodes: &mut (Addr, Addr),
    ) -> Result<[Addr; 4]> {
        let processor = above.processors && source.parent != 0;
        let (number, sets) = (source.os_index, [source.cpuset, source.complete_cpuset]);
        // A program may have given it another number than it was found with.
        let known = processor && above.many && self.is_next(above, number)?;
        let cpus = if known || (processor && self.are_single(&sets, number)?) {
            let only = match above.alone {
                true => above.cpus.1,
                false => self.single(number)?,
            };
            [only; 2]
        } else {
            self.are_finite(&sets)?;
            let set = self.bitmap(source.cpuset, &[above.cpus])?;
            let complete = self.bitmap(source.complete_cpuset, &[(source.cpuset, set)])?;
            [set, complete]
        };
        // Processors are the last level: with nothing between, there is nothing
        // else that memory could be attached to.
        *nodes = if processor && above.depth + 1 == source.depth {
            above.nodes
        } else {
            self.are_finite(&[source.nodeset])?;
            let written = self.bitmap(source.nodeset, &[above.nodes, *nodes])?;
            (source.nodeset, written)
        };
        let complete = self.bitmap(source.complete_nodeset, &[*nodes])?;
        Ok([cpus[0], cpus[1], nodes.1, complete])
    }

    /// Adopters refuse an object with all processors that there can be.
    #[inline]
    fn are_finite(&self, sets: &[Addr]) -> Result<()> {
        for set in sets {
            if self.source.at::<Bitmap>(*set).valid()?.infinite != 0 {
                return Err(Error::Invalid);
            }
        }
        Ok(())
    }

    /// Whether this is the number of the next processor below an object. hwloc has
    /// them in the order of their sets, which together are the object's: a number
    /// that a program changed is out of order, or not there.
    #[inline]
    fn is_next(&self, above: &mut Above, os_index: u32) -> Result<bool> {
        let next = self.written_set(above.cpus.1)?.next(above.met);
        above.met = next.map_or(u32::MAX, |member| member.saturating_add(1));
        Ok(next == Some(os_index))
    }

    /// Whether these sets hold just this number.
    #[inline]
    fn are_single(&self, sets: &[Addr], os_index: u32) -> Result<bool> {
        for set in sets {
            let set: &Bitmap = self.source.at(*set).valid()?;
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
    #[inline]
    pub(super) fn single(&mut self, os_index: u32) -> Result<Addr> {
        let (zeros, bit) = (os_index as usize / 64, os_index as usize % 64);
        let mut run = self.singles[bit];
        if run.word_at == 0 || run.zeros < zeros {
            run = self.longer_run(zeros, 1 << bit)?;
            self.singles[bit] = run;
        }
        let ulongs = self.addr(run.word_at - zeros * 8);
        self.put_bitmap(zeros as u32 + 1, ulongs, false)
    }

    /// The normal children of an object: their array, the first and the last.
    pub(super) fn children(&mut self, source: &Obj) -> Result<[Addr; 3]> {
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
        let in_order = *first == source.first_child && *last == source.last_child;
        // Mostly they are a part of their level.
        match array.filter(|_| in_order && level.get(at..at + count) == Some(list)) {
            Some(array) => {
                let first = self.addr(self.place(obj.depth, obj.logical_index)?);
                let beyond = ((count - 1) * size_of::<Obj>()) as u64;
                Ok([self.addr(array + at * 8), first, first + beyond])
            }
            None => Ok([
                self.objects(list)?,
                self.object(source.first_child)?,
                self.object(source.last_child)?,
            ]),
        }
    }

    /// The source is scattered over the heap: an object is asked for early,
    /// then its sets, then their words. Of processors three sets are read, or one.
    #[inline]
    fn ahead(&self, objs: &[Addr], i: usize, processors: bool, many: bool) {
        if let Some(addr) = objs.get(i + 16) {
            self.source.soon(*addr, size_of::<Obj>());
            self.source
                .soon(addr.wrapping_add(size_of::<Obj>() as u64 - 1), 1);
        }
        let sets = |i: usize| {
            let obj: &Obj = self.source.at(*objs.get(i)?)?;
            let cpus = [obj.cpuset, obj.complete_cpuset];
            let [cpus, complete] = if many { [0; 2] } else { cpus };
            let nodes = if processors { 0 } else { obj.nodeset };
            Some([cpus, complete, nodes, obj.complete_nodeset])
        };
        if let Some(sets) = sets(i + 11) {
            for set in &sets {
                self.source.soon(*set, 1);
            }
        }
        if let Some(sets) = sets(i + 6) {
            for set in sets.iter().filter(|set| **set != 0) {
                if let Some(bitmap) = self.source.at::<Bitmap>(*set) {
                    // Long ones lie apart too.
                    match bitmap.count {
                        0..=8 => self.source.soon(bitmap.ulongs, 1),
                        _ => self.long_ahead(bitmap),
                    }
                }
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn long_ahead(&self, bitmap: &Bitmap) {
        let size = bitmap.count as usize * 8;
        self.source.soon(bitmap.ulongs, size.min(2048));
    }
}
