// SPDX-License-Identifier: MIT OR Apache-2.0
//! A topology in words.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use xpmem::hwloc::layout::ty;
use xpmem::hwloc::tool::file::{File, Object};

/// One line about a file.
pub fn summary(file: &File) -> String {
    let mut line = format!(
        "layout {:#x}, {} objects, for address {:#x}, length {}",
        file.report.topology.abi,
        file.report.objects,
        file.header.mmap_address,
        file.header.mmap_length
    );
    if let Some(used) = file.used {
        let _ = write!(line, " ({used} in use)");
    }
    let (distances, attrs, kinds) = file.extras();
    for (what, names) in [("distances", distances), ("memory attributes", attrs)] {
        if !names.is_empty() {
            let _ = write!(line, "; {what}: {}", printable(&names.join(", ")));
        }
    }
    if kinds != 0 {
        let _ = write!(line, "; {kinds} kinds of CPU");
    }
    line
}

/// The tree, an object a line.
pub fn tree(root: &Object) -> String {
    let mut out = String::new();
    object(root, 0, &mut out);
    out
}

fn object(obj: &Object, indent: usize, out: &mut String) {
    let _ = writeln!(out, "{:indent$}{}", "", label(obj), indent = indent * 2);
    for list in [&obj.memory, &obj.normal, &obj.io, &obj.misc] {
        for child in list {
            object(child, indent + 1, out);
        }
    }
}

/// Names come from a file: nothing of it must steer a terminal.
pub fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(shown).collect()
}

/// Bytes with a unit.
pub fn size(bytes: u64) -> String {
    let units = [(40, "TB"), (30, "GB"), (20, "MB"), (10, "KB")];
    for (shift, unit) in units {
        if bytes >= 10 << shift || (bytes >= 1 << shift && bytes % (1 << shift) == 0) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// An object's type, without its number.
pub fn type_name(obj: &Object) -> String {
    let fixed = match obj.kind {
        ty::MACHINE => "Machine",
        1 => "Package",
        2 => "Core",
        ty::PU => "PU",
        ty::L1CACHE..=ty::L5CACHE => {
            let data = if obj.attr.cache_type() == 1 { "d" } else { "" };
            return format!("L{}{data}", obj.attr.cache_depth());
        }
        ty::L1ICACHE..=ty::L3ICACHE => return format!("L{}i", obj.attr.cache_depth()),
        ty::GROUP => return format!("Group{}", obj.attr.group_depth()),
        ty::NUMANODE => "NUMANode",
        ty::BRIDGE if obj.attr.bridge_upstream() == 0 => "HostBridge",
        ty::BRIDGE => "PCIBridge",
        ty::PCI_DEVICE => "PCI",
        ty::OS_DEVICE => match obj.attr.osdev_type() {
            0 => "Block",
            1 => "GPU",
            2 => "Net",
            3 => "OpenFabrics",
            4 => "DMA",
            5 => "CoProc",
            _ => "OSDev",
        },
        ty::MISC => "Misc",
        ty::MEMCACHE => "MemCache",
        ty::DIE => "Die",
        _ => "?",
    };
    fixed.to_string()
}

/// Type, numbers and what is worth a word.
pub fn label(obj: &Object) -> String {
    let mut label = type_name(obj);
    let numbered = !matches!(
        obj.kind,
        ty::MACHINE | ty::PCI_DEVICE | ty::OS_DEVICE | ty::MISC
    );
    if numbered {
        let _ = write!(label, " L#{}", obj.logical_index);
        if obj.os_index != u32::MAX && matches!(obj.kind, 1 | 2 | ty::PU | ty::NUMANODE | ty::DIE) {
            let _ = write!(label, " P#{}", obj.os_index);
        }
    }
    match obj.kind {
        ty::MACHINE => {
            let _ = write!(label, " ({} total)", size(obj.total_memory));
        }
        ty::NUMANODE => {
            let _ = write!(label, " ({})", size(obj.attr.local_memory()));
        }
        ty::L1CACHE..=ty::L3ICACHE | ty::MEMCACHE if obj.attr.cache_size() != 0 => {
            let _ = write!(label, " ({})", size(obj.attr.cache_size()));
        }
        ty::PCI_DEVICE => {
            let (domain, bus, device, function) = obj.attr.pci_busid();
            let _ = write!(label, " {domain:04x}:{bus:02x}:{device:02x}.{function:x}");
        }
        _ => {}
    }
    for text in [&obj.subtype, &obj.name].into_iter().flatten() {
        let _ = write!(label, " {:?}", printable(text));
    }
    label
}
