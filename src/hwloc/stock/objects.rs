// SPDX-License-Identifier: MIT OR Apache-2.0
//! The objects of this process, programs and libraries, and what they export:
//! read from their own tables of symbols. A handle would find a symbol in
//! whatever object has one of that name, and only under its full name: copies
//! of hwloc inside of other software have a prefix before theirs.

use crate::error::{Error, Result};
use crate::hwloc::memory;
use core::ffi::{c_char, c_int, c_void, CStr};

/// Where an object lies, where its tables are, and its path.
pub struct Object {
    start: usize,
    end: usize,
    base: usize,
    symbols: *const libc::Elf64_Sym,
    count: usize,
    strings: *const c_char,
    path: Vec<u8>,
}

impl Object {
    pub fn range(&self) -> (usize, usize) {
        (self.start, self.end)
    }

    fn holds(&self, address: usize) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Has it stay, with whatever of it is known, if it is one of a path.
    pub fn pin(&self) -> bool {
        let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
        let name = match self.path.first() {
            // The main program has no name, and stays anyway.
            None | Some(0) => return true,
            Some(_) => self.path.as_ptr().cast(),
        };
        // SAFETY: a C string; NOLOAD runs no foreign code.
        !unsafe { libc::dlopen(name, flags) }.is_null()
    }

    /// What the object would find for a symbol that none before it in the
    /// process has: in itself or in what it was linked with.
    pub fn finds(&self, symbol: &CStr) -> Option<usize> {
        let name = self.path.as_ptr().cast::<c_char>();
        // SAFETY: C strings; NOLOAD runs no foreign code, and the handle is
        // given back.
        unsafe {
            let handle = libc::dlopen(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            if handle.is_null() {
                return None;
            }
            let found = libc::dlsym(handle, symbol.as_ptr()) as usize;
            libc::dlclose(handle);
            (found != 0).then_some(found)
        }
    }

    /// Names and addresses of the functions that the object defines and
    /// exports.
    pub fn functions(&self) -> impl Iterator<Item = (&CStr, usize)> {
        /// The kind of symbol in the low half of `st_info`.
        const STT_FUNC: u8 = 2;
        let there = !self.symbols.is_null() && !self.strings.is_null();
        let count = if there { self.count } else { 0 };
        (0..count).filter_map(|i| {
            // SAFETY: the object's own table, there while it is loaded.
            let symbol = unsafe { &*self.symbols.add(i) };
            if symbol.st_shndx == 0 || symbol.st_info & 15 != STT_FUNC {
                return None;
            }
            // SAFETY: an offset into the object's own strings.
            let name = unsafe { CStr::from_ptr(self.strings.add(symbol.st_name as usize)) };
            Some((name, self.base.wrapping_add(symbol.st_value as usize)))
        })
    }

    /// What the dynamic linker says of an object.
    ///
    /// # Safety
    /// `info` is an entry that the dynamic linker passed, of an object that
    /// stays.
    unsafe fn read(info: &libc::dl_phdr_info) -> Result<Self> {
        let mut object = Object {
            start: usize::MAX,
            end: 0,
            base: info.dlpi_addr as usize,
            symbols: core::ptr::null(),
            count: 0,
            strings: core::ptr::null(),
            path: Vec::new(),
        };
        let mut dynamic = 0;
        for i in 0..usize::from(info.dlpi_phnum) {
            // SAFETY: the entry says how many headers it has.
            let ph = unsafe { &*info.dlpi_phdr.add(i) };
            let from = object.base.wrapping_add(ph.p_vaddr as usize);
            match ph.p_type {
                libc::PT_LOAD => {
                    object.start = object.start.min(from);
                    object.end = object.end.max(from.wrapping_add(ph.p_memsz as usize));
                }
                libc::PT_DYNAMIC => dynamic = from,
                _ => {}
            }
        }
        if dynamic != 0 {
            // SAFETY: the object's dynamic section, which ends with a null.
            unsafe { object.tables(dynamic as *const [usize; 2]) };
        }
        if !info.dlpi_name.is_null() {
            // SAFETY: a C string of the dynamic linker.
            let path = unsafe { CStr::from_ptr(info.dlpi_name) };
            memory::append(&mut object.path, path.to_bytes_with_nul())?;
        }
        Ok(object)
    }

    /// Finds the tables of symbols.
    ///
    /// # Safety
    /// `entry` is the dynamic section of this object.
    unsafe fn tables(&mut self, mut entry: *const [usize; 2]) {
        const DT_HASH: usize = 4;
        const DT_STRTAB: usize = 5;
        const DT_SYMTAB: usize = 6;
        const DT_GNU_HASH: usize = 0x6fff_fef5;
        loop {
            // SAFETY: a null entry is the last.
            let [tag, value] = unsafe { entry.read() };
            // glibc has made addresses of them, but in the kernel's own object.
            let at = match value < self.base {
                true => value + self.base,
                false => value,
            };
            match tag {
                0 => return,
                DT_STRTAB => self.strings = at as *const c_char,
                DT_SYMTAB => self.symbols = at as *const libc::Elf64_Sym,
                // SAFETY: tables of the object, laid out as ELF says.
                DT_HASH => self.count = unsafe { (at as *const u32).add(1).read() } as usize,
                // SAFETY: as above.
                DT_GNU_HASH => self.count = unsafe { gnu_count(at as *const u32) },
                _ => {}
            }
            // SAFETY: not the last yet.
            entry = unsafe { entry.add(1) };
        }
    }
}

/// Number of symbols, from a hash table of GNU's: one more than the largest.
///
/// # Safety
/// `table` is such a table.
unsafe fn gnu_count(table: *const u32) -> usize {
    // SAFETY: the caller's promise, for all that follows.
    unsafe {
        let (buckets, first) = (table.read() as usize, table.add(1).read() as usize);
        let bloom = table.add(2).read() as usize;
        // Words of the filter have 64 bits.
        let bucket = table.add(4 + bloom * 2);
        let last = (0..buckets).map(|i| bucket.add(i).read() as usize).max();
        let mut last = match last {
            Some(last) if last >= first => last,
            _ => return first,
        };
        let chain = bucket.add(buckets);
        while chain.add(last - first).read() & 1 == 0 {
            last += 1;
        }
        last + 1
    }
}

/// Calls `look` with each object, in the order of loading, until it answers
/// something.
///
/// # Errors
/// ENOMEM.
pub fn find<T>(mut look: impl FnMut(Object) -> Option<T>) -> Result<Option<T>> {
    struct Search<'a, T> {
        look: &'a mut dyn FnMut(Object) -> Option<T>,
        found: Result<Option<T>>,
    }
    unsafe extern "C" fn each<T>(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: dl_iterate_phdr passes a valid entry and our own pointer.
        let (info, search) = unsafe { (&*info, &mut *data.cast::<Search<'_, T>>()) };
        // SAFETY: as above.
        match unsafe { Object::read(info) } {
            Ok(object) => search.found = Ok((search.look)(object)),
            Err(error) => search.found = Err(error),
        }
        c_int::from(!matches!(search.found, Ok(None)))
    }
    let mut search = Search {
        look: &mut look,
        found: Ok(None),
    };
    // SAFETY: the callback matches, and `search` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(each::<T>), (&raw mut search).cast()) };
    search.found
}

/// A number that no two states of the list of objects have: how many were loaded
/// and unloaded since the process began.
pub fn changes() -> u64 {
    unsafe extern "C" fn count(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: dl_iterate_phdr passes a valid entry and our own pointer.
        unsafe {
            let (adds, subs) = ((*info).dlpi_adds, (*info).dlpi_subs);
            *data.cast::<u64>() = adds.wrapping_add(subs);
        }
        1
    }
    let mut changes = 0u64;
    // SAFETY: the callback matches, and the number outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(count), (&raw mut changes).cast()) };
    changes
}

/// The object that holds an address.
///
/// # Errors
/// ENOMEM; ENOENT if there is none.
pub fn containing(address: usize) -> Result<Object> {
    find(|object| object.holds(address).then_some(object))?.ok_or(Error::NotFound)
}

/// The object that called into this one, if it can be told.
pub fn caller() -> Option<Object> {
    let mut frames = [core::ptr::null_mut(); 32];
    // SAFETY: a list as long as said.
    let n = unsafe { libc::backtrace(frames.as_mut_ptr(), frames.len() as c_int) };
    let frames = frames.get(..usize::try_from(n).unwrap_or(0))?;
    let own = containing(caller as *const () as usize).ok()?;
    let outside = frames.iter().map(|frame| *frame as usize);
    let outside = outside.filter(|at| *at != 0).find(|at| !own.holds(*at))?;
    containing(outside).ok()
}
