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

/// What an allocation of so many bytes takes.
fn rounded(size: usize) -> usize {
    size.next_multiple_of(8)
}

// The image goes by value: it is mostly the process's own, whose bounds are
// numbers that the compiler knows then.

#[inline(always)]
fn bitmap(image: Image<'_>, addr: Addr) -> Option<usize> {
    if addr == 0 {
        return Some(0);
    }
    let bitmap: &Bitmap = image.at(addr)?;
    Some(size_of::<Bitmap>() + bitmap.allocated as usize * 8)
}

fn string(image: Image<'_>, addr: Addr) -> Option<usize> {
    match addr {
        0 => Some(0),
        _ => Some(rounded(image.string(addr)?.len() + 1)),
    }
}

#[inline(never)]
fn infos(image: Image<'_>, array: Addr, count: u32) -> Option<usize> {
    let list = image.slice::<Info>(array, count as usize)?;
    let mut bytes = size_of_val(list);
    for info in list {
        bytes += string(image, info.name)? + string(image, info.value)?;
    }
    Some(bytes)
}

#[inline(never)]
fn names(image: Image<'_>, obj: &Obj) -> Option<usize> {
    Some(string(image, obj.name)? + string(image, obj.subtype)?)
}

#[inline(always)]
fn object(image: Image<'_>, addr: Addr) -> Option<usize> {
    // Nobody changes a live topology meanwhile.
    let obj: &Obj = image.at(addr)?;
    let mut bytes = size_of::<Obj>() + (image.abi().attr + obj.arity as usize) * 8;
    if obj.name | obj.subtype != 0 {
        bytes += names(image, obj)?;
    }
    if image.abi().page_types && image.kind(obj.kind) == ty::NUMANODE {
        let attr = image.attr(obj.attr)?;
        bytes += attr.page_types_len() as usize * size_of::<PageType>();
    }
    bytes += bitmap(image, obj.cpuset)? + bitmap(image, obj.complete_cpuset)?;
    bytes += bitmap(image, obj.nodeset)? + bitmap(image, obj.complete_nodeset)?;
    if obj.infos_count != 0 {
        bytes += infos(image, obj.infos, obj.infos_count)?;
    }
    Some(bytes)
}

/// Asks for what lies scattered over the heap early: an object, then its sets.
#[inline(always)]
fn ahead(image: Image<'_>, objs: &[Addr], i: usize) {
    if let Some(addr) = objs.get(i + 12) {
        image.soon(*addr, size_of::<Obj>());
    }
    if let Some(obj) = objs.get(i + 6).and_then(|addr| image.at::<Obj>(*addr)) {
        image.soon(obj.cpuset, 1);
        image.soon(obj.complete_cpuset, 1);
        image.soon(obj.nodeset, 1);
        image.soon(obj.complete_nodeset, 1);
    }
}

fn distances(image: Image<'_>, first: Addr) -> Option<usize> {
    let mut bytes = 0;
    let mut at = first;
    while at != 0 {
        let d: Distances = image.get(at)?;
        let n = d.nbobjs as usize;
        bytes += size_of::<Distances>() + string(image, d.name)?;
        if d.different_types != 0 {
            bytes += rounded(n * 4);
        }
        // Indexes, objects and values.
        bytes += (2 * n + n * n) * 8;
        at = d.next;
    }
    Some(bytes)
}

fn memattrs(image: Image<'_>, t: &Topology) -> Option<usize> {
    let list = image.slice::<Memattr>(t.memattrs, t.nr_memattrs as usize)?;
    let mut bytes = size_of_val(list);
    for attr in list {
        let targets = image.slice::<Target>(attr.targets, attr.nr_targets as usize)?;
        bytes += string(image, attr.name)? + size_of_val(targets);
        for target in targets {
            let count = target.nr_initiators as usize;
            let initiators = image.slice::<Initiator>(target.initiators, count)?;
            bytes += size_of_val(initiators);
            for i in initiators {
                if i.location == LOCATION_CPUSET {
                    bytes += bitmap(image, i.obj_or_cpuset)?;
                }
            }
        }
    }
    Some(bytes)
}

fn cpukinds(image: Image<'_>, t: &Topology) -> Option<usize> {
    let list = image.slice::<Cpukind>(t.cpukinds, t.nr_cpukinds as usize)?;
    let mut bytes = size_of_val(list);
    for kind in list {
        bytes += bitmap(image, kind.cpuset)? + infos(image, kind.infos, kind.nr_infos)?;
    }
    Some(bytes)
}

#[inline(always)]
fn whole(image: Image<'_>, t: &Topology, levels: &Levels<'_>) -> Option<usize> {
    let mut bytes: usize = SUPPORT_BYTES.into_iter().map(rounded).sum();
    let room = t.nb_levels_allocated as usize;
    bytes += room * 8 + rounded(room * 4);
    bytes += bitmap(image, t.allowed_cpuset)? + bitmap(image, t.allowed_nodeset)?;
    for level in levels.iter() {
        bytes += size_of_val(level.objs);
        for (i, obj) in level.objs.iter().enumerate() {
            ahead(image, level.objs, i);
            bytes += object(image, *obj)?;
        }
    }
    bytes += distances(image, t.first_dist)? + memattrs(image, t)?;
    Some(bytes + cpukinds(image, t)?)
}

/// Bytes, header included, rounded up to whole pages.
///
/// `version` is the library's API version, `usable` the room that it allocates
/// for a topology structure.
#[inline(always)]
pub fn stock(
    image: Image<'_>,
    t: &Topology,
    (version, usable): (u32, usize),
    page: usize,
) -> Checked<usize> {
    let levels = Levels::read(&{ image }, t)?;
    let parts = whole(image, t, &levels).ok_or(Corrupt {
        what: "topology: a pointer leads nowhere",
        at: t.levels,
    })?;
    let bytes = size_of::<Header>() + rounded(topology_size(version, usable)) + parts;
    Ok(bytes.next_multiple_of(page))
}
