// SPDX-License-Identifier: MIT OR Apache-2.0
//! Infos, distances, memory attributes and CPU kinds.

use super::Levels;
use crate::hwloc::image::{ensure, Checked, Corrupt, Image};
use crate::hwloc::layout::*;
use core::mem::size_of;

/// An array of name and value pairs; both strings must be there.
pub fn infos(image: &Image<'_>, array: Addr, count: u32, at: Addr) -> Checked<()> {
    let list = image.list::<Info>(array, count as usize).ok_or(Corrupt {
        what: "infos: array outside",
        at,
    })?;
    for info in list.iter() {
        let ends = image.string(info.name).is_some() && image.string(info.value).is_some();
        ensure(ends, "infos: string does not end", at)?;
    }
    Ok(())
}

/// Checks all three, and answers whether each cached pointer is resolved.
pub fn check(image: &Image<'_>, t: &Topology, levels: &Levels<'_>) -> Checked<bool> {
    let context = Context {
        image,
        topology: t,
        levels,
    };
    let distances = context.distances()?;
    let memattrs = context.memattrs()?;
    context.cpukinds()?;
    Ok(distances && memattrs)
}

struct Context<'a, 'w> {
    image: &'w Image<'a>,
    topology: &'w Topology,
    levels: &'w Levels<'a>,
}

impl Context<'_, '_> {
    /// Whether the object at `addr` is of type `kind` and has this index.
    fn is(&self, addr: Addr, kind: u32, gp_index: Option<u64>, os_index: Option<u32>) -> bool {
        self.levels.object(self.image, addr).is_some_and(|obj| {
            obj.kind == self.image.kind(kind)
                && gp_index.is_none_or(|i| i == obj.gp_index)
                && os_index.is_none_or(|i| i == obj.os_index)
        })
    }

    fn distances(&self) -> Checked<bool> {
        let image = self.image;
        let mut resolved = true;
        let mut left = image.len() / size_of::<Distances>();
        let mut prev = 0;
        let mut at = self.topology.first_dist;
        while at != 0 {
            ensure(left > 0, "distances: endless list", at)?;
            left -= 1;
            let d: Distances = image.get(at).ok_or(Corrupt {
                what: "distances: outside",
                at,
            })?;
            ensure(d.prev == prev, "distances: wrong links", at)?;
            let n = d.nbobjs as usize;
            let square = n
                .checked_mul(n)
                .and_then(|nn| image.slice::<u64>(d.values, nn));
            ensure(n >= 1 && square.is_some(), "distances: values outside", at)?;
            let named = d.name == 0 || image.string(d.name).is_some();
            ensure(named, "distances: name does not end", at)?;
            let indexes = image.slice::<u64>(d.indexes, n);
            let objs = image.slice::<Addr>(d.objs, n);
            let (Some(indexes), Some(objs)) = (indexes, objs) else {
                return ensure(false, "distances: objects outside", at).map(|()| false);
            };
            let types = if d.different_types == 0 {
                ensure((d.unique_type as usize) < TYPES, "distances: bad type", at)?;
                None
            } else {
                let types = image.slice::<u32>(d.different_types, n);
                let known = types.is_some_and(|l| l.iter().all(|t| (*t as usize) < TYPES));
                ensure(known, "distances: bad types", at)?;
                types
            };
            if d.iflags & DIST_OBJS_VALID == 0 {
                resolved = false;
            } else {
                for (i, (obj, index)) in objs.iter().zip(indexes).enumerate() {
                    let kind = types.and_then(|t| t.get(i)).copied();
                    let kind = kind.unwrap_or(d.unique_type);
                    // PUs and NUMA nodes alone go by the OS's number.
                    let by_os = matches!(image.kind(d.unique_type), ty::PU | ty::NUMANODE);
                    let right = if by_os {
                        self.is(*obj, kind, None, Some(*index as u32))
                    } else {
                        self.is(*obj, kind, Some(*index), None)
                    };
                    ensure(right, "distances: wrong object", at)?;
                }
            }
            prev = at;
            at = d.next;
        }
        ensure(
            self.topology.last_dist == prev,
            "distances: wrong end of the list",
            at,
        )?;
        Ok(resolved)
    }

    fn memattrs(&self) -> Checked<bool> {
        let image = self.image;
        let at = self.topology.memattrs;
        let list = image.list::<Memattr>(at, self.topology.nr_memattrs as usize);
        let list = list.ok_or(Corrupt {
            what: "memattrs: array outside",
            at,
        })?;
        ensure(
            list.len() >= 2,
            "memattrs: capacity or locality missing",
            at,
        )?;
        let mut resolved = true;
        for (id, attr) in list.iter().enumerate() {
            let named = image.string(attr.name).is_some();
            ensure(named, "memattrs: name does not end", at)?;
            // Capacity and locality are computed; hwloc aborts for others.
            let convenience = attr.iflags & MEMATTR_CONVENIENCE != 0;
            let right = convenience == (id < 2) && !(convenience && attr.nr_targets != 0);
            ensure(right, "memattrs: computed attribute", at)?;
            let ordered = matches!(attr.flags & !MEMATTR_NEED_INITIATOR, 1 | 2);
            let asked = attr.flags & MEMATTR_NEED_INITIATOR != 0;
            ensure(
                ordered && !(convenience && asked),
                "memattrs: bad flags",
                at,
            )?;
            let valid = attr.iflags & MEMATTR_CACHE_VALID != 0;
            resolved &= valid;
            let targets = image.list::<Target>(attr.targets, attr.nr_targets as usize);
            let targets = targets.ok_or(Corrupt {
                what: "memattrs: targets outside",
                at,
            })?;
            // hwloc's copy frees an empty array's address: it has to be null,
            // and is made so where the writer left one.
            resolved &= attr.nr_targets != 0 || attr.targets == 0;
            for target in targets.iter() {
                self.target(&attr, &target, valid)?;
                resolved &= target.nr_initiators != 0 || target.initiators == 0;
            }
        }
        Ok(resolved)
    }

    fn target(&self, attr: &Memattr, target: &Target, valid: bool) -> Checked<()> {
        let at = attr.targets;
        ensure((target.kind as usize) < TYPES, "memattrs: bad target", at)?;
        if valid {
            let right = self.is(target.obj, target.kind, Some(target.gp_index), None);
            ensure(right, "memattrs: wrong target", at)?;
        }
        let count = target.nr_initiators as usize;
        let initiators = self.image.list::<Initiator>(target.initiators, count);
        let initiators = initiators.ok_or(Corrupt {
            what: "memattrs: initiators outside",
            at,
        })?;
        let needed = attr.flags & MEMATTR_NEED_INITIATOR != 0;
        ensure(needed == (count > 0), "memattrs: initiators missing", at)?;
        for i in initiators.iter() {
            let right = match i.location {
                LOCATION_CPUSET => self.image.bitmap(i.obj_or_cpuset).is_some(),
                LOCATION_OBJECT => {
                    (i.kind as usize) < TYPES
                        && (!valid || self.is(i.obj_or_cpuset, i.kind, Some(i.gp_index), None))
                }
                _ => false,
            };
            ensure(right, "memattrs: bad initiator", at)?;
        }
        Ok(())
    }

    fn cpukinds(&self) -> Checked<()> {
        let t = self.topology;
        let at = t.cpukinds;
        let kinds = self.image.list::<Cpukind>(at, t.nr_cpukinds as usize);
        let kinds = kinds.ok_or(Corrupt {
            what: "cpukinds: array outside",
            at,
        })?;
        for kind in kinds.iter() {
            let set = self.image.bitmap(kind.cpuset);
            ensure(set.is_some(), "cpukinds: bad set", at)?;
            infos(self.image, kind.infos, kind.nr_infos, at)?;
        }
        Ok(())
    }
}
