// SPDX-License-Identifier: MIT OR Apache-2.0
//! A topology at another address than it was written for: a private copy
//! with every pointer moved.

use crate::error::{Error, Result};
use crate::hwloc::adopt::source::{inspect, inspect_copy, Held, Source};
use crate::hwloc::image::{work_for, Image, OrInvalid};
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use crate::hwloc::range::map::Mapping;
use crate::hwloc::validate::Levels;
use core::mem::{offset_of, size_of};

/// Moves a copy of the file to where it is.
///
/// # Errors
/// EINVAL if the file is corrupt, ENOMEM.
#[inline(never)]
pub fn relocate(source: &Source, mut mapping: Mapping) -> Result<Held> {
    // Checked twice: a pointer is followed only after the first check, and
    // a file whose parts overlap could become another one by the moving.
    let report = inspect_copy(&mut mapping, source)?;
    let base = source.addr as u64;
    let target = mapping.addr() as u64;
    let mut words = memory::filled(0u64, source.used.div_ceil(8))?;
    for (word, bytes) in words.iter_mut().zip(mapping.bytes().chunks_exact(8)) {
        let mut raw = [0; 8];
        raw.copy_from_slice(bytes);
        *word = u64::from_ne_bytes(raw);
    }
    let work = work_for(source.length);
    // SAFETY: a buffer of our own that outlives the image.
    let image = unsafe { Image::new(base, words.as_ptr().cast(), words.len() * 8, &work) };
    let image = image.ok_or(Error::Invalid)?;
    rebase(&image, &report.topology, mapping.bytes_mut(), target)?;
    let report = inspect(&mapping, mapping.addr())?;
    mapping.seal();
    Ok(Held { mapping, report })
}

/// Moves every pointer of `old`, a checked image with topology `t`, in `new`,
/// a copy of it, so that it fits the address `target`.
///
/// # Errors
/// EINVAL if parts lie beyond `new`; ENOMEM.
pub fn rebase(old: &Image<'_>, t: &Topology, new: &mut [u8], target: Addr) -> Result<()> {
    let mut moving = Moving {
        old: *old,
        new,
        delta: target.wrapping_sub(old.base()),
    };
    moving.all(t)
}

/// The old bytes, which are read, and the new ones, which are written: a
/// pointer that two paths lead to is thus moved once.
struct Moving<'a, 'b> {
    old: Image<'a>,
    new: &'b mut [u8],
    delta: u64,
}

impl Moving<'_, '_> {
    /// Moves the pointer at `slot`; answers what it pointed to.
    #[inline(never)]
    fn pointer(&mut self, slot: Addr) -> Result<Addr> {
        let target: Addr = self.old.get(slot).valid()?;
        if target != 0 {
            let at = usize::try_from(slot - self.old.base()).ok().valid()?;
            let room = self.new.get_mut(at..at + 8).valid()?;
            room.copy_from_slice(&target.wrapping_add(self.delta).to_ne_bytes());
        }
        Ok(target)
    }

    #[inline(never)]
    fn pointers(&mut self, array: Addr, count: usize) -> Result<()> {
        for i in 0..count {
            self.pointer(array + i as u64 * 8)?;
        }
        Ok(())
    }

    #[inline(never)]
    fn bitmap(&mut self, slot: Addr) -> Result<()> {
        let bitmap = self.pointer(slot)?;
        if bitmap != 0 {
            self.pointer(bitmap + offset_of!(Bitmap, ulongs) as u64)?;
        }
        Ok(())
    }

    fn infos(&mut self, slot: Addr, count: u32) -> Result<()> {
        let array = self.pointer(slot)?;
        self.pointers(array, count as usize * 2)
    }

    fn object(&mut self, addr: Addr) -> Result<()> {
        let obj: Obj = self.old.get(addr).valid()?;
        for field in [
            offset_of!(Obj, subtype),
            offset_of!(Obj, name),
            offset_of!(Obj, next_cousin),
            offset_of!(Obj, prev_cousin),
            offset_of!(Obj, parent),
            offset_of!(Obj, next_sibling),
            offset_of!(Obj, prev_sibling),
            offset_of!(Obj, first_child),
            offset_of!(Obj, last_child),
            offset_of!(Obj, memory_first_child),
            offset_of!(Obj, io_first_child),
            offset_of!(Obj, misc_first_child),
        ] {
            self.pointer(addr + field as u64)?;
        }
        let attr = self.pointer(addr + offset_of!(Obj, attr) as u64)?;
        let abi = self.old.abi();
        if abi.page_types && abi.kind(obj.kind) == ty::NUMANODE {
            self.pointer(attr + 16)?;
        }
        let children = self.pointer(addr + offset_of!(Obj, children) as u64)?;
        self.pointers(children, obj.arity as usize)?;
        for set in [
            offset_of!(Obj, cpuset),
            offset_of!(Obj, complete_cpuset),
            offset_of!(Obj, nodeset),
            offset_of!(Obj, complete_nodeset),
        ] {
            self.bitmap(addr + set as u64)?;
        }
        self.infos(addr + offset_of!(Obj, infos) as u64, obj.infos_count)
    }

    fn distances(&mut self, first: Addr) -> Result<()> {
        let mut at = first;
        while at != 0 {
            let d: Distances = self.old.get(at).valid()?;
            for field in [
                offset_of!(Distances, name),
                offset_of!(Distances, different_types),
                offset_of!(Distances, indexes),
                offset_of!(Distances, values),
                offset_of!(Distances, objs),
                offset_of!(Distances, prev),
                offset_of!(Distances, next),
            ] {
                self.pointer(at + field as u64)?;
            }
            self.pointers(d.objs, d.nbobjs as usize)?;
            at = d.next;
        }
        Ok(())
    }

    fn memattrs(&mut self, t: &Topology) -> Result<()> {
        for i in 0..u64::from(t.nr_memattrs) {
            let at = t.memattrs + i * size_of::<Memattr>() as u64;
            let attr: Memattr = self.old.get(at).valid()?;
            self.pointer(at + offset_of!(Memattr, name) as u64)?;
            let targets = self.pointer(at + offset_of!(Memattr, targets) as u64)?;
            for j in 0..u64::from(attr.nr_targets) {
                self.target(targets + j * size_of::<Target>() as u64)?;
            }
        }
        Ok(())
    }

    fn target(&mut self, at: Addr) -> Result<()> {
        let target: Target = self.old.get(at).valid()?;
        self.pointer(at + offset_of!(Target, obj) as u64)?;
        let initiators = self.pointer(at + offset_of!(Target, initiators) as u64)?;
        for k in 0..u64::from(target.nr_initiators) {
            let at = initiators + k * size_of::<Initiator>() as u64;
            let initiator: Initiator = self.old.get(at).valid()?;
            let slot = at + offset_of!(Initiator, obj_or_cpuset) as u64;
            if initiator.location == LOCATION_CPUSET {
                self.bitmap(slot)?;
            } else {
                self.pointer(slot)?;
            }
        }
        Ok(())
    }

    fn all(&mut self, t: &Topology) -> Result<()> {
        let head = self.old.base();
        let at = head + size_of::<Header>() as u64;
        let abi = self.old.abi();
        let place = |field| at + abi.at(field) as u64;
        let levels = Levels::read(&self.old, t)?;
        for obj in levels.iter().flat_map(|level| level.objs) {
            self.object(*obj)?;
        }
        self.pointer(head + offset_of!(Header, mmap_address) as u64)?;
        // The sum of what was there.
        let sum = (place(offset_of!(Topology, sum)) - head) as usize;
        self.new.get_mut(sum..sum + 8).valid()?.fill(0);
        for field in [
            offset_of!(Topology, level_nbobjects),
            offset_of!(Topology, support_discovery),
            offset_of!(Topology, support_cpubind),
            offset_of!(Topology, support_membind),
            offset_of!(Topology, support_misc),
            offset_of!(Topology, first_dist),
            offset_of!(Topology, last_dist),
            offset_of!(Topology, memattrs),
            offset_of!(Topology, cpukinds),
        ] {
            self.pointer(place(field))?;
        }
        self.bitmap(place(offset_of!(Topology, allowed_cpuset)))?;
        self.bitmap(place(offset_of!(Topology, allowed_nodeset)))?;
        let arrays = self.pointer(place(offset_of!(Topology, levels)))?;
        for d in 0..t.nb_levels as usize {
            let array = self.pointer(arrays + d as u64 * 8)?;
            let count = levels.at(d as i32).valid()?.objs.len();
            self.pointers(array, count)?;
        }
        for (i, special) in t.slevels.iter().enumerate() {
            let slot = place(offset_of!(Topology, slevels) + i * size_of::<SpecialLevel>());
            self.pointer(slot + offset_of!(SpecialLevel, first) as u64)?;
            self.pointer(slot + offset_of!(SpecialLevel, last) as u64)?;
            let array = self.pointer(slot + offset_of!(SpecialLevel, objs) as u64)?;
            self.pointers(array, special.nbobjs as usize)?;
        }
        self.distances(t.first_dist)?;
        self.memattrs(t)?;
        for i in 0..u64::from(t.nr_cpukinds) {
            let kind_at = t.cpukinds + i * size_of::<Cpukind>() as u64;
            let kind: Cpukind = self.old.get(kind_at).valid()?;
            self.bitmap(kind_at + offset_of!(Cpukind, cpuset) as u64)?;
            self.infos(kind_at + offset_of!(Cpukind, infos) as u64, kind.nr_infos)?;
        }
        Ok(())
    }
}
