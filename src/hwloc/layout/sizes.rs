// SPDX-License-Identifier: MIT OR Apache-2.0
//! The proof that the structures are laid out as hwloc's.

use super::*;
use core::mem::{offset_of, size_of};

// The sizes and offsets that hwloc's own ABI test freezes. A platform on
// which they differ must not compile this file.
const _: () = {
    assert!(size_of::<usize>() == 8);
    assert!(size_of::<Header>() == 24);
    assert!(size_of::<Topology>() == TOPOLOGY_COMMON);
    assert!(offset_of!(Topology, levels) == 24);
    assert!(offset_of!(Topology, flags) == 32);
    assert!(offset_of!(Topology, type_depth) == 40);
    assert!(offset_of!(Topology, type_filter) == 120);
    assert!(offset_of!(Topology, is_thissystem) == 200);
    assert!(offset_of!(Topology, is_loaded) == 204);
    assert!(offset_of!(Topology, modified) == 208);
    assert!(offset_of!(Topology, pid) == 212);
    assert!(offset_of!(Topology, userdata) == 216);
    assert!(offset_of!(Topology, next_gp_index) == 224);
    assert!(offset_of!(Topology, adopted_shmem_addr) == 232);
    assert!(offset_of!(Topology, adopted_shmem_length) == 240);
    assert!(offset_of!(Topology, slevels) == 248);
    assert!(offset_of!(Topology, allowed_cpuset) == 440);
    assert!(offset_of!(Topology, allowed_nodeset) == 448);
    assert!(offset_of!(Topology, binding_hooks) == 456);
    assert!(offset_of!(Topology, support_discovery) == 648);
    assert!(offset_of!(Topology, userdata_export_cb) == 680);
    assert!(offset_of!(Topology, userdata_not_decoded) == 696);
    assert!(offset_of!(Topology, first_dist) == 704);
    assert!(offset_of!(Topology, next_dist_id) == 720);
    assert!(offset_of!(Topology, nr_memattrs) == 724);
    assert!(offset_of!(Topology, memattrs) == 728);
    assert!(offset_of!(Topology, nr_cpukinds) == 736);
    assert!(offset_of!(Topology, cpukinds) == 744);
    assert!(offset_of!(Topology, grouping) == TOPOLOGY_ADOPTED);
    assert!(offset_of!(Topology, next_subkind) == 784);
    assert!(offset_of!(Topology, backends) == 792);
    assert!(offset_of!(Topology, pci_busid_backend) == 800);
    assert!(offset_of!(Topology, sum) == 808);
    assert!(offset_of!(Topology, tma) == 816);
    assert!(size_of::<Obj>() == 248);
    assert!(offset_of!(Obj, attr) == 40);
    assert!(offset_of!(Obj, depth) == 48);
    assert!(offset_of!(Obj, next_cousin) == 56);
    assert!(offset_of!(Obj, parent) == 72);
    assert!(offset_of!(Obj, sibling_rank) == 80);
    assert!(offset_of!(Obj, arity) == 104);
    assert!(offset_of!(Obj, children) == 112);
    assert!(offset_of!(Obj, symmetric_subtree) == 136);
    assert!(offset_of!(Obj, memory_first_child) == 144);
    assert!(offset_of!(Obj, io_first_child) == 160);
    assert!(offset_of!(Obj, misc_first_child) == 176);
    assert!(offset_of!(Obj, cpuset) == 184);
    assert!(offset_of!(Obj, infos) == 216);
    assert!(offset_of!(Obj, infos_count) == 224);
    assert!(offset_of!(Obj, userdata) == 232);
    assert!(offset_of!(Obj, gp_index) == 240);
    assert!(abi::ABI_2_4.attr == 5);
    assert!(size_of::<PageType>() == 16);
    assert!(size_of::<Info>() == 16);
    assert!(size_of::<Bitmap>() == 24);
    assert!(size_of::<Distances>() == 88);
    assert!(offset_of!(Distances, nbobjs) == 24);
    assert!(offset_of!(Distances, kind) == 48);
    assert!(offset_of!(Distances, objs) == 64);
    assert!(offset_of!(Distances, next) == 80);
    assert!(size_of::<Memattr>() == 32);
    assert!(size_of::<Target>() == 48);
    assert!(offset_of!(Target, initiators) == 40);
    assert!(size_of::<Initiator>() == 40);
    assert!(offset_of!(Initiator, value) == 32);
    assert!(size_of::<Cpukind>() == 40);
    assert!(offset_of!(Cpukind, infos) == 32);
};
