// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much room stock hwloc would take for a topology.
//!
//! A file of ours needs less, but the number that `get_length` answers may be
//! handed to another process whose own, stock, `write` does not stop at it.
//! Stock copies the topology to count; here each allocation is only added up.

use crate::hwloc::image::{Checked, Corrupt, Image};
use crate::hwloc::layout::*;
use crate::hwloc::validate::Levels;
use core::mem::size_of;

/// Size of `struct hwloc_topology` in the running release, which is told by
/// its API version and, since that stands still from 2.12 on, by how much
/// memory one takes. For a release to come, at least what it needs.
fn topology_size(version: u32, usable: usize) -> usize {
    match version {
        0..0x2_0800 => 896,
        0x2_0800..0x2_0a00 => 904,
        0x2_0a00..=0x2_0c00 if usable < 912 => 888,
        0x2_0a00..=0x2_0c00 => 912,
        _ => usable.max(1024),
    }
}

struct Sum<'a, 'w> {
    image: &'w Image<'a>,
    bytes: usize,
}

impl Sum<'_, '_> {
    fn add(&mut self, size: usize) {
        self.bytes += size.next_multiple_of(8);
    }

    #[inline]
    fn bitmap(&mut self, addr: Addr) -> Option<()> {
        if addr != 0 {
            let bitmap: &Bitmap = self.image.at(addr)?;
            self.add(size_of::<Bitmap>());
            self.add(bitmap.allocated as usize * 8);
        }
        Some(())
    }

    #[inline]
    fn string(&mut self, addr: Addr) -> Option<()> {
        if addr != 0 {
            let length = self.image.string(addr)?.len();
            self.add(length + 1);
        }
        Some(())
    }

    fn infos(&mut self, array: Addr, count: u32) -> Option<()> {
        let list = self.image.slice::<Info>(array, count as usize)?;
        self.add(size_of_val(list));
        for info in list {
            self.string(info.name)?;
            self.string(info.value)?;
        }
        Some(())
    }

    fn object(&mut self, addr: Addr) -> Option<()> {
        // Nobody changes a live topology meanwhile.
        let obj: &Obj = self.image.at(addr)?;
        self.add(size_of::<Obj>() + self.image.abi().attr * 8);
        if obj.name | obj.subtype != 0 {
            self.string(obj.name)?;
            self.string(obj.subtype)?;
        }
        let pages = self.image.abi().page_types;
        if pages && self.image.kind(obj.kind) == ty::NUMANODE {
            let attr = self.image.attr(obj.attr)?;
            self.add(attr.page_types_len() as usize * size_of::<PageType>());
        }
        for set in [
            obj.cpuset,
            obj.complete_cpuset,
            obj.nodeset,
            obj.complete_nodeset,
        ] {
            self.bitmap(set)?;
        }
        if obj.infos_count != 0 {
            self.infos(obj.infos, obj.infos_count)?;
        }
        self.add(obj.arity as usize * 8);
        Some(())
    }

    /// Asks for what lies scattered over the heap early: an object, then its sets.
    #[inline]
    fn ahead(&self, objs: &[Addr], i: usize) {
        if let Some(addr) = objs.get(i + 12) {
            self.image.soon(*addr, size_of::<Obj>());
        }
        if let Some(obj) = objs.get(i + 6).and_then(|addr| self.image.at::<Obj>(*addr)) {
            self.image.soon(obj.cpuset, 1);
            self.image.soon(obj.complete_cpuset, 1);
            self.image.soon(obj.nodeset, 1);
            self.image.soon(obj.complete_nodeset, 1);
        }
    }

    fn distances(&mut self, first: Addr) -> Option<()> {
        let mut at = first;
        while at != 0 {
            let d: Distances = self.image.get(at)?;
            let n = d.nbobjs as usize;
            self.add(size_of::<Distances>());
            self.string(d.name)?;
            if d.different_types != 0 {
                self.add(n * 4);
            }
            self.add(n * 8);
            self.add(n * 8);
            self.add(n * n * 8);
            at = d.next;
        }
        Some(())
    }

    fn memattrs(&mut self, t: &Topology) -> Option<()> {
        let list = self
            .image
            .slice::<Memattr>(t.memattrs, t.nr_memattrs as usize)?;
        self.add(size_of_val(list));
        for attr in list {
            self.string(attr.name)?;
            let targets = self
                .image
                .slice::<Target>(attr.targets, attr.nr_targets as usize)?;
            self.add(size_of_val(targets));
            for target in targets {
                let count = target.nr_initiators as usize;
                let initiators = self.image.slice::<Initiator>(target.initiators, count)?;
                self.add(size_of_val(initiators));
                for i in initiators {
                    if i.location == LOCATION_CPUSET {
                        self.bitmap(i.obj_or_cpuset)?;
                    }
                }
            }
        }
        Some(())
    }

    fn cpukinds(&mut self, t: &Topology) -> Option<()> {
        let list = self
            .image
            .slice::<Cpukind>(t.cpukinds, t.nr_cpukinds as usize)?;
        self.add(size_of_val(list));
        for kind in list {
            self.bitmap(kind.cpuset)?;
            self.infos(kind.infos, kind.nr_infos)?;
        }
        Some(())
    }

    fn whole(&mut self, t: &Topology, levels: &Levels<'_>, structure: usize) -> Option<()> {
        self.add(structure);
        for bytes in SUPPORT_BYTES {
            self.add(bytes);
        }
        let room = t.nb_levels_allocated as usize;
        self.add(room * 8);
        self.add(room * 4);
        self.bitmap(t.allowed_cpuset)?;
        self.bitmap(t.allowed_nodeset)?;
        for level in levels.iter() {
            self.add(size_of_val(level.objs));
            for (i, obj) in level.objs.iter().enumerate() {
                self.ahead(level.objs, i);
                self.object(*obj)?;
            }
        }
        self.distances(t.first_dist)?;
        self.memattrs(t)?;
        self.cpukinds(t)
    }
}

/// Bytes, header included, rounded up to whole pages.
///
/// `version` is the library's API version, `usable` the room that it allocates
/// for a topology structure.
pub fn stock(
    image: &Image<'_>,
    t: &Topology,
    (version, usable): (u32, usize),
    page: usize,
) -> Checked<usize> {
    let levels = Levels::read(image, t)?;
    let mut sum = Sum {
        image,
        bytes: size_of::<Header>(),
    };
    sum.whole(t, &levels, topology_size(version, usable))
        .ok_or(Corrupt {
            what: "topology: a pointer leads nowhere",
            at: t.levels,
        })?;
    Ok(sum.bytes.next_multiple_of(page))
}
