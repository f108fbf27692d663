// SPDX-License-Identifier: MIT OR Apache-2.0
//! Types of objects, and where each stands.

/// Number of special levels: NUMA nodes, bridges, PCI, OS, Misc, memory caches.
pub const SPECIAL_LEVELS: usize = 6;
/// Depth of the first special level; the others follow downwards.
pub const DEPTH_NUMANODE: i32 = -3;
/// Depth of the last.
pub const DEPTH_SPECIAL: i32 = DEPTH_NUMANODE - SPECIAL_LEVELS as i32 + 1;

/// Object types, by the numbers of hwloc's enum.
pub mod ty {
    pub const MACHINE: u32 = 0;
    pub const PU: u32 = 3;
    pub const L1CACHE: u32 = 4;
    pub const L5CACHE: u32 = 8;
    pub const L1ICACHE: u32 = 9;
    pub const L3ICACHE: u32 = 11;
    pub const GROUP: u32 = 12;
    pub const NUMANODE: u32 = 13;
    pub const BRIDGE: u32 = 14;
    pub const PCI_DEVICE: u32 = 15;
    pub const OS_DEVICE: u32 = 16;
    pub const MISC: u32 = 17;
    pub const MEMCACHE: u32 = 18;
    pub const DIE: u32 = 19;
    /// "No type": distances between objects of several types.
    pub const NONE: u32 = u32::MAX;
}

/// A level's position among the special ones, for a negative depth.
pub fn special_level(depth: i32) -> Option<usize> {
    let index = DEPTH_NUMANODE.checked_sub(depth)?;
    usize::try_from(index).ok().filter(|i| *i < SPECIAL_LEVELS)
}

/// The type that stands on each special level.
pub const SPECIAL_TYPES: [u32; SPECIAL_LEVELS] = [
    ty::NUMANODE,
    ty::BRIDGE,
    ty::PCI_DEVICE,
    ty::OS_DEVICE,
    ty::MISC,
    ty::MEMCACHE,
];

/// The special depth of a type, or `None` for a type of the CPU tree.
#[inline]
pub const fn special_depth(kind: u32) -> Option<i32> {
    // A look at `SPECIAL_TYPES` would cost more; every object of a check asks.
    let level = match kind {
        ty::NUMANODE => 0,
        ty::BRIDGE => 1,
        ty::PCI_DEVICE => 2,
        ty::OS_DEVICE => 3,
        ty::MISC => 4,
        ty::MEMCACHE => 5,
        _ => return None,
    };
    Some(DEPTH_NUMANODE - level)
}
const _: () = {
    let mut i = 0;
    while i < SPECIAL_LEVELS {
        assert!(
            matches!(special_depth(SPECIAL_TYPES[i]), Some(d) if d == DEPTH_NUMANODE - i as i32)
        );
        i += 1;
    }
};

/// Machine, packages, dies, groups, caches, cores and PUs.
pub fn is_normal(kind: u32) -> bool {
    kind <= ty::GROUP || kind == ty::DIE
}

/// NUMA nodes and memory-side caches.
pub fn is_memory(kind: u32) -> bool {
    kind == ty::NUMANODE || kind == ty::MEMCACHE
}

/// Bridges, PCI and OS devices.
pub fn is_io(kind: u32) -> bool {
    (ty::BRIDGE..=ty::OS_DEVICE).contains(&kind)
}

/// Objects without sets: I/O and Misc.
pub fn is_special(kind: u32) -> bool {
    (ty::BRIDGE..=ty::MISC).contains(&kind)
}
