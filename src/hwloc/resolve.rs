// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the indexes that distances and memory attributes keep to the objects
//! they mean.
//!
//! hwloc caches the object pointers and refreshes them on a query. In an
//! adopted topology that is a write to read-only memory, so they are resolved
//! when a file is written, and again on adopting a file that stock wrote.
//!
//! The pointers that memory attributes cache are not followed, also where the
//! cache is said to be valid: hwloc leaves that of an initiator unset which is
//! added to a target that is there. Those of distances are set where they are
//! said to be.

use crate::error::{Error, Result};
use crate::hwloc::bits::Bits;
use crate::hwloc::image::Image;
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use crate::hwloc::validate::Levels;

/// Objects by type and index.
pub struct Resolver<'a> {
    image: Image<'a>,
    gp: Vec<Entry>,
    os: Vec<Entry>,
}

/// Type, index, place among all objects, address.
type Entry = (u32, u64, usize, Addr);

/// Of several objects with one index hwloc finds the first.
fn first(entries: &[Entry], kind: u32, index: u64) -> Option<Addr> {
    let at = entries.partition_point(|e| (e.0, e.1) < (kind, index));
    let entry = entries.get(at)?;
    ((entry.0, entry.1) == (kind, index)).then_some(entry.3)
}

impl<'a> Resolver<'a> {
    /// # Errors
    /// ENOMEM; EINVAL where a level leads outside.
    pub fn new(image: &Image<'a>, levels: &Levels<'a>) -> Result<Self> {
        let mut gp = memory::list(levels.total())?;
        let mut os = Vec::new();
        let all = levels.iter().flat_map(|level| level.objs);
        for (place, addr) in all.enumerate() {
            let obj = image.get::<Obj>(*addr).ok_or(Error::Invalid)?;
            let kind = image.kind(obj.kind);
            gp.push((kind, obj.gp_index, place, *addr));
            if matches!(kind, ty::PU | ty::NUMANODE) {
                let entry = (kind, u64::from(obj.os_index), place, *addr);
                memory::push(&mut os, entry)?;
            }
        }
        gp.sort_unstable();
        os.sort_unstable();
        Ok(Resolver {
            image: *image,
            gp,
            os,
        })
    }

    /// Knows no object: for a topology that names none.
    pub fn empty(image: &Image<'a>) -> Self {
        Resolver {
            image: *image,
            gp: Vec::new(),
            os: Vec::new(),
        }
    }

    pub fn by_gp_index(&self, kind: u32, index: u64) -> Option<Addr> {
        first(&self.gp, kind, index)
    }

    /// Only processors and memory nodes go by the OS's number.
    pub fn by_os_index(&self, kind: u32, index: u32) -> Option<Addr> {
        first(&self.os, kind, u64::from(index))
    }

    /// The objects of distances, `None` for each that is gone.
    ///
    /// # Errors
    /// ENOMEM; EINVAL where an array leads outside.
    pub fn distances(&self, d: &Distances) -> Result<Vec<Option<Addr>>> {
        let n = d.nbobjs as usize;
        let mut found = memory::list(n)?;
        if d.iflags & DIST_OBJS_VALID != 0 {
            let objs = self.image.slice::<Addr>(d.objs, n).ok_or(Error::Invalid)?;
            found.extend(objs.iter().map(|o| Some(*o)));
            return Ok(found);
        }
        let indexes = self.image.slice::<u64>(d.indexes, n);
        let indexes = indexes.ok_or(Error::Invalid)?;
        let unique = self.image.kind(d.unique_type);
        let types = match d.different_types {
            0 => None,
            types => Some(self.image.slice::<u32>(types, n).ok_or(Error::Invalid)?),
        };
        found.extend(indexes.iter().enumerate().map(|(i, index)| {
            let kind = types.and_then(|t| t.get(i)).copied();
            let kind = self.image.kind(kind.unwrap_or(d.unique_type));
            if goes_by_os_index(unique) {
                self.by_os_index(kind, *index as u32)
            } else {
                self.by_gp_index(kind, *index)
            }
        }));
        Ok(found)
    }

    /// The object that holds a memory attribute's value.
    pub fn target(&self, target: &Target) -> Option<Addr> {
        let kind = self.image.kind(target.kind);
        if target.gp_index != NO_GP_INDEX {
            return self.by_gp_index(kind, target.gp_index);
        }
        // Before discovery ends only these two have another name.
        match kind {
            ty::NUMANODE | ty::PU => self.by_os_index(kind, target.os_index),
            _ => None,
        }
    }

    /// What a query of a memory attribute would find for an initiator. A
    /// restriction that hwloc has not yet applied, of an attribute that is not
    /// `valid`, takes the processors away that are not in `root`.
    pub fn initiator(&self, initiator: &Initiator, valid: bool, root: &Bits<'_>) -> Place<'a> {
        if initiator.location == LOCATION_OBJECT {
            return match self.by_gp_index(self.image.kind(initiator.kind), initiator.gp_index) {
                Some(addr) => Place::Object(addr),
                None => Place::Gone,
            };
        }
        match self.image.bitmap(initiator.obj_or_cpuset) {
            None => Place::Gone,
            Some(set) if valid || set.included_in(root) && !set.is_empty() => Place::Set,
            Some(set) if set.intersects(root) => Place::Clipped(set),
            Some(_) => Place::Gone,
        }
    }
}

/// How distances between objects of one type name them.
pub fn goes_by_os_index(unique_type: u32) -> bool {
    matches!(unique_type, ty::PU | ty::NUMANODE)
}

/// Where a memory attribute's value was measured from.
pub enum Place<'a> {
    Object(Addr),
    /// The set that is stored.
    Set,
    /// As much of this set as the machine has.
    Clipped(Bits<'a>),
    Gone,
}
