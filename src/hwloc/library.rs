// SPDX-License-Identifier: MIT OR Apache-2.0
//! The libhwloc of this process: found, never linked against.
//!
//! A library that a topology came from is pinned (`RTLD_NODELETE`) when it
//! is first used, so function pointers into it stay good. The list of known
//! libraries only grows and takes no lock: a fork cannot leave it held.

// Each symbol takes the type of the field that it goes into.
#![allow(clippy::missing_transmute_annotations)]

use super::layout::{self, Addr, Attr, Bitmap, Obj, Topology};
use super::memory;
use super::native::{self, Native};
use crate::error::{Error, Result};
use core::ffi::{c_char, c_int, c_uint, c_ulong, c_void, CStr};
use core::mem::zeroed;
use core::ptr::{null_mut, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// `struct hwloc_topology`, opaque where the layout is not known.
pub type RawTopology = *mut c_void;

type GetLength = unsafe extern "C" fn(RawTopology, *mut usize, c_ulong) -> c_int;
type Write = unsafe extern "C" fn(RawTopology, c_int, u64, *mut c_void, usize, c_ulong) -> c_int;
type Adopt =
    unsafe extern "C" fn(*mut RawTopology, c_int, u64, *mut c_void, usize, c_ulong) -> c_int;
type Snprintf = unsafe extern "C" fn(*mut c_char, usize, *const Obj, *const c_char, c_int) -> c_int;

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
    get_support: unsafe extern "C" fn(RawTopology) -> *const c_void,
    set_userdata: unsafe extern "C" fn(RawTopology, *const c_void),
    attr_snprintf: Snprintf,
    bitmap_alloc: unsafe extern "C" fn() -> *mut Bitmap,
    bitmap_set: unsafe extern "C" fn(*mut Bitmap, c_uint) -> c_int,
    bitmap_free: unsafe extern "C" fn(*mut Bitmap),
    pub stock_get_length: GetLength,
    pub stock_write: Write,
    pub stock_adopt: Adopt,
    /// [`SERVED`] or [`NOT_SERVED`] once it is known.
    served: AtomicUsize,
    /// Bytes allocated for a topology structure, once `served` is known.
    usable: AtomicUsize,
    native: [AtomicPtr<Native>; 2],
}

/// Values of [`Library::served`].
const SERVED: usize = 1;
const NOT_SERVED: usize = 2;

static KNOWN: AtomicPtr<Library> = AtomicPtr::new(null_mut());

/// Where an object of the process lies, and its path.
struct Object {
    start: usize,
    end: usize,
    path: Vec<u8>,
}

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

/// The object of the process that holds an address, or whose name begins
/// with `libhwloc` when `address` is `None`.
fn object(address: Option<usize>) -> Option<Object> {
    struct Search {
        address: Option<usize>,
        found: Option<Object>,
    }
    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: dl_iterate_phdr passes a valid entry and our own pointer.
        let (info, search) = unsafe { (&*info, &mut *data.cast::<Search>()) };
        let mut start = usize::MAX;
        let mut end = 0;
        for i in 0..usize::from(info.dlpi_phnum) {
            // SAFETY: the entry says how many headers it has.
            let ph = unsafe { &*info.dlpi_phdr.add(i) };
            if ph.p_type == libc::PT_LOAD {
                let from = (info.dlpi_addr as usize).wrapping_add(ph.p_vaddr as usize);
                start = start.min(from);
                end = end.max(from.wrapping_add(ph.p_memsz as usize));
            }
        }
        let path = if info.dlpi_name.is_null() {
            Vec::new()
        } else {
            // SAFETY: a C string of the dynamic linker.
            unsafe { CStr::from_ptr(info.dlpi_name) }
                .to_bytes()
                .to_vec()
        };
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(&[]);
        let hit = match search.address {
            Some(a) => (start..end).contains(&a),
            None => name.starts_with(b"libhwloc.so") || name.starts_with(b"libhwloc-"),
        };
        if hit {
            search.found = Some(Object { start, end, path });
        }
        c_int::from(hit)
    }
    let mut search = Search {
        address,
        found: None,
    };
    // SAFETY: the callback matches, and `search` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    search.found
}

/// A symbol of a handle, if it is defined inside `object`.
fn symbol(handle: *mut c_void, object: &Object, name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: a handle of dlopen and a C string.
    let found = NonNull::new(unsafe { libc::dlsym(handle, name.as_ptr()) })?;
    // A preloaded replacement must not be taken for the original.
    (object.start..object.end)
        .contains(&(found.as_ptr() as usize))
        .then_some(found)
}

impl Library {
    /// The library whose code or data holds `address`.
    fn containing(address: usize) -> Option<&'static Library> {
        if let Some(library) = known(address) {
            return Some(library);
        }
        let object = object(Some(address))?;
        let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
        let mut path = object.path.clone();
        path.push(0);
        // The main program has no name.
        let name = if object.path.is_empty() {
            core::ptr::null()
        } else {
            path.as_ptr().cast()
        };
        // SAFETY: a C string or null; NOLOAD runs no foreign code.
        let handle = unsafe { libc::dlopen(name, flags) };
        if handle.is_null() {
            return None;
        }
        macro_rules! resolve {
            ($name:literal) => {
                // SAFETY: the symbol's type is the one hwloc documents.
                unsafe { core::mem::transmute(symbol(handle, &object, $name)?.as_ptr()) }
            };
        }
        let library = Box::new(Library {
            start: object.start,
            end: object.end,
            next: AtomicPtr::new(null_mut()),
            init: resolve!(c"hwloc_topology_init"),
            destroy: resolve!(c"hwloc_topology_destroy"),
            check: resolve!(c"hwloc_topology_check"),
            version: resolve!(c"hwloc_get_api_version"),
            set_flags: resolve!(c"hwloc_topology_set_flags"),
            set_synthetic: resolve!(c"hwloc_topology_set_synthetic"),
            load: resolve!(c"hwloc_topology_load"),
            get_support: resolve!(c"hwloc_topology_get_support"),
            set_userdata: resolve!(c"hwloc_topology_set_userdata"),
            attr_snprintf: resolve!(c"hwloc_obj_attr_snprintf"),
            bitmap_alloc: resolve!(c"hwloc_bitmap_alloc"),
            bitmap_set: resolve!(c"hwloc_bitmap_set"),
            bitmap_free: resolve!(c"hwloc_bitmap_free"),
            stock_get_length: resolve!(c"hwloc_shmem_topology_get_length"),
            stock_write: resolve!(c"hwloc_shmem_topology_write"),
            stock_adopt: resolve!(c"hwloc_shmem_topology_adopt"),
            served: AtomicUsize::new(0),
            usable: AtomicUsize::new(0),
            native: [const { AtomicPtr::new(null_mut()) }; 2],
        });
        let raw = Box::into_raw(library);
        let mut head = KNOWN.load(Ordering::Acquire);
        loop {
            // SAFETY: `raw` is ours until it is published, and never freed.
            unsafe { &*raw }.next.store(head, Ordering::Relaxed);
            match KNOWN.compare_exchange(head, raw, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: as above.
                Ok(_) => return Some(unsafe { &*raw }),
                Err(now) => head = now,
            }
        }
    }

    /// The library that new topologies of this process belong to.
    pub fn of_process() -> Option<&'static Library> {
        static FOUND: AtomicPtr<Library> = AtomicPtr::new(null_mut());
        // SAFETY: null, or an entry of the list, which lives on.
        if let Some(library) = unsafe { FOUND.load(Ordering::Acquire).as_ref() } {
            return Some(library);
        }
        let name = c"hwloc_topology_init";
        let visible = [libc::RTLD_NEXT, libc::RTLD_DEFAULT].into_iter();
        let found = visible
            // SAFETY: pseudo handles and a C string.
            .map(|h| unsafe { libc::dlsym(h, name.as_ptr()) } as usize)
            .find(|a| *a != 0)
            .or_else(|| object(None).map(|o| o.start))
            .and_then(Library::containing)?;
        FOUND.store(core::ptr::from_ref(found).cast_mut(), Ordering::Release);
        Some(found)
    }

    /// The library that made a topology: the one its binding hooks lead to.
    ///
    /// # Safety
    /// `topology` is a live topology of hwloc 2 or later.
    pub unsafe fn of_topology(topology: RawTopology) -> Option<&'static Library> {
        // SAFETY: each layout of hwloc 2 begins with its ABI.
        let abi = unsafe { topology.cast::<u32>().read() };
        if abi == layout::ABI {
            // SAFETY: the ABI says that this is the layout.
            let hooks = unsafe { (*topology.cast::<Topology>()).binding_hooks };
            let made_by = hooks.into_iter().find(|h| *h != 0);
            if let Some(library) = made_by.and_then(|h| Library::containing(h as usize)) {
                return Some(library);
            }
        }
        Library::of_process()
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

    /// Whether this library's structures are laid out as [`layout`] says,
    /// judged by what its own functions do, once.
    ///
    /// `fresh` is a topology just initialised by this library.
    pub fn is_served(&self, fresh: RawTopology) -> bool {
        match self.served.load(Ordering::Acquire) {
            0 => {
                let same = self.same_layout(fresh);
                let known = if same { SERVED } else { NOT_SERVED };
                self.served.store(known, Ordering::Release);
                same
            }
            known => known == SERVED,
        }
    }

    /// As [`Library::is_served`], with a throw-away topology.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn is_served_here(&self) -> Result<bool> {
        let known = self.served.load(Ordering::Acquire);
        if known != 0 {
            return Ok(known == SERVED);
        }
        let mut fresh = null_mut();
        // SAFETY: a place for the result; destroyed below.
        if unsafe { (self.init)(&mut fresh) } != 0 {
            return Err(Error::NoMemory);
        }
        let served = self.is_served(fresh);
        // SAFETY: made above, used nowhere else.
        unsafe { (self.destroy)(fresh) };
        Ok(served)
    }

    fn same_layout(&self, fresh: RawTopology) -> bool {
        // SAFETY: each layout of hwloc 2 begins with its ABI.
        if unsafe { fresh.cast::<u32>().read() } != layout::ABI {
            return false;
        }
        // SAFETY: from hwloc's malloc, which is this process's.
        let usable = unsafe { libc::malloc_usable_size(fresh) };
        self.usable.store(usable, Ordering::Relaxed);
        let mark = 0x5eed_usize as *mut c_void;
        // SAFETY: `fresh` is live and of this library.
        unsafe { (self.set_userdata)(fresh, mark) };
        // SAFETY: the ABI matches, so the structure has these fields unless
        // the build differs, which the comparisons below find out.
        let t = unsafe { fresh.cast::<Topology>().read() };
        // SAFETY: as above.
        unsafe { (self.set_userdata)(fresh, null_mut()) };
        // SAFETY: `fresh` is live.
        let support = unsafe { (self.get_support)(fresh) } as usize;
        let plain = t.userdata == mark as Addr
            && support == fresh as usize + core::mem::offset_of!(Topology, support_discovery)
            && t.nb_levels == 1
            && (1..=64).contains(&t.nb_levels_allocated)
            && t.is_loaded == 0
            && t.adopted_shmem_addr == 0
            && t.type_depth[layout::ty::MEMCACHE as usize] == -8
            && t.next_gp_index == 2
            && t.levels != 0
            && t.backends == 0;
        if !plain {
            return false;
        }
        // SAFETY: a fresh topology has one level with one object.
        let root = unsafe { *((t.levels as *const *const *const Obj).read()) };
        // SAFETY: as above.
        let root = unsafe { root.read() };
        root.kind == layout::ty::MACHINE
            && root.gp_index == 1
            && root.attr != 0
            && root.children == 0
            && self.same_bitmap()
            && self.same_pci()
    }

    fn same_bitmap(&self) -> bool {
        // SAFETY: takes nothing.
        let bitmap = unsafe { (self.bitmap_alloc)() };
        if bitmap.is_null() {
            return false;
        }
        // SAFETY: a live bitmap of this library; its first three fields are
        // in any build, and the array has at least `count` words.
        let same = unsafe {
            let set = (self.bitmap_set)(bitmap, 130) == 0;
            let b = bitmap.read();
            set && b.count == 3
                && b.allocated >= b.count
                && b.infinite == 0
                && *(b.ulongs as *const u64).add(2) == 4
        };
        // SAFETY: made above.
        unsafe { (self.bitmap_free)(bitmap) };
        same
    }

    /// A build with 32-bit PCI domains has the same ABI number and larger
    /// attributes. What it prints about a device of ours tells.
    fn same_pci(&self) -> bool {
        let mut attr = Attr { words: [0; 5] };
        attr.words[0] = u64::from_ne_bytes([0x34, 0x12, 0x56, 0x17, 0x05, 0, 0x00, 0x02]);
        // SAFETY: integers, all zero is valid.
        let mut obj: Obj = unsafe { zeroed() };
        obj.kind = layout::ty::PCI_DEVICE;
        obj.attr = (&raw const attr) as Addr;
        let mut text = [0u8; 256];
        // SAFETY: an object with attributes and nothing else; the buffer
        // is as long as said.
        let n = unsafe {
            (self.attr_snprintf)(text.as_mut_ptr().cast(), text.len(), &obj, c" ".as_ptr(), 1)
        };
        let text = &text[..usize::try_from(n).unwrap_or(0).min(text.len())];
        let wanted = b"1234:56:17.5";
        text.windows(wanted.len()).any(|w| w == wanted)
    }

    /// What this library would put into an adopted topology: binding hooks
    /// and what they support, native ones or those of another machine.
    ///
    /// # Errors
    /// As for [`native::ask`]; a later call tries again.
    pub fn native(&self, thissystem: bool) -> Result<&Native> {
        let slot = &self.native[usize::from(thissystem)];
        // SAFETY: null, or a box that is never freed.
        if let Some(known) = unsafe { slot.load(Ordering::Acquire).as_ref() } {
            return Ok(known);
        }
        let asked = Box::into_raw(memory::boxed(native::ask(self, thissystem)?)?);
        let order = (Ordering::AcqRel, Ordering::Acquire);
        match slot.compare_exchange(null_mut(), asked, order.0, order.1) {
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
}
