// SPDX-License-Identifier: MIT OR Apache-2.0
//! What differs between the layouts of hwloc, as data: the code that checks,
//! encodes and moves a topology is one for all.
//!
//! The structures of this folder are those of [`ABI_2_4`]. Another layout says
//! where it has the parts of [`Topology`], how it numbers the types of objects,
//! and how large their attributes are. Objects, sets, distances and memory
//! attributes are the same in each that is known.

use super::{ty, Topology, ABI, TYPES};
#[cfg(test)]
use core::mem::offset_of;
use core::mem::size_of;

/// A layout.
#[derive(Debug)]
pub struct Abi {
    /// What a topology of it begins with.
    pub number: u32,
    /// Parts of [`Topology`]: where each begins, and where in this layout. A part
    /// ends where the next begins.
    pub parts: &'static [(usize, usize)],
    /// Bytes of the structure.
    pub topology: usize,
    /// What each number of a type stands for.
    pub types: [u8; TYPES],
    /// Words of an object's attributes.
    pub attr: usize,
    /// Whether memory nodes have types of pages.
    pub page_types: bool,
}

/// hwloc 2.4 to 2.15.
pub static ABI_2_4: Abi = Abi {
    number: ABI,
    parts: &[(0, 0)],
    topology: size_of::<Topology>(),
    types: [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
    ],
    attr: 5,
    page_types: true,
};

impl Abi {
    /// What a type's number stands for.
    #[inline]
    pub fn kind(&self, number: u32) -> u32 {
        if self.is_ours() {
            return number;
        }
        let kind = self.types.get(number as usize);
        kind.map_or(ty::NONE, |kind| u32::from(*kind))
    }

    /// The number of one of our types.
    pub fn number_of(&self, kind: u32) -> u32 {
        let number = self.types.iter().position(|ours| u32::from(*ours) == kind);
        number.map_or(ty::NONE, |number| number as u32)
    }

    /// Where a field of [`Topology`] stands.
    pub fn at(&self, field: usize) -> usize {
        let part = self.parts.iter().rev().find(|part| part.0 <= field);
        part.map_or(field, |(ours, theirs)| field - ours + theirs)
    }

    /// Whether it is the one that the structures are of.
    #[inline]
    pub fn is_ours(&self) -> bool {
        self.number == ABI
    }

    /// Takes a topology's fields from the bytes of this layout's structure; it
    /// has as many as [`Abi::topology`] says.
    #[cold]
    #[inline(never)]
    pub fn read(&self, bytes: &[u8]) -> Option<Topology> {
        // SAFETY: integers, all zero is valid.
        let mut t: Topology = unsafe { core::mem::zeroed() };
        // SAFETY: a topology is its bytes, and any are one.
        let fields = unsafe {
            core::slice::from_raw_parts_mut((&raw mut t).cast::<u8>(), size_of::<Topology>())
        };
        self.each_part(|ours, theirs, size| {
            let to = fields.get_mut(ours..ours + size)?;
            to.copy_from_slice(bytes.get(theirs..theirs + size)?);
            Some(())
        })?;
        let (depths, filters) = (t.type_depth, t.type_filter);
        for (theirs, ours) in self.types.iter().enumerate() {
            let ours = usize::from(*ours);
            *t.type_depth.get_mut(ours)? = *depths.get(theirs)?;
            *t.type_filter.get_mut(ours)? = *filters.get(theirs)?;
        }
        Some(t)
    }

    /// Puts a topology's fields into the bytes of this layout's structure.
    #[inline]
    pub fn put(&self, t: &Topology, bytes: &mut [u8]) -> Option<()> {
        if !self.is_ours() {
            return self.write(t, bytes);
        }
        let room = bytes.get_mut(..size_of::<Topology>())?;
        // SAFETY: as long, and a topology is its bytes.
        unsafe { room.as_mut_ptr().cast::<Topology>().write_unaligned(*t) };
        Some(())
    }

    #[cold]
    #[inline(never)]
    pub fn write(&self, t: &Topology, bytes: &mut [u8]) -> Option<()> {
        let mut t = *t;
        let (depths, filters) = (t.type_depth, t.type_filter);
        for (theirs, ours) in self.types.iter().enumerate() {
            let ours = usize::from(*ours);
            *t.type_depth.get_mut(theirs)? = *depths.get(ours)?;
            *t.type_filter.get_mut(theirs)? = *filters.get(ours)?;
        }
        // SAFETY: a topology is its bytes.
        let fields = unsafe {
            core::slice::from_raw_parts((&raw const t).cast::<u8>(), size_of::<Topology>())
        };
        self.each_part(|ours, theirs, size| {
            let to = bytes.get_mut(theirs..theirs + size)?;
            to.copy_from_slice(fields.get(ours..ours + size)?);
            Some(())
        })
    }

    /// Calls `each` with where a part begins, here and there, and its size.
    fn each_part(&self, mut each: impl FnMut(usize, usize, usize) -> Option<()>) -> Option<()> {
        for (i, (ours, theirs)) in self.parts.iter().enumerate() {
            let end = self.parts.get(i + 1).map_or(size_of::<Topology>(), |p| p.0);
            each(*ours, *theirs, end.checked_sub(*ours)?)?;
        }
        Some(())
    }
}

/// A second layout, for tests: the numbers of types, the sizes and, where hwloc's
/// own test of the layout names them, the places of hwloc's development version,
/// `0x30000`. Its attributes of devices are not these yet.
#[cfg(test)]
pub static ABI_OTHER: Abi = Abi {
    number: 0x3_0000,
    parts: &[
        (0, 0),
        (offset_of!(Topology, is_thissystem), 200 + 16),
        (offset_of!(Topology, userdata_export_cb), 712),
        (offset_of!(Topology, nr_cpukinds), 784),
        (offset_of!(Topology, backends), 856),
    ],
    topology: 888,
    types: [
        0, 1, 19, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 18, 14, 15, 16, 17,
    ],
    attr: 6,
    page_types: false,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_where_the_layout_says() {
        let places = [
            (offset_of!(Topology, adopted_shmem_addr), 248),
            (offset_of!(Topology, binding_hooks), 472),
            (offset_of!(Topology, support_discovery), 664),
            (offset_of!(Topology, first_dist), 736),
            (offset_of!(Topology, memattrs), 760),
            (offset_of!(Topology, cpukinds), 792),
            (offset_of!(Topology, next_subkind), 832),
            (offset_of!(Topology, backends), 856),
            (offset_of!(Topology, tma), 880),
        ];
        for (ours, theirs) in places {
            assert_eq!(ABI_OTHER.at(ours), theirs);
            assert_eq!(ABI_2_4.at(ours), ours);
        }
    }

    #[test]
    fn a_type_has_one_number() {
        for abi in [&ABI_2_4, &ABI_OTHER] {
            let mut all = abi.types;
            all.sort_unstable();
            assert_eq!(all, ABI_2_4.types);
            assert!(abi.kind(TYPES as u32) >= TYPES as u32);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for abi in [&ABI_2_4, &ABI_OTHER] {
            let mut bytes = [0u8; 1024];
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte = (i * 7 % 251) as u8;
            }
            let t = abi.read(&bytes[..abi.topology]).expect("long enough");
            let mut again = [0u8; 1024];
            abi.write(&t, &mut again[..abi.topology]).expect("room");
            let t2 = abi.read(&again).expect("long enough");
            assert_eq!(format!("{t:?}"), format!("{t2:?}"));
            assert!(abi.read(&bytes[..abi.topology - 1]).is_none());
            assert!(abi.write(&t, &mut again[..abi.topology - 1]).is_none());
        }
    }
}
