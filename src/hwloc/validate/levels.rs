// SPDX-License-Identifier: MIT OR Apache-2.0
//! The arrays that hold the objects of each level.

use super::MAX_DEPTH;
use crate::hwloc::image::{ensure, Checked, Corrupt, Image};
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use core::mem::size_of;

/// One level: an array of addresses of objects, all of one type.
#[derive(Clone, Copy, Debug)]
pub struct Level<'a> {
    pub objs: &'a [Addr],
    pub kind: u32,
    /// Kind and sub-kind of the first object's group, if it is one.
    pub group: (u32, u32),
}

impl Level<'_> {
    /// Whether `obj`, read at `addr`, stands in this level between its
    /// cousins, and is of the level's type.
    #[inline]
    pub fn holds(&self, addr: Addr, obj: &Obj) -> bool {
        let i = obj.logical_index as usize;
        let before = match i {
            0 => 0,
            _ => self.objs.get(i - 1).copied().unwrap_or(0),
        };
        let after = self.objs.get(i + 1).copied().unwrap_or(0);
        self.objs.get(i) == Some(&addr)
            && obj.kind == self.kind
            && obj.prev_cousin == before
            && obj.next_cousin == after
    }
}

/// All levels of a topology.
#[derive(Debug)]
pub struct Levels<'a> {
    /// The normal ones from the root down, then the special ones.
    all: Vec<Level<'a>>,
    normal: usize,
    total: usize,
}

fn level<'a>(image: &Image<'a>, array: Addr, count: u32) -> Checked<Level<'a>> {
    let bad = |what, at| Corrupt { what, at };
    let objs = image
        .slice::<Addr>(array, count as usize)
        .ok_or(bad("level: array outside", array))?;
    let mut found = Level {
        objs,
        kind: ty::NONE,
        group: (0, 0),
    };
    if let Some(first) = objs.first() {
        let obj: Obj = image
            .get(*first)
            .ok_or(bad("level: object outside", *first))?;
        found.kind = image.kind(obj.kind);
        if found.kind == ty::GROUP {
            let attr = image
                .attr(obj.attr)
                .ok_or(bad("level: attributes outside", obj.attr))?;
            found.group = attr.group_kind();
        }
    }
    Ok(found)
}

impl<'a> Levels<'a> {
    pub fn read(image: &Image<'a>, t: &Topology) -> Checked<Self> {
        let at = t.levels;
        let depth = t.nb_levels as usize;
        // The allocated size decides how much a copy allocates.
        let sane = (2..=MAX_DEPTH).contains(&depth)
            && t.nb_levels <= t.nb_levels_allocated
            && t.nb_levels_allocated as usize <= 2 * MAX_DEPTH;
        ensure(sane, "topology: bad number of levels", at)?;
        let outside = Corrupt {
            what: "topology: level arrays outside",
            at,
        };
        let counts = image
            .slice::<u32>(t.level_nbobjects, depth)
            .ok_or(outside)?;
        let arrays = image.slice::<Addr>(t.levels, depth).ok_or(outside)?;

        let mut all = memory::list(depth + SPECIAL_LEVELS)?;
        let mut total = 0usize;
        for (array, count) in arrays.iter().zip(counts) {
            ensure(*count > 0, "level: empty", *array)?;
            all.push(level(image, *array, *count)?);
            total += *count as usize;
        }
        for (s, kind) in t.slevels.iter().zip(SPECIAL_TYPES) {
            let mut found = level(image, s.objs, s.nbobjs)?;
            total += s.nbobjs as usize;
            let ends = (
                found.objs.first().copied().unwrap_or(0),
                found.objs.last().copied().unwrap_or(0),
            );
            ensure(
                (s.first, s.last) == ends,
                "level: first or last object wrong",
                s.objs,
            )?;
            found.kind = kind;
            all.push(found);
        }
        let fits = total <= image.len() / size_of::<Obj>();
        ensure(fits, "topology: more objects than bytes", at)?;
        let found = Levels {
            all,
            normal: depth,
            total,
        };
        let nodes = found.at(DEPTH_NUMANODE).is_some_and(|l| !l.objs.is_empty());
        ensure(nodes, "topology: no memory node", at)?;
        found.types(t)?;
        Ok(found)
    }

    /// The type of each level, and where each type is said to be.
    fn types(&self, t: &Topology) -> Checked<()> {
        let at = t.levels;
        let last = self.normal - 1;
        let normal = || self.all.iter().take(self.normal).enumerate();
        for (depth, level) in normal() {
            let right = match depth {
                0 => level.kind == ty::MACHINE && level.objs.len() == 1,
                d if d == last => level.kind == ty::PU,
                _ => is_normal(level.kind) && level.kind != ty::MACHINE && level.kind != ty::PU,
            };
            ensure(right, "level: type out of place", at)?;
        }
        let mut depths = [DEPTH_UNKNOWN; TYPES];
        for (depth, level) in normal() {
            if let Some(on) = depths.get_mut(level.kind as usize) {
                *on = match *on {
                    DEPTH_UNKNOWN => depth as i32,
                    _ => DEPTH_MULTIPLE,
                };
            }
        }
        for (depth, kind) in (DEPTH_SPECIAL..=DEPTH_NUMANODE).rev().zip(SPECIAL_TYPES) {
            if let Some(on) = depths.get_mut(kind as usize) {
                *on = depth;
            }
        }
        ensure(
            t.type_depth == depths,
            "topology: wrong depth of a type",
            at,
        )?;
        Ok(())
    }

    pub fn total(&self) -> usize {
        self.total
    }

    pub fn depth(&self) -> usize {
        self.normal
    }

    /// Where in [`Levels::iter`] the level at a depth is.
    #[inline]
    pub fn slot(&self, depth: i32) -> Option<usize> {
        match usize::try_from(depth) {
            Ok(depth) => (depth < self.normal).then_some(depth),
            Err(_) => Some(self.normal + special_level(depth)?),
        }
    }

    #[inline]
    pub fn get(&self, slot: usize) -> Option<&Level<'a>> {
        self.all.get(slot)
    }

    /// The level at a depth, special ones by their negative number.
    #[inline]
    pub fn at(&self, depth: i32) -> Option<&Level<'a>> {
        self.all.get(self.slot(depth)?)
    }

    /// All levels, the normal ones from the root down first.
    pub fn iter(&self) -> impl Iterator<Item = &Level<'a>> {
        self.all.iter()
    }

    /// The object at `addr`, if it is one of this topology. Only after the
    /// tree was walked: then each entry of the arrays is a checked object.
    pub fn object(&self, image: &Image<'a>, addr: Addr) -> Option<Obj> {
        let mut obj: Obj = image.get(addr)?;
        obj.kind = image.kind(obj.kind);
        let level = self.at(obj.depth)?;
        (level.objs.get(obj.logical_index as usize) == Some(&addr)).then_some(obj)
    }
}
