// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file's bytes, reached by the virtual addresses that stand in it, with
//! every access bounded.

use crate::error::Error;
use crate::hwloc::bits::Bits;
use crate::hwloc::layout::abi::{Abi, ABI_2_4};
use crate::hwloc::layout::{Addr, Attr, Bitmap, Plain, Topology};
use core::cell::Cell;
use core::marker::PhantomData;
use core::mem::{align_of, size_of, MaybeUninit};
use core::sync::atomic::{compiler_fence, Ordering};

/// Why a file is refused: what is wrong, and at which address of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt {
    pub what: &'static str,
    pub at: Addr,
}

/// [`Corrupt::what`] where it is not the file that lacks something.
const NO_MEMORY: &str = "no memory for the check";

impl From<Error> for Corrupt {
    fn from(_: Error) -> Self {
        Corrupt {
            what: NO_MEMORY,
            at: 0,
        }
    }
}

impl From<Corrupt> for Error {
    fn from(corrupt: Corrupt) -> Self {
        if corrupt.what == NO_MEMORY {
            Error::NoMemory
        } else {
            Error::Invalid
        }
    }
}

pub type Checked<T> = Result<T, Corrupt>;

/// Answers a [`Corrupt`] unless `condition` holds.
pub fn ensure(condition: bool, what: &'static str, at: Addr) -> Checked<()> {
    if condition {
        Ok(())
    } else {
        Err(Corrupt { what, at })
    }
}

/// What is read of an image or looked up in it, or EINVAL.
pub trait OrInvalid<T> {
    fn valid(self) -> crate::error::Result<T>;
}

impl<T> OrInvalid<T> for Option<T> {
    #[inline]
    fn valid(self) -> crate::error::Result<T> {
        self.ok_or(Error::Invalid)
    }
}

/// The bytes `[base, base + len)` of the writer's address space, wherever
/// they are held in this process.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    base: Addr,
    data: *const u8,
    len: usize,
    /// How its topology is laid out. But in tests there is one layout so far, and
    /// the compiler knows it.
    #[cfg(test)]
    abi: &'static Abi,
    /// Bytes that may still be looked at, if there is a limit.
    work: Option<&'a Cell<u64>>,
    held: PhantomData<&'a [u8]>,
}

/// How much work a file of `len` bytes is worth, in bytes looked at. Parts may
/// be shared, and so be read many times: what stock writes takes less than
/// three times its length, what we write less than that of stock's. A file
/// whose parts overlap on purpose could otherwise keep a reader busy for hours.
pub fn work_for(len: usize) -> Cell<u64> {
    Cell::new((len as u64).saturating_mul(16).saturating_add(256 << 10))
}

impl<'a> Image<'a> {
    /// # Safety
    /// `[data, data + len)` must be readable for `'a` and `data` aligned to
    /// 8 bytes. Whoever can write the file can change the bytes meanwhile:
    /// each read is then of some value the file held, inside the bounds.
    pub unsafe fn new(
        base: Addr,
        data: *const u8,
        len: usize,
        work: &'a Cell<u64>,
    ) -> Option<Self> {
        let end = base.checked_add(len as u64);
        if end.is_none() || base % 8 != 0 || data as usize % 8 != 0 {
            return None;
        }
        Some(Image {
            base,
            data,
            len,
            #[cfg(test)]
            abi: &ABI_2_4,
            work: Some(work),
            held: PhantomData,
        })
    }

    /// The whole address space of this process: a live topology is read
    /// with the code that reads a file, and its pointers are trusted.
    ///
    /// # Safety
    /// Only addresses that the topology holds may be followed, and it must
    /// not be changed meanwhile.
    pub unsafe fn process() -> Self {
        Image {
            base: 0,
            data: core::ptr::null(),
            len: isize::MAX as usize,
            #[cfg(test)]
            abi: &ABI_2_4,
            work: None,
            held: PhantomData,
        }
    }

    /// The same bytes in another layout.
    #[cfg(test)]
    pub fn in_layout(self, abi: &'static Abi) -> Self {
        Image { abi, ..self }
    }

    #[inline]
    pub fn abi(&self) -> &'static Abi {
        #[cfg(test)]
        return self.abi;
        #[cfg(not(test))]
        &ABI_2_4
    }

    /// What a type's number stands for.
    #[inline]
    pub fn kind(&self, number: u32) -> u32 {
        self.abi().kind(number)
    }

    /// The topology's own structure at an address.
    pub fn topology(&self, addr: Addr) -> Option<Topology> {
        let abi = self.abi();
        if abi.is_ours() {
            return self.get(addr);
        }
        let offset = self.locate(addr, abi.topology, 8)?;
        let at = self.data.wrapping_add(offset);
        // SAFETY: `locate` showed the bytes to be inside.
        abi.read(unsafe { core::slice::from_raw_parts(at, abi.topology) })
    }

    /// An object's attributes; what the layout does not have is 0.
    #[inline]
    pub fn attr(&self, addr: Addr) -> Option<Attr> {
        let mut attr = Attr::NONE;
        let words = self.abi().attr;
        let offset = self.locate(addr, words * 8, 8)?;
        let from = self.data.wrapping_add(offset).cast::<u64>();
        for (i, word) in attr.words.iter_mut().enumerate().take(words) {
            // SAFETY: inside, and aligned.
            *word = unsafe { read_once(from.add(i)) };
        }
        Some(attr)
    }

    pub fn base(&self) -> Addr {
        self.base
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Offset of `[addr, addr + size)` in the image, if it is inside.
    #[inline]
    fn locate(&self, addr: Addr, size: usize, align: usize) -> Option<usize> {
        let offset = addr.wrapping_sub(self.base) as usize;
        let room = self.len.checked_sub(offset)?;
        (room >= size && offset % align == 0).then_some(offset)
    }

    /// The value at an address: read once, so that what was checked is what
    /// is used, also where somebody changes the file meanwhile.
    #[inline]
    pub fn get<T: Plain>(&self, addr: Addr) -> Option<T> {
        let offset = self.locate(addr, size_of::<T>(), align_of::<T>())?;
        // SAFETY: `locate` showed the bytes to be inside and aligned; any
        // bit pattern is a `T`.
        Some(unsafe { read_once(self.data.wrapping_add(offset).cast::<T>()) })
    }

    /// As [`Image::get`], at a place of the caller's: a large value that is
    /// returned is copied more than once.
    #[inline]
    pub fn get_in<'p, T: Plain>(
        &self,
        addr: Addr,
        place: &'p mut MaybeUninit<T>,
    ) -> Option<&'p mut T> {
        let offset = self.locate(addr, size_of::<T>(), align_of::<T>())?;
        let from = self.data.wrapping_add(offset).cast::<T>();
        // SAFETY: as in `get`; the place is memory of this program alone.
        unsafe { core::ptr::copy(from, place.as_mut_ptr(), 1) };
        // As in `read_once`.
        compiler_fence(Ordering::SeqCst);
        // SAFETY: just written, and any bit pattern is a `T`.
        Some(unsafe { place.assume_init_mut() })
    }

    /// An array whose elements are read as [`Image::get`] reads.
    #[inline]
    pub fn list<T: Plain>(&self, addr: Addr, count: usize) -> Option<List<'a, T>> {
        let first = self.slice::<T>(addr, count)?.as_ptr();
        Some(List {
            first,
            count,
            held: PhantomData,
        })
    }

    /// The value at an address, in place: only where nobody else can change
    /// it. Of a mapped file two looks at one field may see two values.
    #[inline]
    pub fn at<T: Plain>(&self, addr: Addr) -> Option<&'a T> {
        let offset = self.locate(addr, size_of::<T>(), align_of::<T>())?;
        // SAFETY: as in `get`; the bytes stay where they are for `'a`.
        Some(unsafe { &*self.data.wrapping_add(offset).cast::<T>() })
    }

    /// A hint that `size` bytes at an address will be read, wherever that leads.
    #[inline(always)]
    pub fn soon(&self, addr: Addr, size: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use core::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
            let at = self
                .data
                .wrapping_add(addr.wrapping_sub(self.base) as usize);
            let mut line = 0;
            while line < size {
                // SAFETY: a hint: it reads nothing and cannot fault.
                unsafe { _mm_prefetch(at.wrapping_add(line).cast(), _MM_HINT_T0) };
                line += 64;
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (addr, size);
    }

    /// An array of values, in place. Of a mapped file only for words that are
    /// taken one by one, each once: [`Image::list`] is for structures.
    #[inline]
    pub fn slice<T: Plain>(&self, addr: Addr, count: usize) -> Option<&'a [T]> {
        if count == 0 {
            return Some(&[]);
        }
        let size = count.checked_mul(size_of::<T>())?;
        let offset = self.locate(addr, size, align_of::<T>())?;
        self.charge(size)?;
        // SAFETY: as in `get`, for `count` values.
        Some(unsafe {
            core::slice::from_raw_parts(self.data.wrapping_add(offset).cast::<T>(), count)
        })
    }

    /// The bytes of a C string without its NUL.
    pub fn string(&self, addr: Addr) -> Option<&'a [u8]> {
        let offset = self.locate(addr, 1, 1)?;
        let room = self.len - offset;
        // SAFETY: `room` bytes from there on are inside the image.
        let length = unsafe { text_length(self.data.wrapping_add(offset), room) };
        if length == room {
            return None;
        }
        self.slice(addr, length)
    }

    /// What is left of the work.
    pub fn work_left(&self) -> Option<u64> {
        self.work.map(Cell::get)
    }

    /// A bitmap whose array is inside the image.
    #[inline]
    pub fn bitmap(&self, addr: Addr) -> Option<Bits<'a>> {
        let head: Bitmap = self.get(addr)?;
        let plausible = head.count >= 1 && head.allocated >= head.count && head.infinite & !1 == 0;
        // A copy of the bitmap is as large as `allocated` says. Both numbers
        // have 32 bits: no overflow.
        let offset = self.locate(head.ulongs, head.allocated as usize * 8, 8)?;
        if !plausible {
            return None;
        }
        self.charge(head.allocated as usize * 8)?;
        // SAFETY: `count` words, no more than `allocated`, are inside.
        let words = unsafe {
            let first = self.data.wrapping_add(offset).cast::<u64>();
            core::slice::from_raw_parts(first, head.count as usize)
        };
        Some(Bits {
            words,
            infinite: head.infinite != 0,
        })
    }

    /// The words of a bitmap that nobody else can change.
    #[inline]
    pub fn words(&self, bitmap: &Bitmap) -> Option<&'a [u64]> {
        let count = bitmap.count as usize;
        if count == 0 {
            return Some(&[]);
        }
        let offset = self.locate(bitmap.ulongs, count * 8, 8)?;
        // SAFETY: as in `slice`.
        Some(unsafe {
            core::slice::from_raw_parts(self.data.wrapping_add(offset).cast::<u64>(), count)
        })
    }

    /// Takes from the work that is left.
    #[inline]
    pub fn charge(&self, bytes: usize) -> Option<()> {
        if let Some(work) = self.work {
            work.set(work.get().checked_sub(bytes as u64)?);
        }
        Some(())
    }
}

/// A copy that later changes do not reach. Behind a plain read alone the
/// compiler may drop the copy and look at the file again for each field; the
/// fence forbids that, and, unlike a volatile read, leaves out fields that
/// nobody uses.
///
/// # Safety
/// `at` must be readable and aligned.
#[inline(always)]
unsafe fn read_once<T: Plain>(at: *const T) -> T {
    // SAFETY: the caller's promise; any bit pattern is a `T`.
    let value = unsafe { at.read() };
    compiler_fence(Ordering::SeqCst);
    value
}

/// `strnlen`, which Miri lacks.
///
/// # Safety
/// `room` bytes must be readable.
unsafe fn text_length(at: *const u8, room: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(not(miri))]
        return libc::strnlen(at.cast(), room);
        #[cfg(miri)]
        return (0..room).find(|i| at.add(*i).read() == 0).unwrap_or(room);
    }
}

/// Structures in a row, each read by value when its turn comes.
#[derive(Clone, Copy, Debug)]
pub struct List<'a, T> {
    first: *const T,
    count: usize,
    held: PhantomData<&'a [T]>,
}

impl<'a, T: Plain> List<'a, T> {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = T> + 'a {
        let first = self.first;
        // SAFETY: `Image::list` showed `count` elements to be inside, for
        // `'a`; any bit pattern is a `T`.
        (0..self.count).map(move |i| unsafe { read_once(first.add(i)) })
    }
}
