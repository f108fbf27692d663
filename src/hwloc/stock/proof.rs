// SPDX-License-Identifier: MIT OR Apache-2.0
//! The run-time proof that a libhwloc's structures are laid out as ours.

use crate::error::{Error, Result};
use crate::hwloc::layout::{self, Addr, Attr, Obj, Topology};
use crate::hwloc::stock::library::{Library, RawTopology, NOT_SERVED, SERVED};
use core::ffi::c_void;
use core::mem::zeroed;
use core::ptr::null_mut;
use core::sync::atomic::Ordering;

impl Library {
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
        let mut attr = Attr::NONE;
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
}
