// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stepping in front of system calls that libc makes.
//!
//! One instruction of a wrapper of libc becomes a jump to a thunk near libc, so
//! that nobody can be in the middle of it and nothing else of libc changes. The
//! thunk leads on to code that asks [`Hook::before`], makes the system call,
//! tells [`Hook::after`], and goes back behind the wrapper's own. So libc's own
//! callers (its allocator, its threads) are met as well, and errno and the like
//! stay libc's business. Of libc's `syscall` only the calls of interest take that
//! way: it makes all others, also those that come back on another stack.
//!
//! A wrapper that looks different, because another library has put its own
//! jump there, is left alone.

use crate::errno::Errno;
use crate::fd::Fd;
use crate::user::sys::{held, Sys, PAGE};
use core::ffi::{c_char, c_int, c_void, CStr};
use core::sync::atomic::{AtomicPtr, Ordering};

#[cfg(any(test, target_arch = "aarch64"))]
mod a64;
#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "aarch64")]
use aarch64 as machine;
#[cfg(target_arch = "x86_64")]
use x86_64 as machine;

/// What is called around a hooked system call, in the program's own threads.
pub struct Hook {
    /// Number and arguments; answers a word for `after`, and what the system
    /// call answers where it has been taken care of.
    pub before: fn(usize, [usize; 6]) -> (usize, Option<isize>),
    /// The word that `before` answered, unless it was 0.
    pub after: fn(usize),
}

/// Most places that can be hooked.
pub const SITES: usize = 20;

/// The word for `after` that says: the system call is made in its own place, and
/// nothing after it. A child may come back from it on another stack.
pub const IN_PLACE: usize = usize::MAX;

/// The number of a [`Site`] whose system call is its caller's choice.
pub const ANY: usize = 0xffff;

/// One place of libc where a system call is made.
#[derive(Clone, Copy, Default)]
pub struct Site {
    pub address: usize,
    /// Of the system call, or [`ANY`].
    pub number: usize,
}

static HOOK: AtomicPtr<Hook> = AtomicPtr::new(core::ptr::null_mut());

#[repr(C)]
struct Verdict {
    word: usize,
    /// 1: an answer has been put in the place of the system call's. 2: the system
    /// call is to be made in its own place.
    done: usize,
}

/// What the hook says of one call; `room` takes its answer.
fn ask(number: usize, args: [usize; 6], room: &mut usize) -> Verdict {
    // SAFETY: set once, before the first jump is written, to a static.
    let Some(hook) = (unsafe { HOOK.load(Ordering::Acquire).as_ref() }) else {
        return Verdict { word: 0, done: 0 };
    };
    let (word, answer) = (hook.before)(number, args);
    if word == IN_PLACE {
        return Verdict { word: 0, done: 2 };
    }
    if let Some(answer) = answer {
        *room = answer as usize;
    }
    Verdict {
        word,
        done: answer.is_some().into(),
    }
}

extern "C" fn after(word: usize) {
    // SAFETY: as in `ask`.
    if let Some(hook) = unsafe { HOOK.load(Ordering::Acquire).as_ref() } {
        (hook.after)(word);
    }
}

#[repr(C)]
struct DlInfo {
    file: *const c_char,
    base: *mut c_void,
    name: *const c_char,
    address: *mut c_void,
}

extern "C" {
    fn dladdr1(
        addr: *const c_void,
        info: *mut DlInfo,
        extra: *mut *mut c_void,
        flags: c_int,
    ) -> c_int;
}

/// Address and size of a function of the C library itself.
fn function(handle: *mut c_void, name: &CStr) -> Option<(usize, usize)> {
    const RTLD_DL_SYMENT: c_int = 1;
    let mut info = DlInfo {
        file: core::ptr::null(),
        base: core::ptr::null_mut(),
        name: core::ptr::null(),
        address: core::ptr::null_mut(),
    };
    let mut entry: *mut c_void = core::ptr::null_mut();
    // SAFETY: an open handle and a C string; dladdr1 fills the two, and the
    // symbol entry it points to is part of the loaded library.
    unsafe {
        let at = libc::dlsym(handle, name.as_ptr());
        if at.is_null()
            || dladdr1(at, &raw mut info, &raw mut entry, RTLD_DL_SYMENT) == 0
            || entry.is_null()
        {
            return None;
        }
        let size = (*entry.cast::<libc::Elf64_Sym>()).st_size as usize;
        Some((at.expose_provenance(), size.min(PAGE)))
    }
}

/// The places in libc's functions `names` where system calls of the given
/// numbers are made.
pub fn find(names: &[(&CStr, usize)], sites: &mut [Site; SITES]) -> usize {
    // SAFETY: asks for a library that is loaded already, or for nothing.
    let handle = unsafe { libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return 0;
    }
    let mut count = 0;
    for &(name, number) in names {
        let Some((start, size)) = function(handle, name) else {
            continue;
        };
        // SAFETY: the function's own instructions, mapped readable.
        let code = unsafe {
            core::slice::from_raw_parts(core::ptr::with_exposed_provenance::<u8>(start), size)
        };
        machine::places(code, number, |at| {
            if count < SITES {
                sites[count] = Site {
                    address: start + at,
                    number,
                };
                count += 1;
            }
        });
    }
    // SAFETY: gives back the reference taken above; libc stays.
    unsafe { libc::dlclose(handle) };
    count
}

/// A page of jumps within reach of libc.
#[derive(Clone, Copy)]
pub struct Thunks {
    pub page: usize,
}

impl Thunks {
    /// Writes a thunk for each site. Nothing leads there yet.
    pub fn make(sites: &[Site], numbers: &[(&CStr, usize)], hook: &'static Hook) -> Sys<Self> {
        let near = sites.first().ok_or(Errno::ENOENT)?.address;
        let page = page_near(near)?;
        // SAFETY: the page just mapped, writable and nobody else's.
        let room = unsafe {
            core::slice::from_raw_parts_mut(
                core::ptr::with_exposed_provenance_mut::<u8>(page),
                PAGE,
            )
        };
        machine::fill(room, page, sites, numbers);
        HOOK.store(core::ptr::from_ref(hook).cast_mut(), Ordering::Release);
        if let Err(errno) = held::protect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC) {
            let _ = held::unmap(page, PAGE);
            return Err(errno);
        }
        Ok(Self { page })
    }

    /// Writes the jump of site `i`, if the instruction is still what it was.
    /// The program's threads stand; `standing` is one of them.
    pub fn lead(&self, i: usize, site: &Site, standing: i32) -> Sys<()> {
        // SAFETY: libc's own instructions, mapped readable for ever.
        let now =
            unsafe { *core::ptr::with_exposed_provenance::<[u8; machine::LOOK]>(site.address) };
        if !machine::is_site(&now, site.number) {
            return Err(Errno::EBUSY);
        }
        let jump =
            machine::jump(site.address, machine::thunk(self.page, i)).ok_or(Errno::ERANGE)?;
        let force = || -> Sys<()> {
            let memory = crate::fd::open(c"/proc/self/mem", libc::O_RDWR | libc::O_CLOEXEC, 0)?;
            let done = crate::user::sys::sys!(
                libc::SYS_pwrite64,
                memory.fd(),
                jump.as_ptr(),
                jump.len(),
                site.address
            );
            match done? {
                n if n == jump.len() => Ok(()),
                _ => Err(Errno::EIO),
            }
        };
        // Since Linux 6.12 a kernel may let only a tracer write what is read-only.
        force().or_else(|_| crate::user::sys::trace::write_text(standing, site.address, &jump))
    }
}

/// A fresh page that a jump at `near` and around it reaches.
fn page_near(near: usize) -> Sys<usize> {
    const STEP: usize = 4 << 20;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let near = crate::user::sys::page_down(near);
    let mut distance = STEP;
    while distance < machine::REACH {
        for at in [near.wrapping_sub(distance), near + distance] {
            match held::map(at, PAGE, prot, flags, Fd::NONE, 0) {
                Ok(page) if page == at => return Ok(page),
                // A kernel that takes the address for a hint.
                Ok(page) => {
                    let _ = held::unmap(page, PAGE);
                }
                Err(_) => {}
            }
        }
        distance += STEP;
    }
    Err(Errno::ENOMEM)
}
