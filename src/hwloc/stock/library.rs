// SPDX-License-Identifier: MIT OR Apache-2.0
//! The libhwloc of this process: found, never linked against.
//!
//! A library that a topology came from is pinned (`RTLD_NODELETE`) when it
//! is first used, so function pointers into it stay good. The list of known
//! libraries only grows and takes no lock: a fork cannot leave it held.

// Each address takes the type of the field that it goes into.
#![allow(clippy::missing_transmute_annotations)]

use crate::error::{Error, Result};
use crate::hwloc::layout::{self, Addr, Bitmap, Obj, Topology};
use crate::hwloc::memory;
use crate::hwloc::stock::objects::{self, Object};
use core::ffi::{c_char, c_int, c_uint, c_ulong, c_void, CStr};
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// `struct hwloc_topology`, opaque where the layout is not known.
pub type RawTopology = *mut c_void;

type GetLength = unsafe extern "C" fn(RawTopology, *mut usize, c_ulong) -> c_int;
type Write = unsafe extern "C" fn(RawTopology, c_int, u64, *mut c_void, usize, c_ulong) -> c_int;
type Adopt =
    unsafe extern "C" fn(*mut RawTopology, c_int, u64, *mut c_void, usize, c_ulong) -> c_int;
type Snprintf = unsafe extern "C" fn(*mut c_char, usize, *const Obj, *const c_char, c_int) -> c_int;

/// Hooks, and the support arrays of a topology that uses them.
pub struct Native {
    pub hooks: [Addr; 24],
    pub support: [[u8; 16]; 4],
}

/// The functions used, resolved in one library.
pub struct Library {
    start: usize,
    end: usize,
    next: AtomicPtr<Library>,
    pub init: unsafe extern "C" fn(*mut RawTopology) -> c_int,
    pub destroy: unsafe extern "C" fn(RawTopology),
    pub check: unsafe extern "C" fn(RawTopology),
    version: unsafe extern "C" fn() -> c_uint,
    pub set_flags: unsafe extern "C" fn(RawTopology, c_ulong) -> c_int,
    pub set_synthetic: unsafe extern "C" fn(RawTopology, *const c_char) -> c_int,
    pub load: unsafe extern "C" fn(RawTopology) -> c_int,
    pub(super) get_support: unsafe extern "C" fn(RawTopology) -> *const c_void,
    pub(super) set_userdata: unsafe extern "C" fn(RawTopology, *const c_void),
    pub(super) attr_snprintf: Snprintf,
    pub(super) bitmap_alloc: unsafe extern "C" fn() -> *mut Bitmap,
    pub(super) bitmap_set: unsafe extern "C" fn(*mut Bitmap, c_uint) -> c_int,
    pub(super) bitmap_free: unsafe extern "C" fn(*mut Bitmap),
    pub stock_get_length: GetLength,
    pub stock_write: Write,
    pub stock_adopt: Adopt,
    /// [`SERVED`] or [`NOT_SERVED`] once it is known: see `proof`.
    pub(super) served: AtomicUsize,
    /// Bytes allocated for a topology structure, once `served` is known.
    pub(super) usable: AtomicUsize,
    /// [`objects::changes`] when the whole process saw it first of all.
    seen: AtomicU64,
    /// What `native` learned of it: of another system, and of this.
    pub native: [AtomicPtr<Native>; 2],
}

/// Bytes of the smallest `struct hwloc_topology`, that of 2.0.
const SMALLEST: usize = 784;

/// Values of [`Library::served`].
pub(super) const SERVED: usize = 1;
pub(super) const NOT_SERVED: usize = 2;

static KNOWN: AtomicPtr<Library> = AtomicPtr::new(null_mut());
/// The one that the whole process saw when it was last looked for.
static SEEN: AtomicPtr<Library> = AtomicPtr::new(null_mut());

fn known(containing: usize) -> Option<&'static Library> {
    let mut at = KNOWN.load(Ordering::Acquire);
    // SAFETY: entries are leaked boxes, published with release ordering.
    while let Some(library) = unsafe { at.as_ref() } {
        if (library.start..library.end).contains(&containing) {
            return Some(library);
        }
        at = library.next.load(Ordering::Acquire);
    }
    None
}

/// The functions used, in the order of [`Library`]'s fields.
const NAMES: [&[u8]; 16] = [
    b"hwloc_topology_init",
    b"hwloc_topology_destroy",
    b"hwloc_topology_check",
    b"hwloc_topology_set_flags",
    b"hwloc_topology_set_synthetic",
    b"hwloc_topology_load",
    b"hwloc_get_api_version",
    b"hwloc_topology_get_support",
    b"hwloc_topology_set_userdata",
    b"hwloc_obj_attr_snprintf",
    b"hwloc_bitmap_alloc",
    b"hwloc_bitmap_set",
    b"hwloc_bitmap_free",
    b"hwloc_shmem_topology_get_length",
    b"hwloc_shmem_topology_write",
    b"hwloc_shmem_topology_adopt",
];

/// Of [`NAMES`], those that serve without our code: a release to come may have
/// no other.
const FORWARDED: [usize; 5] = [0, 1, 13, 14, 15];

/// The addresses of [`NAMES`] in an object, and whether it has them all. A copy
/// of hwloc inside of other software has a prefix before each.
fn addresses(object: &Object) -> Option<([usize; NAMES.len()], bool)> {
    let prefix =
        |(name, _): (&CStr, usize)| name.to_bytes().strip_suffix(NAMES[0]).map(<[u8]>::len);
    let prefix = object.functions().find_map(prefix)?;
    let mut found = [0; NAMES.len()];
    for (name, address) in object.functions() {
        let name = name.to_bytes().get(prefix..).unwrap_or(&[]);
        if let Some(i) = NAMES.iter().position(|wanted| *wanted == name) {
            found[i] = address;
        }
    }
    if FORWARDED.iter().any(|i| found[*i] == 0) {
        return None;
    }
    let mut all = true;
    for i in 0..found.len() {
        if found[i] == 0 {
            // Not called: such a library is not served here.
            (found[i], all) = (found[0], false);
        }
    }
    Some((found, all))
}

impl Library {
    /// The library whose code or data holds `address`.
    ///
    /// # Errors
    /// ENOSYS if what is there is not hwloc; ENOMEM.
    fn containing(address: usize) -> Result<&'static Library> {
        match known(address) {
            Some(library) => Ok(library),
            None => {
                let object = objects::containing(address).map_err(|error| match error {
                    Error::NotFound => Error::Unsupported,
                    other => other,
                })?;
                Library::of_object(&object)
            }
        }
    }

    /// The library that an object is.
    ///
    /// # Errors
    /// As for [`Library::containing`].
    fn of_object(object: &Object) -> Result<&'static Library> {
        let (start, end) = object.range();
        if let Some(library) = known(start) {
            return Ok(library);
        }
        let (at, all) = addresses(object).ok_or(Error::Unsupported)?;
        if !object.pin() {
            return Err(Error::Unsupported);
        }
        // SAFETY: each address is of the function whose type the field has, by
        // what hwloc documents.
        let library = unsafe {
            Library {
                start,
                end,
                next: AtomicPtr::new(null_mut()),
                init: transmute(at[0]),
                destroy: transmute(at[1]),
                check: transmute(at[2]),
                set_flags: transmute(at[3]),
                set_synthetic: transmute(at[4]),
                load: transmute(at[5]),
                version: transmute(at[6]),
                get_support: transmute(at[7]),
                set_userdata: transmute(at[8]),
                attr_snprintf: transmute(at[9]),
                bitmap_alloc: transmute(at[10]),
                bitmap_set: transmute(at[11]),
                bitmap_free: transmute(at[12]),
                stock_get_length: transmute(at[13]),
                stock_write: transmute(at[14]),
                stock_adopt: transmute(at[15]),
                served: AtomicUsize::new(if all { 0 } else { NOT_SERVED }),
                usable: AtomicUsize::new(0),
                seen: AtomicU64::new(0),
                native: [const { AtomicPtr::new(null_mut()) }; 2],
            }
        };
        let raw = Box::into_raw(memory::boxed(library)?);
        let mut head = KNOWN.load(Ordering::Acquire);
        loop {
            // SAFETY: `raw` is ours until it is published, and never freed.
            unsafe { &*raw }.next.store(head, Ordering::Relaxed);
            match KNOWN.compare_exchange(head, raw, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: as above.
                Ok(_) => return Ok(unsafe { &*raw }),
                Err(now) => head = now,
            }
        }
    }

    /// The library that new topologies of the caller belong to: the one that
    /// the whole process sees; where there is none, the one that the caller
    /// was linked with; or the first that there is, one without a prefix if
    /// there is such.
    ///
    /// # Errors
    /// ENOSYS if there is none; ENOMEM.
    pub fn of_caller() -> Result<&'static Library> {
        let name = c"hwloc_topology_init";
        // A look takes several times as long as the question what has changed.
        let now = objects::changes();
        // SAFETY: entries are leaked boxes, published with release ordering.
        let seen = unsafe { SEEN.load(Ordering::Acquire).as_ref() };
        if let Some(seen) = seen.filter(|seen| seen.seen.load(Ordering::Relaxed) == now) {
            return Ok(seen);
        }
        for handle in [libc::RTLD_NEXT, libc::RTLD_DEFAULT] {
            // SAFETY: a pseudo handle and a C string.
            let found = unsafe { libc::dlsym(handle, name.as_ptr()) } as usize;
            if found != 0 {
                let library = Library::containing(found)?;
                library.seen.store(now, Ordering::Relaxed);
                SEEN.store((&raw const *library).cast_mut(), Ordering::Release);
                return Ok(library);
            }
        }
        let linked = objects::caller().and_then(|caller| caller.finds(name));
        if let Some(found) = linked {
            return Library::containing(found);
        }
        let plain = |(found, _): (&CStr, usize)| found == name;
        let first = objects::find(|object| {
            let here = object.functions().any(plain);
            here.then(|| Library::of_object(&object))
        })?;
        if let Some(first) = first {
            return first;
        }
        let any = objects::find(|object| Library::of_object(&object).ok())?;
        any.ok_or(Error::Unsupported)
    }

    /// The library that made a topology: the one that its own pointers to code
    /// lead to.
    ///
    /// # Errors
    /// ENOSYS if that does not export what is needed of it; ENOMEM.
    ///
    /// # Safety
    /// `topology` is a live topology of hwloc 2 or later.
    pub unsafe fn of_topology(topology: RawTopology) -> Result<&'static Library> {
        // SAFETY: each layout of hwloc 2 begins with its ABI.
        let abi = unsafe { topology.cast::<u32>().read() };
        if abi == layout::ABI {
            // SAFETY: the ABI says that this is the layout.
            let hooks = unsafe { (*topology.cast::<Topology>()).binding_hooks };
            if let Some(hook) = hooks.into_iter().find(|h| *h != 0) {
                return Library::containing(hook as usize);
            }
            return Library::of_caller();
        }
        // Where the hooks are is not known: any word may be one.
        // SAFETY: no structure of hwloc 2 or later is smaller.
        let words = unsafe { topology.cast::<[usize; SMALLEST / 8]>().read() };
        let made_by = objects::find(|object| {
            let (start, end) = object.range();
            let any = words.iter().any(|word| (start..end).contains(word));
            any.then(|| Library::of_object(&object).ok()).flatten()
        })?;
        made_by.map_or_else(Library::of_caller, Ok)
    }

    /// API version, as `HWLOC_API_VERSION` writes it.
    pub fn version(&self) -> u32 {
        // SAFETY: takes nothing and cannot fail.
        unsafe { (self.version)() }
    }

    /// API version, and bytes allocated for a topology structure.
    pub fn structure(&self) -> (u32, usize) {
        (self.version(), self.usable.load(Ordering::Relaxed))
    }

    /// Bytes of each support array in this release.
    pub fn support_bytes(&self) -> [usize; 4] {
        let mut bytes = layout::SUPPORT_BYTES;
        if self.version() < 0x2_0b00 {
            bytes[2] = 15;
        }
        bytes
    }
}
