// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of an adopted topology hwloc may write to, with every cache resolved:
//! it stands behind the topology's structure, in the same allocation.

use crate::error::{Error, Result};
use crate::hwloc::bits::Bits;
use crate::hwloc::image::{self, Image, OrInvalid};
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use crate::hwloc::resolve::{Place, Resolver};
use crate::hwloc::validate::{Levels, Report};
use core::mem::size_of;

/// Values for an address that is known, or for their size alone.
pub struct Sidecar {
    base: usize,
    pub bytes: Vec<u8>,
}

impl Sidecar {
    /// # Errors
    /// ENOMEM.
    pub fn new(base: usize, capacity: usize) -> Result<Self> {
        let bytes = memory::list(capacity)?;
        Ok(Sidecar { base, bytes })
    }

    /// Appends values; no values have no address: a copy of the topology
    /// frees what is not null.
    fn put<T: Plain>(&mut self, values: &[T]) -> Result<Addr> {
        if values.is_empty() {
            return Ok(0);
        }
        let at = self.base + self.bytes.len();
        // SAFETY: any plain value is its bytes.
        let bytes = unsafe {
            core::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values))
        };
        memory::append(&mut self.bytes, bytes)?;
        while self.bytes.len() % 8 != 0 {
            memory::push(&mut self.bytes, 0)?;
        }
        Ok(at as Addr)
    }

    /// Copies what hwloc may write to, and leads `t` to the copies. The
    /// topology's bytes are at `addr`, `length` of them.
    ///
    /// # Errors
    /// EINVAL where somebody changes the file meanwhile; ENOMEM.
    pub fn fill(
        &mut self,
        t: &mut Topology,
        report: &Report,
        addr: usize,
        length: usize,
    ) -> Result<()> {
        if t.nr_cpukinds == 0 && report.resolved {
            return Ok(());
        }
        let work = image::work_for(length);
        // SAFETY: the caller holds the mapping at `addr`; its pointers lead there.
        let image = unsafe { Image::new(addr as u64, addr as *const u8, length, &work) };
        let image = image.valid()?;
        if t.nr_cpukinds != 0 {
            let kinds = image.list::<Cpukind>(t.cpukinds, t.nr_cpukinds as usize);
            t.cpukinds = self.put(&collected(kinds.valid()?.iter(), t.nr_cpukinds)?)?;
            t.nr_cpukinds_allocated = t.nr_cpukinds;
        }
        if report.resolved {
            return Ok(());
        }
        let levels = Levels::read(&image, &report.topology)?;
        let resolver = Resolver::new(&image, &levels)?;
        let root = levels.at(0).and_then(|level| level.objs.first());
        let root: Obj = image.get(*root.valid()?).valid()?;
        let mut filling = Filling {
            side: self,
            image: &image,
            resolver: &resolver,
            root_cpus: image.bitmap(root.cpuset).valid()?,
        };
        filling.memattrs(t)?;
        filling.distances(t)
    }
}

fn collected<T>(values: impl Iterator<Item = T>, count: u32) -> Result<Vec<T>> {
    let mut list = memory::list(count as usize)?;
    list.extend(values);
    Ok(list)
}

struct Filling<'a, 'w> {
    side: &'w mut Sidecar,
    image: &'w Image<'a>,
    resolver: &'w Resolver<'a>,
    root_cpus: Bits<'a>,
}

impl Filling<'_, '_> {
    fn memattrs(&mut self, t: &mut Topology) -> Result<()> {
        let list = self
            .image
            .list::<Memattr>(t.memattrs, t.nr_memattrs as usize);
        let mut copies = collected(list.valid()?.iter(), t.nr_memattrs)?;
        for attr in &mut copies {
            let targets = self
                .image
                .list::<Target>(attr.targets, attr.nr_targets as usize);
            let mut kept = memory::list(attr.nr_targets as usize)?;
            for target in targets.valid()?.iter() {
                kept.extend(self.target(attr, target)?);
            }
            attr.nr_targets = kept.len() as u32;
            attr.targets = self.side.put(&kept)?;
            attr.iflags |= MEMATTR_CACHE_VALID;
        }
        t.memattrs = self.side.put(&copies)?;
        Ok(())
    }

    fn target(&mut self, attr: &Memattr, mut target: Target) -> Result<Option<Target>> {
        let Some(found) = self.resolver.target(&target) else {
            return Ok(None);
        };
        target.obj = found;
        target.gp_index = self.image.get::<Obj>(found).valid()?.gp_index;
        let initiators = self
            .image
            .list::<Initiator>(target.initiators, target.nr_initiators as usize);
        let mut kept = memory::list(target.nr_initiators as usize)?;
        let valid = attr.iflags & MEMATTR_CACHE_VALID != 0;
        for mut initiator in initiators.valid()?.iter() {
            match self.resolver.initiator(&initiator, valid, &self.root_cpus) {
                Place::Object(addr) => initiator.obj_or_cpuset = addr,
                Place::Set => {}
                Place::Clipped(set) => initiator.obj_or_cpuset = self.clipped(&set)?,
                Place::Gone => continue,
            }
            kept.push(initiator);
        }
        if kept.is_empty() && attr.flags & MEMATTR_NEED_INITIATOR != 0 {
            return Ok(None);
        }
        target.nr_initiators = kept.len() as u32;
        target.initiators = self.side.put(&kept)?;
        Ok(Some(target))
    }

    /// The part of a set that the machine has.
    fn clipped(&mut self, set: &Bits<'_>) -> Result<Addr> {
        let count = self.root_cpus.words.len() as u32;
        let words = collected(set.within(&self.root_cpus), count)?;
        let ulongs = self.side.put(&words)?;
        self.side.put(&[Bitmap {
            count,
            allocated: count,
            ulongs,
            infinite: 0,
            mark: BITMAP_MARK,
        }])
    }

    fn distances(&mut self, t: &mut Topology) -> Result<()> {
        let mut list = Vec::new();
        let most = self.image.len() / size_of::<Distances>();
        let mut at = t.first_dist;
        while at != 0 {
            let mut d: Distances = self.image.get(at).valid()?;
            at = d.next;
            // The check found an end; somebody may have taken it away since.
            if list.len() == most {
                return Err(Error::Invalid);
            }
            if d.iflags & DIST_OBJS_VALID == 0 {
                // A matrix cannot be cut to size here, and no writer leaves
                // one with objects that are gone.
                let found = self.resolver.distances(&d)?;
                let mut objs = memory::list(found.len())?;
                for obj in found {
                    objs.push(obj.valid()?);
                }
                d.objs = self.side.put(&objs)?;
                d.iflags |= DIST_OBJS_VALID;
            }
            memory::push(&mut list, d)?;
        }
        let size = size_of::<Distances>() as u64;
        let first = (self.side.base + self.side.bytes.len()) as u64;
        let count = list.len() as u64;
        for (i, d) in (0..).zip(&mut list) {
            d.prev = if i == 0 { 0 } else { first + (i - 1) * size };
            d.next = if i + 1 == count {
                0
            } else {
                first + (i + 1) * size
            };
        }
        if count != 0 {
            t.first_dist = self.side.put(&list)?;
            t.last_dist = first + (count - 1) * size;
        }
        Ok(())
    }
}
