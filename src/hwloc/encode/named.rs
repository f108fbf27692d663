// SPDX-License-Identifier: MIT OR Apache-2.0
//! What names objects by index, distances and memory attributes, and CPU kinds.

use super::encoder::Encoder;
use super::shared::trimmed;
use crate::error::Result;
use crate::hwloc::bits::Bits;
use crate::hwloc::image::OrInvalid;
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use crate::hwloc::resolve::{goes_by_os_index, Place as Origin, Resolver};
use core::mem::{offset_of, size_of};

impl<'a> Encoder<'a, '_> {
    /// What names objects by index.
    pub(super) fn named(&mut self, t: &mut Topology) -> Result<()> {
        let count = t.nr_memattrs as usize;
        let list = self.source.slice::<Memattr>(t.memattrs, count).valid()?;
        let any = t.first_dist != 0 || list.iter().any(|attr| attr.nr_targets != 0);
        let resolver = match any {
            true => Resolver::new(&self.source, self.levels)?,
            false => Resolver::empty(&self.source),
        };
        self.distances(t, &resolver)?;
        self.memattrs(t, &resolver)
    }

    pub(super) fn distances(&mut self, t: &mut Topology, resolver: &Resolver<'a>) -> Result<()> {
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
    pub(super) fn matrix(
        &mut self,
        source: &Distances,
        resolver: &Resolver<'a>,
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
            indexes.push(
                match goes_by_os_index(self.source.kind(source.unique_type)) {
                    true => u64::from(obj.os_index),
                    false => obj.gp_index,
                },
            );
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

    pub(super) fn memattrs(&mut self, t: &mut Topology, resolver: &Resolver<'a>) -> Result<()> {
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
    pub(super) fn target(
        &mut self,
        resolver: &Resolver<'a>,
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
    pub(super) fn clipped(&mut self, set: &Bits<'a>) -> Result<Addr> {
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

    pub(super) fn cpukinds(&mut self, t: &mut Topology) -> Result<()> {
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
}
