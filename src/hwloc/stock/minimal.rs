// SPDX-License-Identifier: MIT OR Apache-2.0
//! The smallest machine there is, as the bytes of a file: one processor and one
//! memory node.

use crate::error::Result;
use crate::hwloc::image::OrInvalid;
use crate::hwloc::layout::abi::{Abi, ABI_2_4};
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use core::mem::{size_of, zeroed};

/// Room for the whole one-processor machine.
pub const LENGTH: usize = 8192;

/// A bump allocator over the image.
struct Builder {
    base: Addr,
    bytes: Vec<u8>,
}

impl Builder {
    fn put<T: Plain>(&mut self, value: T) -> Addr {
        // SAFETY: any plain value is its bytes.
        self.append(unsafe {
            core::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>())
        })
    }

    #[inline(never)]
    fn append(&mut self, bytes: &[u8]) -> Addr {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.base + at as u64
    }

    /// Replaces what is at the beginning.
    fn begin<T: Plain>(&mut self, value: T) {
        // SAFETY: any plain value is its bytes.
        let bytes =
            unsafe { core::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) };
        self.bytes[..bytes.len()].copy_from_slice(bytes);
    }
}

/// The bytes of a minimal valid topology for `base`.
///
/// # Errors
/// ENOMEM.
pub fn minimal(base: Addr, thissystem: bool) -> Result<Vec<u8>> {
    machine(&ABI_2_4, base, thissystem)
}

/// The same in any layout.
pub(super) fn machine(abi: &Abi, base: Addr, thissystem: bool) -> Result<Vec<u8>> {
    // Larger than the structure of any release, so that an adopter which
    // copies its own size finds zeros.
    const TOPOLOGY_ROOM: usize = 1024;
    let mut b = Builder {
        base,
        // Room for all of it: nothing below allocates.
        bytes: memory::list(LENGTH)?,
    };
    b.bytes.resize(size_of::<Header>() + TOPOLOGY_ROOM, 0);
    b.begin(Header {
        version: HEADER_VERSION,
        header_length: size_of::<Header>() as u32,
        mmap_address: base,
        mmap_length: LENGTH as u64,
    });
    let word = b.put(1u64);
    let set = b.put(Bitmap {
        count: 1,
        allocated: 1,
        ulongs: word,
        infinite: 0,
        mark: BITMAP_MARK,
    });
    let empty = [b.put(0u64), b.put(0u64), b.put([0u64; 2]), b.put(0u64)];
    let text = b.put(u64::from_ne_bytes(*b"memattr\0"));

    let first = base + b.bytes.len() as u64;
    let size = size_of::<Obj>() as u64;
    let (machine, pu, node) = (first, first + size, first + 2 * size);
    let attr = first + 3 * size;
    let array = attr + abi.attr as u64 * 8;
    // SAFETY: integers, all zero is valid.
    let blank: Obj = unsafe { zeroed() };
    let common = Obj {
        attr,
        cpuset: set,
        complete_cpuset: set,
        nodeset: set,
        complete_nodeset: set,
        symmetric_subtree: 1,
        ..blank
    };
    b.put(Obj {
        kind: abi.number_of(ty::MACHINE),
        gp_index: 1,
        arity: 1,
        children: array + 8,
        first_child: pu,
        last_child: pu,
        memory_arity: 1,
        memory_first_child: node,
        ..common
    });
    b.put(Obj {
        kind: abi.number_of(ty::PU),
        gp_index: 2,
        depth: 1,
        parent: machine,
        ..common
    });
    b.put(Obj {
        kind: abi.number_of(ty::NUMANODE),
        gp_index: 3,
        depth: DEPTH_NUMANODE,
        parent: machine,
        ..common
    });
    for _ in 0..abi.attr {
        b.put(0u64);
    }
    // One array of addresses serves all levels: [machine][pu][node].
    for obj in [machine, pu, node] {
        b.put(obj);
    }
    let levels = b.put(array);
    b.put(array + 8);
    let counts = b.put(u64::from(1u32) | u64::from(1u32) << 32);
    let attrs = {
        let convenience = |flags| Memattr {
            name: text,
            flags,
            iflags: MEMATTR_CONVENIENCE | MEMATTR_CACHE_VALID,
            nr_targets: 0,
            targets: 0,
        };
        let at = b.put(convenience(1));
        b.put(convenience(2));
        at
    };

    // SAFETY: integers, all zero is valid.
    let mut t: Topology = unsafe { zeroed() };
    t.abi = abi.number;
    t.nb_levels = 2;
    t.nb_levels_allocated = 2;
    t.levels = levels;
    t.level_nbobjects = counts;
    t.type_depth = [DEPTH_UNKNOWN; TYPES];
    t.type_depth[ty::MACHINE as usize] = 0;
    t.type_depth[ty::PU as usize] = 1;
    for (i, kind) in SPECIAL_TYPES.iter().enumerate() {
        t.type_depth[*kind as usize] = DEPTH_NUMANODE - i as i32;
    }
    // "Keep structure" is allowed for every type.
    t.type_filter = [2; TYPES];
    t.is_thissystem = i32::from(thissystem);
    t.is_loaded = 1;
    t.next_gp_index = 4;
    t.slevels[0] = SpecialLevel {
        nbobjs: 1,
        _pad: 0,
        objs: array + 16,
        first: node,
        last: node,
    };
    t.allowed_cpuset = set;
    t.allowed_nodeset = set;
    [
        t.support_discovery,
        t.support_cpubind,
        t.support_membind,
        t.support_misc,
    ] = empty;
    t.nr_memattrs = 2;
    t.memattrs = attrs;
    let room = b.bytes.get_mut(size_of::<Header>()..).valid()?;
    abi.put(&t, room).valid()?;
    b.bytes.resize(LENGTH, 0);
    Ok(b.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hwloc::adopt::relocate;
    use crate::hwloc::bits::account::LOOKED_AT;
    use crate::hwloc::encode;
    use crate::hwloc::image::{work_for, Image};
    use crate::hwloc::validate;

    use core::mem::offset_of;

    const BASE: Addr = 0x2000_0000_0000;

    fn words(bytes: &[u8]) -> Vec<u64> {
        let word = |c: &[u8]| u64::from_ne_bytes(c.try_into().expect("eight bytes"));
        bytes.chunks_exact(8).map(word).collect()
    }

    fn check(words: &[u64], base: Addr) -> Option<validate::Report> {
        let work = work_for(words.len() * 8);
        // SAFETY: a buffer that outlives the image.
        let image = unsafe { Image::new(base, words.as_ptr().cast(), words.len() * 8, &work) }?;
        validate::image(&image).ok()
    }

    #[test]
    fn the_smallest_machine_is_valid() {
        let report = check(&words(&minimal(BASE, true).expect("memory")), BASE).expect("valid");
        assert_eq!(report.objects, 3);
        assert!(report.resolved && !report.empty_infos);
    }

    #[test]
    fn a_file_is_bound_to_its_address() {
        let words = words(&minimal(BASE, true).expect("memory"));
        assert!(check(&words, BASE + 4096).is_none());
        assert!(check(&words[..words.len() - 512], BASE).is_none());
    }

    #[test]
    fn every_pointer_matters() {
        let good = words(&minimal(BASE, true).expect("memory"));
        let inside = BASE..BASE + LENGTH as u64;
        for i in 0..good.len() {
            if i < 3 || !inside.contains(&good[i]) {
                continue;
            }
            let mut bad = good.clone();
            bad[i] = BASE + LENGTH as u64;
            assert!(check(&bad, BASE).is_none(), "word {i} may lead outside");
            // No number stands for "seen before", neither 1 nor 0.
            bad[i] = 1;
            assert!(check(&bad, BASE).is_none(), "word {i} may be odd");
        }
    }

    #[test]
    fn encoded_and_moved_it_stays_valid() {
        let source = words(&minimal(BASE, true).expect("memory"));
        let work = work_for(LENGTH);
        // SAFETY: a buffer that outlives the image.
        let image = unsafe { Image::new(BASE, source.as_ptr().cast(), LENGTH, &work) };
        let image = image.expect("aligned");
        let report = validate::image(&image).expect("valid");
        let other = 0x5000_0000_0000;
        let encoded = encode::encode(&image, &report.topology, SUPPORT_BYTES, other, LENGTH);
        let encoded = encoded.expect("encodes");
        assert!(encoded.sure);
        let mut again = words(encoded.bytes.as_slice());
        assert!(again.len() * 8 <= LENGTH);
        again.resize(LENGTH / 8, 0);
        let written = check(&again, other).expect("valid");
        assert_eq!(written.objects, 3);
        // The array of the root's children is that of the level below.
        let at = |addr: Addr| again[((addr - other) / 8) as usize];
        let root = at(at(written.topology.levels));
        let children = core::mem::offset_of!(Obj, children) as u64;
        assert_eq!(at(root + children), at(written.topology.levels + 8));

        let mut bytes = minimal(BASE, true).expect("memory");
        relocate::rebase(&image, &report.topology, &mut bytes, other).expect("moves");
        assert_eq!(check(&words(&bytes), other).expect("valid").objects, 3);
        assert!(check(&words(&bytes), BASE).is_none());
    }

    /// Makes the set at word `set` `long` words long, at the end of the file.
    fn lengthen(words: &mut Vec<u64>, set: usize, long: usize) {
        let run = words.len();
        words.resize(run + long, 0);
        words[run] = 1;
        words[set] = long as u64 | (long as u64) << 32;
        words[set + 1] = BASE + run as u64 * 8;
        words[2] = words.len() as u64 * 8;
    }

    /// Each object of a file may say that its sets are one and the same long
    /// run of zeros, which is not worth a byte on disk.
    #[test]
    #[cfg_attr(miri, ignore = "megabytes: hours")]
    fn work_ends_however_sets_overlap() {
        let mut words = words(&minimal(BASE, true).expect("memory"));
        let at = |addr: Addr| ((addr - BASE) / 8) as usize;
        let image_words = words.clone();
        let root = image_words[at(image_words[at(image_words[3 + 3])])];
        // The set that all have: now as long as the file, and that is long.
        let long = 1usize << 20;
        let set = at(image_words[at(root + core::mem::offset_of!(Obj, cpuset) as u64)]);
        lengthen(&mut words, set, long);
        let bytes = words.len() * 8;
        let work = work_for(bytes);
        let budget = work.get();
        assert!(budget <= 16 * bytes as u64 + (256 << 10));
        // SAFETY: a buffer that outlives the image.
        let image = unsafe { Image::new(BASE, words.as_ptr().cast(), bytes, &work) };
        let checked = validate::image(&image.expect("aligned"));
        // Three objects with four such sets: looked at, and charged for each.
        let spent = budget - work.get();
        assert!(
            checked.is_err() || spent >= 3 * 4 * long as u64,
            "{spent} for {checked:?}"
        );
        // With less to spend it is refused before it is looked at.
        let little = core::cell::Cell::new(long as u64 * 8 * 5);
        // SAFETY: as above.
        let image = unsafe { Image::new(BASE, words.as_ptr().cast(), bytes, &little) };
        assert!(validate::image(&image.expect("aligned")).is_err());
    }

    /// A machine of `count` processors, all objects of which name one set of
    /// `long` words.
    fn flat(count: usize, long: usize) -> Vec<u64> {
        let mut words = words(&minimal(BASE, true).expect("memory"));
        let at = |addr: Addr| ((addr - BASE) / 8) as usize;
        let size = size_of::<Obj>() / 8;
        let t = size_of::<Header>() / 8;
        let field = |offset: usize| offset / 8;
        let levels = at(words[t + field(offset_of!(Topology, levels))]);
        let counts = at(words[t + field(offset_of!(Topology, level_nbobjects))]);
        let root = at(words[at(words[levels])]);
        let pu = words[at(words[at(words[levels + 1])])..][..size].to_vec();
        let set = at(pu[field(offset_of!(Obj, cpuset))]);

        let first = words.len();
        let addr = |i: usize| BASE + ((first + i * size) * 8) as Addr;
        for i in 0..count {
            let mut pu = pu.clone();
            let before = if i == 0 { 0 } else { addr(i - 1) };
            let after = if i + 1 == count { 0 } else { addr(i + 1) };
            pu[field(offset_of!(Obj, gp_index))] = 10 + i as u64;
            pu[field(offset_of!(Obj, depth))] = 1 | (i as u64) << 32;
            pu[field(offset_of!(Obj, sibling_rank))] = i as u64;
            for link in [offset_of!(Obj, next_cousin), offset_of!(Obj, next_sibling)] {
                pu[field(link)] = after;
            }
            for link in [offset_of!(Obj, prev_cousin), offset_of!(Obj, prev_sibling)] {
                pu[field(link)] = before;
            }
            words.extend(pu);
        }
        let array = BASE + words.len() as u64 * 8;
        words.extend((0..count).map(addr));
        words[levels + 1] = array;
        words[counts] = 1 | (count as u64) << 32;
        words[root + field(offset_of!(Obj, arity))] = count as u64;
        words[root + field(offset_of!(Obj, children))] = array;
        words[root + field(offset_of!(Obj, first_child))] = addr(0);
        words[root + field(offset_of!(Obj, last_child))] = addr(count - 1);
        words[t + field(offset_of!(Topology, next_gp_index))] = 10 + count as u64;
        lengthen(&mut words, set, long);
        words
    }

    /// What is looked at is charged, and what may be charged is in proportion to
    /// the file: however many objects name however long a set.
    #[test]
    #[cfg_attr(miri, ignore = "megabytes: hours")]
    fn nothing_is_looked_at_that_is_not_charged() {
        let mut ends = [0; 2];
        for (count, long) in [
            (2, 2),
            (64, 1),
            (64, 1000),
            (1000, 64),
            (1000, 5000),
            (5000, 1000),
        ] {
            let words = flat(count, long);
            let bytes = words.len() * 8;
            let work = work_for(bytes);
            let budget = work.get();
            assert!(budget <= 16 * bytes as u64 + (256 << 10));
            // SAFETY: a buffer that outlives the image.
            let image = unsafe { Image::new(BASE, words.as_ptr().cast(), bytes, &work) };
            LOOKED_AT.set(0);
            let checked = validate::image(&image.expect("aligned"));
            let looked_at = 8 * LOOKED_AT.get() as u64;
            let spent = budget - work.get();
            assert!(
                looked_at > 0 && looked_at <= 4 * spent,
                "{looked_at} for {spent}, {count} x {long}"
            );
            ends[usize::from(checked.is_ok())] += 1;
            let all = (count * long * 8) as u64;
            assert_eq!(
                checked.is_ok(),
                all < budget / 4,
                "{count} x {long}: {checked:?}"
            );
        }
        assert!(ends[0] > 0 && ends[1] > 0);
    }
}
