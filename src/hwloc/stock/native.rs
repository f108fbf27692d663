// SPDX-License-Identifier: MIT OR Apache-2.0
//! The binding hooks of the running libhwloc.
//!
//! They are hidden functions. libhwloc itself puts them into each topology
//! that it loads: so it loads the smallest machine that its synthetic
//! descriptions can name, which takes some memory and nothing else. Where the
//! environment makes another machine of that, it is given one to adopt: one
//! processor and one memory node, made here, in an anonymous file.

use crate::error::{Error, Result};
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use crate::hwloc::range::map::last_error;
use crate::hwloc::stock::library::{Library, Native, RawTopology};
use core::ffi::c_void;
use core::mem::{size_of, zeroed};
use core::ptr::null_mut;
use core::sync::atomic::Ordering;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Room for the whole one-processor machine.
const LENGTH: usize = 8192;

/// A bump allocator over the image.
struct Builder {
    base: Addr,
    bytes: Vec<u8>,
}

impl Builder {
    fn put<T: Plain>(&mut self, value: T) -> Addr {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let at = self.bytes.len();
        self.bytes.resize(at + size_of::<T>(), 0);
        self.set(at, value);
        self.base + at as u64
    }

    fn set<T: Plain>(&mut self, at: usize, value: T) {
        // SAFETY: callers pass offsets of room that `put` or `resize` made.
        unsafe {
            self.bytes
                .as_mut_ptr()
                .add(at)
                .cast::<T>()
                .write_unaligned(value)
        };
    }
}

/// The bytes of a minimal valid topology for `base`.
///
/// # Errors
/// ENOMEM.
pub fn minimal(base: Addr, thissystem: bool) -> Result<Vec<u8>> {
    // Larger than the structure of any release, so that an adopter which
    // copies its own size finds zeros.
    const TOPOLOGY_ROOM: usize = 1024;
    let mut b = Builder {
        base,
        // Room for all of it: nothing below allocates.
        bytes: memory::list(LENGTH)?,
    };
    b.bytes.resize(size_of::<Header>() + TOPOLOGY_ROOM, 0);
    b.set(
        0,
        Header {
            version: HEADER_VERSION,
            header_length: size_of::<Header>() as u32,
            mmap_address: base,
            mmap_length: LENGTH as u64,
        },
    );
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
    let array = attr + size_of::<Attr>() as u64;
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
        kind: ty::MACHINE,
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
        kind: ty::PU,
        gp_index: 2,
        depth: 1,
        parent: machine,
        ..common
    });
    b.put(Obj {
        kind: ty::NUMANODE,
        gp_index: 3,
        depth: DEPTH_NUMANODE,
        parent: machine,
        ..common
    });
    b.put(Attr { words: [0; 5] });
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
    t.abi = ABI;
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
    b.set(size_of::<Header>(), t);
    b.bytes.resize(LENGTH, 0);
    Ok(b.bytes)
}

/// What `library` would put into an adopted topology: binding hooks and what
/// they support, native ones or those of another machine.
///
/// # Errors
/// ENOMEM, and what else there is not enough of; a later call tries again.
pub fn of(library: &Library, thissystem: bool) -> Result<&Native> {
    let slot = &library.native[usize::from(thissystem)];
    // SAFETY: null, or a box that is never freed.
    if let Some(known) = unsafe { slot.load(Ordering::Acquire).as_ref() } {
        return Ok(known);
    }
    let asked = Box::into_raw(memory::boxed(ask(library, thissystem)?)?);
    match slot.compare_exchange(null_mut(), asked, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: published, and never freed.
        Ok(_) => Ok(unsafe { &*asked }),
        Err(first) => {
            // SAFETY: not published: ours alone. The first stays.
            unsafe {
                drop(Box::from_raw(asked));
                Ok(&*first)
            }
        }
    }
}

/// What `library` puts into a topology of this system, or of another.
fn ask(library: &Library, thissystem: bool) -> Result<Native> {
    match loaded(library, thissystem)? {
        Some(native) => Ok(native),
        None => adopted(library, thissystem),
    }
}

/// Has `library` load a machine. `None` where the environment decides whose
/// machine that is.
fn loaded(library: &Library, thissystem: bool) -> Result<Option<Native>> {
    let mut topology: RawTopology = null_mut();
    // SAFETY: a place for the result.
    if unsafe { (library.init)(&mut topology) } != 0 {
        return Err(Error::NoMemory);
    }
    /// HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED, _IS_THISSYSTEM
    const FLAGS: [core::ffi::c_ulong; 2] = [1, 1 | 2];
    // SAFETY: a fresh topology and a C string, in the order hwloc wants.
    let loaded = unsafe {
        (library.set_flags)(topology, FLAGS[usize::from(thissystem)]) == 0
            && (library.set_synthetic)(topology, c"pu:1".as_ptr()) == 0
            && (library.load)(topology) == 0
    };
    let native = loaded.then(|| take(library, topology));
    // SAFETY: made above, used nowhere else.
    unsafe { (library.destroy)(topology) };
    // What was found of the machine is not the hooks' to support.
    Ok(native
        .filter(|(_, is_thissystem)| *is_thissystem == thissystem)
        .map(|(mut native, _)| {
            (native.support[0], native.support[3]) = ([0; 16], [0; 16]);
            native
        }))
}

/// Has `library` adopt the minimal machine.
fn adopted(library: &Library, thissystem: bool) -> Result<Native> {
    // SAFETY: integers, all zero is valid.
    let mut limit: libc::rlimit = unsafe { zeroed() };
    // SAFETY: a place for the result.
    let limited = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) } == 0;
    // The signal for it would end the program.
    if limited && limit.rlim_cur < LENGTH as libc::rlim_t {
        return Err(Error::NoMemory);
    }
    // SAFETY: a C string; the descriptor is owned below.
    let fd = unsafe { libc::memfd_create(c"hwloc".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(Error::NoMemory);
    }
    // SAFETY: just created, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // Another thread may take the range between the two calls: try again.
    for _ in 0..8 {
        // SAFETY: an anonymous mapping of our own, given back at once; it
        // finds an address that is free.
        let addr = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let addr = libc::mmap(null_mut(), LENGTH, libc::PROT_NONE, flags, -1, 0);
            if addr == libc::MAP_FAILED {
                return Err(last_error());
            }
            libc::munmap(addr, LENGTH);
            addr
        };
        let bytes = minimal(addr as Addr, thissystem)?;
        // SAFETY: the buffer is as long as said.
        let n = unsafe { libc::pwrite(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if n != bytes.len() as isize {
            return Err(Error::NoMemory);
        }
        let mut adopted: RawTopology = null_mut();
        // SAFETY: a file as stock's own write makes it.
        let rc = unsafe { (library.stock_adopt)(&mut adopted, fd.as_raw_fd(), 0, addr, LENGTH, 0) };
        if rc == 0 {
            let (native, _) = take(library, adopted);
            // SAFETY: adopted above, used nowhere else.
            unsafe { (library.destroy)(adopted) };
            return Ok(native);
        }
    }
    Err(Error::NoMemory)
}

/// Hooks, and whether the topology is of this system.
fn take(library: &Library, adopted: *mut c_void) -> (Native, bool) {
    // SAFETY: the caller proved the layout before it asked for hooks.
    let t = unsafe { adopted.cast::<Topology>().read() };
    let mut native = Native {
        hooks: t.binding_hooks,
        support: [[0; 16]; 4],
    };
    let arrays = [
        t.support_discovery,
        t.support_cpubind,
        t.support_membind,
        t.support_misc,
    ];
    for (i, (array, bytes)) in arrays.into_iter().zip(library.support_bytes()).enumerate() {
        // SAFETY: the library allocated its own size of each array.
        let from = unsafe { core::slice::from_raw_parts(array as *const u8, bytes) };
        native.support[i][..bytes].copy_from_slice(from);
    }
    (native, t.is_thissystem != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hwloc::adopt::relocate;
    use crate::hwloc::encode;
    use crate::hwloc::image::{work_for, Image};
    use crate::hwloc::validate;

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

    /// Each object of a file may say that its sets are one and the same long
    /// run of zeros, which is not worth a byte on disk.
    #[test]
    fn work_ends_however_sets_overlap() {
        let mut words = words(&minimal(BASE, true).expect("memory"));
        let at = |addr: Addr| ((addr - BASE) / 8) as usize;
        let image_words = words.clone();
        let root = image_words[at(image_words[at(image_words[3 + 3])])];
        // The set that all have: now as long as the file, and that is long.
        let long = 1usize << 20;
        let set = at(image_words[at(root + core::mem::offset_of!(Obj, cpuset) as u64)]);
        let run = words.len();
        words.resize(run + long, 0);
        words[run] = 1;
        words[set] = long as u64 | (long as u64) << 32;
        words[set + 1] = BASE + run as u64 * 8;
        words[2] = words.len() as u64 * 8;
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
}
