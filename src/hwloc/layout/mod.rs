// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layout ABI `0x20400`: the structures of hwloc 2.4 to 2.15 as they stand in
//! memory and therefore in a shared-memory file.
//!
//! Every field is a plain integer: a pointer of the file is a number until
//! [`crate::hwloc::image`] has shown that it leads inside the file. That also makes
//! every bit pattern a valid value, so a hostile file can be read field by
//! field without undefined behaviour.

pub mod abi;
mod kinds;
mod sizes;

pub use self::kinds::*;
use core::mem::size_of;

/// `HWLOC_TOPOLOGY_ABI` of the releases 2.4.0 (2020) to 2.15.0.
pub const ABI: u32 = 0x20400;

/// A virtual address, in the address space the file was written for.
pub type Addr = u64;

/// Number of object types.
pub const TYPES: usize = 20;
/// Bytes of the topology structure that all releases of this ABI share.
pub const TOPOLOGY_COMMON: usize = 824;
/// Bytes at the end of [`TOPOLOGY_COMMON`] that are scratch of a discovery
/// and never read in an adopted topology: an adopter keeps its own.
pub const TOPOLOGY_ADOPTED: usize = 752;

/// `type_depth` of a type that the machine does not have.
pub const DEPTH_UNKNOWN: i32 = -1;
/// `type_depth` of a type that stands on several levels.
pub const DEPTH_MULTIPLE: i32 = -2;
/// Type filters.
pub const KEEP_ALL: u32 = 0;
pub const KEEP_NONE: u32 = 1;
pub const KEEP_STRUCTURE: u32 = 2;
/// A notion of I/O only.
pub const KEEP_IMPORTANT: u32 = 3;
/// Flag of a topology: objects that may not be used are kept.
pub const FLAG_INCLUDE_DISALLOWED: u64 = 1;
/// Distances: `objs` has been resolved.
pub const DIST_OBJS_VALID: u32 = 1;
/// Memory attribute: the name is a constant of the library.
pub const MEMATTR_STATIC_NAME: u32 = 1;
/// Memory attribute: the object pointers have been resolved.
pub const MEMATTR_CACHE_VALID: u32 = 2;
/// Memory attribute: computed from the nodes, without targets of its own.
pub const MEMATTR_CONVENIENCE: u32 = 4;
/// Memory attribute: values depend on who asks.
pub const MEMATTR_NEED_INITIATOR: u64 = 4;
/// Initiator of a memory attribute: an object.
pub const LOCATION_OBJECT: u32 = 0;
/// Initiator of a memory attribute: a set of processors.
pub const LOCATION_CPUSET: u32 = 1;
/// "Not known yet" in the indexes of a memory attribute's target.
pub const NO_GP_INDEX: u64 = u64::MAX;

/// A type whose values are plain integers without padding that matters.
///
/// # Safety
/// Every bit pattern of `size_of::<Self>()` bytes must be a valid value.
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($t:ty),* $(,)?) => { $(
        // SAFETY: integers, and structures of integers, take any bit pattern.
        unsafe impl Plain for $t {}
    )* };
}
plain!(
    u8,
    u32,
    i32,
    u64,
    [u64; 2],
    Header,
    Topology,
    SpecialLevel,
    Obj,
    Info,
    PageType
);
plain!(Bitmap, Distances, Memattr, Target, Initiator, Cpukind);

/// The first bytes of a shared-memory topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    pub version: u32,
    pub header_length: u32,
    pub mmap_address: Addr,
    pub mmap_length: u64,
}

/// The only version of [`Header`] there is.
pub const HEADER_VERSION: u32 = 1;

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SpecialLevel {
    pub nbobjs: u32,
    pub _pad: u32,
    pub objs: Addr,
    pub first: Addr,
    pub last: Addr,
}

/// `struct hwloc_topology`, as far as all releases agree.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Topology {
    pub abi: u32,
    pub nb_levels: u32,
    pub nb_levels_allocated: u32,
    pub _pad0: u32,
    pub level_nbobjects: Addr,
    pub levels: Addr,
    pub flags: u64,
    pub type_depth: [i32; TYPES],
    pub type_filter: [u32; TYPES],
    pub is_thissystem: i32,
    pub is_loaded: i32,
    pub modified: i32,
    pub pid: i32,
    pub userdata: Addr,
    pub next_gp_index: u64,
    pub adopted_shmem_addr: Addr,
    pub adopted_shmem_length: u64,
    pub slevels: [SpecialLevel; SPECIAL_LEVELS],
    pub allowed_cpuset: Addr,
    pub allowed_nodeset: Addr,
    /// 24 function pointers of the process that made the topology.
    pub binding_hooks: [Addr; 24],
    pub support_discovery: Addr,
    pub support_cpubind: Addr,
    pub support_membind: Addr,
    pub support_misc: Addr,
    pub userdata_export_cb: Addr,
    pub userdata_import_cb: Addr,
    pub userdata_not_decoded: i32,
    pub _pad1: u32,
    pub first_dist: Addr,
    pub last_dist: Addr,
    pub next_dist_id: u32,
    pub nr_memattrs: u32,
    pub memattrs: Addr,
    pub nr_cpukinds: u32,
    pub nr_cpukinds_allocated: u32,
    pub cpukinds: Addr,
    pub grouping: [u32; 8],
    pub next_subkind: u32,
    pub _pad2: u32,
    pub backends: Addr,
    pub pci_busid_backend: Addr,
    /// Phases of a discovery. A file of ours keeps the sum of all words here.
    pub sum: u64,
    /// The allocator of the copy. Stock writes the address of a variable on
    /// its stack; an adopter overwrites it, so a file of ours keeps the
    /// number of bytes in use here (see [`crate::hwloc::encode`]).
    pub tma: u64,
}

impl Topology {
    /// Bytes in use of a file of `length` bytes, if the writer says so: ours
    /// does, and stock's word for it is no such number.
    pub fn in_use(&self, length: u64) -> Option<u64> {
        let least = (size_of::<Header>() + size_of::<Topology>()) as u64;
        (least..=length).contains(&self.tma).then_some(self.tma)
    }
}

/// Number of bytes that a reader may take from each support array, in the
/// order discovery, cpubind, membind, misc. Membind has 15 before hwloc 2.11.
pub const SUPPORT_BYTES: [usize; 4] = [6, 11, 16, 1];

/// `struct hwloc_obj`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Obj {
    pub kind: u32,
    pub _pad0: u32,
    pub subtype: Addr,
    pub os_index: u32,
    pub _pad1: u32,
    pub name: Addr,
    pub total_memory: u64,
    pub attr: Addr,
    pub depth: i32,
    pub logical_index: u32,
    pub next_cousin: Addr,
    pub prev_cousin: Addr,
    pub parent: Addr,
    pub sibling_rank: u32,
    pub _pad2: u32,
    pub next_sibling: Addr,
    pub prev_sibling: Addr,
    pub arity: u32,
    pub _pad3: u32,
    pub children: Addr,
    pub first_child: Addr,
    pub last_child: Addr,
    pub symmetric_subtree: i32,
    pub memory_arity: u32,
    pub memory_first_child: Addr,
    pub io_arity: u32,
    pub _pad4: u32,
    pub io_first_child: Addr,
    pub misc_arity: u32,
    pub _pad5: u32,
    pub misc_first_child: Addr,
    pub cpuset: Addr,
    pub complete_cpuset: Addr,
    pub nodeset: Addr,
    pub complete_nodeset: Addr,
    pub infos: Addr,
    pub infos_count: u32,
    pub _pad6: u32,
    pub userdata: Addr,
    pub gp_index: u64,
}

/// `union hwloc_obj_attr_u`, seen as words; the accessors name the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Attr {
    pub words: [u64; ATTR_WORDS],
}

/// Words of the attributes in the layout that has the most.
pub const ATTR_WORDS: usize = 6;

impl Attr {
    pub const NONE: Self = Attr {
        words: [0; ATTR_WORDS],
    };
    fn half(&self, index: usize) -> u32 {
        let word = self.words[index / 2];
        if (index % 2 == 0) == cfg!(target_endian = "little") {
            word as u32
        } else {
            (word >> 32) as u32
        }
    }
    pub fn local_memory(&self) -> u64 {
        self.words[0]
    }
    pub fn page_types_len(&self) -> u32 {
        self.half(2)
    }
    pub fn page_types(&self) -> Addr {
        self.words[2]
    }
    pub fn cache_size(&self) -> u64 {
        self.words[0]
    }
    pub fn cache_depth(&self) -> u32 {
        self.half(2)
    }
    /// 0 unified, 1 data, 2 instruction.
    pub fn cache_type(&self) -> u32 {
        self.half(5)
    }
    pub fn group_depth(&self) -> u32 {
        self.half(0)
    }
    /// Kind and sub-kind: groups of one level agree on both.
    pub fn group_kind(&self) -> (u32, u32) {
        (self.half(1), self.half(2))
    }
    pub fn bridge_upstream(&self) -> u32 {
        self.half(6)
    }
    pub fn bridge_downstream(&self) -> u32 {
        self.half(8)
    }
    /// Whether the two types are those of a bridge.
    pub fn is_bridge(&self) -> bool {
        self.bridge_upstream() <= 1 && self.bridge_downstream() == 1
    }
    pub fn osdev_type(&self) -> u32 {
        self.half(0)
    }
    /// Domain, bus, device and function of a PCI device or bridge.
    pub fn pci_busid(&self) -> (u16, u8, u8, u8) {
        let b = self.words[0].to_ne_bytes();
        (u16::from_ne_bytes([b[0], b[1]]), b[2], b[3], b[4])
    }
    pub fn pci_class(&self) -> u16 {
        let b = self.words[0].to_ne_bytes();
        u16::from_ne_bytes([b[6], b[7]])
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PageType {
    pub size: u64,
    pub count: u64,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Info {
    pub name: Addr,
    pub value: Addr,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Bitmap {
    pub count: u32,
    pub allocated: u32,
    pub ulongs: Addr,
    pub infinite: i32,
    /// Padding, but in a libhwloc built for debugging, which aborts where it
    /// is not [`BITMAP_MARK`].
    pub mark: u32,
}

/// What a libhwloc built for debugging wants in each bitmap.
pub const BITMAP_MARK: u32 = 0x2009_1007;

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Distances {
    pub name: Addr,
    pub id: u32,
    pub unique_type: u32,
    pub different_types: Addr,
    pub nbobjs: u32,
    pub _pad0: u32,
    pub indexes: Addr,
    pub values: Addr,
    pub kind: u64,
    pub iflags: u32,
    pub _pad1: u32,
    pub objs: Addr,
    pub prev: Addr,
    pub next: Addr,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Memattr {
    pub name: Addr,
    pub flags: u64,
    pub iflags: u32,
    pub nr_targets: u32,
    pub targets: Addr,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Target {
    pub obj: Addr,
    pub kind: u32,
    pub os_index: u32,
    pub gp_index: u64,
    pub noinitiator_value: u64,
    pub nr_initiators: u32,
    pub _pad: u32,
    pub initiators: Addr,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Initiator {
    pub location: u32,
    pub _pad0: u32,
    /// The object, or the set of processors.
    pub obj_or_cpuset: Addr,
    pub gp_index: u64,
    pub kind: u32,
    pub _pad1: u32,
    pub value: u64,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Cpukind {
    pub cpuset: Addr,
    pub efficiency: i32,
    pub forced_efficiency: i32,
    pub ranking_value: u64,
    pub nr_infos: u32,
    pub _pad: u32,
    pub infos: Addr,
}
