// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests: a machine in another layout than that of the structures is checked,
//! encoded and moved by the same code.

use crate::hwloc::adopt::relocate;
use crate::hwloc::encode;
use crate::hwloc::image::{work_for, Image};
use crate::hwloc::layout::abi::{Abi, ABI_2_4, ABI_OTHER};
use crate::hwloc::layout::*;
use crate::hwloc::stock::minimal::{machine, LENGTH};
use crate::hwloc::validate::{self, Levels, Report};
use core::cell::Cell;
use core::mem::{offset_of, size_of};

const BASE: Addr = 0x2000_0000_0000;
const OTHER_BASE: Addr = 0x5000_0000_0000;
/// Where the topology is.
const HEAD: usize = size_of::<Header>();

/// A file under construction.
struct File {
    abi: &'static Abi,
    base: Addr,
    words: Vec<u64>,
}

impl File {
    fn of(abi: &'static Abi, base: Addr, bytes: &[u8]) -> File {
        let word = |c: &[u8]| u64::from_ne_bytes(c.try_into().expect("eight bytes"));
        let words = bytes.chunks_exact(8).map(word).collect();
        File { abi, base, words }
    }

    fn bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    /// Appends a value of whole words.
    fn put<T: Plain>(&mut self, value: T) -> Addr {
        let at = self.base + self.words.len() as Addr * 8;
        let from = (&raw const value).cast::<u64>();
        for i in 0..size_of::<T>() / 8 {
            // SAFETY: a value of whole words, and no more than it has.
            self.words.push(unsafe { from.add(i).read_unaligned() });
        }
        self.words[2] = self.words.len() as u64 * 8;
        at
    }

    /// Does something to the image in a layout.
    fn with<R>(&self, abi: &'static Abi, work: impl FnOnce(&Image<'_>) -> R) -> R {
        let len = self.words.len() * 8;
        let budget: Cell<u64> = work_for(len);
        // SAFETY: a buffer that outlives the image.
        let image = unsafe { Image::new(self.base, self.words.as_ptr().cast(), len, &budget) };
        work(&image.expect("aligned").in_layout(abi))
    }

    fn check(&self) -> Report {
        self.with(self.abi, |image| validate::image(image).expect("valid"))
    }

    /// Changes the topology's own structure.
    fn change(&mut self, change: impl FnOnce(&mut Topology)) {
        let mut bytes = self.bytes();
        let mut t = self.abi.read(&bytes[HEAD..]).expect("there");
        change(&mut t);
        self.abi.write(&t, &mut bytes[HEAD..]).expect("room");
        self.words = File::of(self.abi, self.base, &bytes).words;
    }
}

/// The smallest machine with whatever names objects by their type: distances,
/// and a memory attribute with an object as initiator. No pointer is resolved.
fn named(abi: &'static Abi) -> File {
    let bytes = machine(abi, BASE, true).expect("memory");
    let mut file = File::of(abi, BASE, &bytes);
    let two = file.put([2u64, 3]);
    let types = u64::from(abi.number_of(ty::PU)) | u64::from(abi.number_of(ty::NUMANODE)) << 32;
    let types = file.put(types);
    let values = file.put([1u64, 2]);
    file.put([3u64, 4]);
    let objs = file.put([0u64; 2]);
    let distances = file.put(Distances {
        name: 0,
        id: 7,
        unique_type: ty::NONE,
        different_types: types,
        nbobjs: 2,
        _pad0: 0,
        indexes: two,
        values,
        kind: 0,
        iflags: 0,
        _pad1: 0,
        objs,
        prev: 0,
        next: 0,
    });
    let initiator = file.put(Initiator {
        location: LOCATION_OBJECT,
        _pad0: 0,
        obj_or_cpuset: 0,
        gp_index: 2,
        kind: abi.number_of(ty::PU),
        _pad1: 0,
        value: 99,
    });
    let target = file.put(Target {
        obj: 0,
        kind: abi.number_of(ty::NUMANODE),
        os_index: 0,
        gp_index: 3,
        noinitiator_value: 0,
        nr_initiators: 1,
        _pad: 0,
        initiators: initiator,
    });
    let before = file.check().topology.memattrs;
    let name = file.with(abi, |image| {
        image.get::<Memattr>(before).expect("there").name
    });
    let [capacity, locality] = [0, 1].map(|i| {
        let at = before + i * size_of::<Memattr>() as Addr;
        file.with(abi, |image| image.get::<Memattr>(at).expect("there"))
    });
    let attrs = file.put(capacity);
    file.put(locality);
    file.put(Memattr {
        name,
        flags: 1 | MEMATTR_NEED_INITIATOR,
        iflags: 0,
        nr_targets: 1,
        targets: target,
    });
    file.change(|t| {
        (t.first_dist, t.last_dist) = (distances, distances);
        (t.memattrs, t.nr_memattrs) = (attrs, 3);
    });
    file
}

/// Whatever the layout, what was read of a file.
fn seen(file: &File) -> String {
    let report = file.check();
    file.with(file.abi, |image| {
        let t = &report.topology;
        let levels = Levels::read(image, t).expect("valid");
        let kinds: Vec<u32> = levels.iter().map(|level| level.kind).collect();
        let attrs: Vec<[u64; ATTR_WORDS]> = levels
            .iter()
            .flat_map(|level| level.objs)
            .map(|obj| image.attr(image.get::<Obj>(*obj).expect("valid").attr))
            .map(|attr| attr.expect("valid").words)
            .collect();
        let d: Distances = image.get(t.first_dist).expect("valid");
        let types = image.slice::<u32>(d.different_types, 2).expect("valid");
        let types: Vec<u32> = types.iter().map(|t| image.kind(*t)).collect();
        format!(
            "{} {kinds:?} {attrs:?} {types:?} {:?} {:?} {}",
            report.objects, t.type_depth, t.type_filter, report.odd
        )
    })
}

/// The file that is encoded from another.
fn encoded(file: &File) -> File {
    let report = file.check();
    file.with(file.abi, |image| {
        let written = encode::encode(
            image,
            &report.topology,
            SUPPORT_BYTES,
            OTHER_BASE,
            2 * LENGTH,
        );
        let written = written.expect("encodes");
        assert!(written.sure);
        let mut bytes = written.bytes.as_slice().to_vec();
        bytes.resize(2 * LENGTH, 0);
        File::of(file.abi, OTHER_BASE, &bytes)
    })
}

#[test]
fn each_layout_is_checked_and_encoded() {
    let mut all = Vec::new();
    for abi in [&ABI_2_4, &ABI_OTHER] {
        let file = named(abi);
        assert!(!file.check().resolved);
        let again = encoded(&file);
        // Every type was found by its number: all is resolved.
        assert!(again.check().resolved);
        assert_eq!(seen(&file), seen(&again));
        all.push(seen(&file));
        // The numbers stand where this layout has them.
        let bytes = again.bytes();
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight"));
        assert_eq!(word(HEAD) as u32, abi.number);
        let memattrs = word(HEAD + abi.at(offset_of!(Topology, memattrs)));
        assert_eq!(memattrs, again.check().topology.memattrs);
        let levels = again.check().topology.levels;
        let at = |addr: Addr| word((addr - OTHER_BASE) as usize);
        let pu = at(at(levels + 8));
        assert_eq!(at(pu) as u32, abi.number_of(ty::PU));
    }
    assert_eq!(all[0], all[1], "the same machine");
}

#[test]
fn no_layout_is_taken_for_another() {
    for (abi, other) in [(&ABI_2_4, &ABI_OTHER), (&ABI_OTHER, &ABI_2_4)] {
        let mut file = named(abi);
        let wrong = |file: &File| file.with(other, |image| validate::image(image).is_err());
        assert!(wrong(&file), "the number tells");
        file.words[HEAD / 8] = file.words[HEAD / 8] & !0xffff_ffff | u64::from(other.number);
        assert!(wrong(&file), "so do the fields, where it lies");
    }
}

#[test]
fn each_layout_is_moved() {
    for abi in [&ABI_2_4, &ABI_OTHER] {
        let file = encoded(&named(abi));
        let report = file.check();
        let mut bytes = file.bytes();
        let moved = file.with(abi, |image| {
            relocate::rebase(image, &report.topology, &mut bytes, BASE)
        });
        moved.expect("moves");
        let moved = File::of(abi, BASE, &bytes);
        assert_eq!(seen(&moved), seen(&file));
        assert!(moved.check().resolved);
        assert!(file.words != moved.words);
    }
}
