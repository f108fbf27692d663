// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects, level by level.

use super::encoder::Encoder;
use super::shared::all_zero;
use crate::error::{Error, Result};
use crate::hwloc::image::OrInvalid;
use crate::hwloc::layout::*;
use core::mem::{offset_of, size_of};

impl Encoder<'_, '_> {
    /// One level of objects. Levels above come first, so that a set equal
    /// to the parent's finds it written.
    pub(super) fn level(&mut self, depth: i32) -> Result<()> {
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
    pub(super) fn sets(
        &mut self,
        source: &Obj,
        obj: &mut Obj,
        nodes: &mut (Addr, Addr),
    ) -> Result<()> {
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
    pub(super) fn are_single(&self, sets: [Addr; 2], os_index: u32) -> Result<bool> {
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
    pub(super) fn single(&mut self, os_index: u32) -> Result<Addr> {
        let zeros = os_index / 64;
        let ulongs = self.run(zeros as usize, 1 << (os_index % 64))?;
        self.put_bitmap(zeros + 1, ulongs, false)
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
    /// then its sets, then their words. Of processors three sets are read.
    #[inline]
    pub(super) fn ahead(&self, objs: &[Addr], i: usize, processors: bool) {
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
    pub(super) fn long_ahead(&self, bitmap: &Bitmap) {
        let words = bitmap.count.min(256) as usize;
        self.source.soon(bitmap.ulongs, words * 8);
    }
}
