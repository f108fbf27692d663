// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the indexes that distances and memory attributes keep to the objects
//! they mean.
//!
//! hwloc caches the object pointers and refreshes them on a query. In an
//! adopted topology that is a write to read-only memory, so they are resolved
//! when a file is written, and again on adopting a file that stock wrote.

use super::image::Image;
use super::layout::*;
use super::validate::Levels;
use core::cell::OnceCell;
use std::collections::HashMap;

/// What is searched: the levels of a topology and where its bytes are.
pub struct Resolver<'a, 'w> {
    image: &'w Image<'a>,
    levels: &'w Levels<'a>,
    index: OnceCell<Index>,
}

/// Objects by type and index, made when the first one is asked for.
#[derive(Default)]
struct Index {
    gp: HashMap<(u32, u64), Found>,
    os: HashMap<(u32, u32), Found>,
}

/// An object that distances or a memory attribute mean.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub addr: Addr,
    pub gp_index: u64,
}

impl<'a, 'w> Resolver<'a, 'w> {
    pub fn new(image: &'w Image<'a>, levels: &'w Levels<'a>) -> Self {
        Resolver {
            image,
            levels,
            index: OnceCell::new(),
        }
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let mut index = Index::default();
            for addr in self.levels.iter().flat_map(|level| level.objs) {
                let Some(obj) = self.image.get::<Obj>(*addr) else {
                    continue;
                };
                let found = Found {
                    addr: *addr,
                    gp_index: obj.gp_index,
                };
                index.gp.insert((obj.kind, obj.gp_index), found);
                if matches!(obj.kind, ty::PU | ty::NUMANODE) {
                    index.os.insert((obj.kind, obj.os_index), found);
                }
            }
            index
        })
    }

    pub fn by_gp_index(&self, kind: u32, index: u64) -> Option<Found> {
        self.index().gp.get(&(kind, index)).copied()
    }

    /// Only processors and memory nodes go by the OS's number.
    pub fn by_os_index(&self, kind: u32, index: u32) -> Option<Found> {
        self.index().os.get(&(kind, index)).copied()
    }

    /// The objects of distances, `None` for each that is gone.
    pub fn distances(&self, d: &Distances) -> Option<Vec<Option<Addr>>> {
        let n = d.nbobjs as usize;
        let indexes = self.image.slice::<u64>(d.indexes, n)?;
        if d.iflags & DIST_OBJS_VALID != 0 {
            let objs = self.image.slice::<Addr>(d.objs, n)?;
            return Some(objs.iter().map(|o| Some(*o)).collect());
        }
        let types = if d.different_types == 0 {
            None
        } else {
            Some(self.image.slice::<u32>(d.different_types, n)?)
        };
        let find = |i: usize| {
            let kind = types.map_or(d.unique_type, |t| t[i]);
            if matches!(d.unique_type, ty::PU | ty::NUMANODE) {
                self.by_os_index(kind, indexes[i] as u32)
            } else {
                self.by_gp_index(kind, indexes[i])
            }
        };
        Some((0..n).map(|i| find(i).map(|f| f.addr)).collect())
    }

    /// The object that holds a memory attribute's value.
    pub fn target(&self, target: &Target, valid: bool) -> Option<Found> {
        if valid {
            return Some(Found {
                addr: target.obj,
                gp_index: target.gp_index,
            });
        }
        if target.gp_index != NO_GP_INDEX {
            return self.by_gp_index(target.kind, target.gp_index);
        }
        // Before discovery ends only these two have another name.
        match target.kind {
            ty::NUMANODE | ty::PU => self.by_os_index(target.kind, target.os_index),
            _ => None,
        }
    }

    /// An initiator with its object resolved, or `None` if that is gone.
    pub fn initiator(&self, initiator: &Initiator, valid: bool) -> Option<Initiator> {
        let mut resolved = *initiator;
        if initiator.location == LOCATION_OBJECT && !valid {
            resolved.obj_or_cpuset = self.by_gp_index(initiator.kind, initiator.gp_index)?.addr;
        }
        Some(resolved)
    }
}
