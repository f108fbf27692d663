// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stepping in front of system calls that libc makes.
//!
//! The wrappers of libc end in `mov $number, %eax; syscall`, with the arguments
//! in their registers. The first of these two instructions has five bytes, just
//! what a jump needs: nobody can be in the middle of it, and nothing else of
//! libc changes. The jump leads to a thunk near libc and on to `common`, which
//! asks [`Hook::before`], makes the system call, tells [`Hook::after`], and goes
//! back behind the `syscall` instruction. So libc's own callers (its allocator,
//! its threads) are met as well, and errno and the like stay libc's business.
//!
//! A wrapper that looks different, because another library has put its own
//! jump there, is left alone.

#[cfg(target_arch = "x86_64")]
pub use x86_64::{find, Site, Thunks};

/// What is called around a hooked system call, in the program's own threads.
pub struct Hook {
    /// Number and arguments; answers a word for `after`, and what the system
    /// call answers where it has been taken care of.
    pub before: fn(usize, [usize; 6]) -> (usize, Option<isize>),
    /// The word that `before` answered, unless it was 0.
    pub after: fn(usize),
}

/// Most places that can be hooked.
pub const SITES: usize = 16;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::super::{mem, sys, Sys, PAGE};
    use super::{Hook, SITES};
    use core::ffi::{c_char, c_int, c_void, CStr};
    use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

    /// One `mov $number, %eax; syscall` of libc.
    #[derive(Clone, Copy, Default)]
    pub struct Site {
        pub address: usize,
        pub number: usize,
    }

    static HOOK: AtomicPtr<Hook> = AtomicPtr::new(core::ptr::null_mut());
    /// Of each site: the address behind its `syscall`.
    static RETURNS: [AtomicUsize; SITES] = [const { AtomicUsize::new(0) }; SITES];

    const THUNK: usize = 32;

    #[repr(C)]
    struct Verdict {
        word: usize,
        /// Whether an answer has been put in the place of the system call's.
        done: usize,
    }

    /// Called by [`common`] with the site, room for an answer and, behind that,
    /// the saved registers r9, r8, r10, rdx, rsi, rdi.
    extern "C" fn before(site: usize, frame: *mut [usize; 7]) -> Verdict {
        // SAFETY: set once, before the first jump is written, to a static.
        let hook = unsafe { HOOK.load(Ordering::Acquire).as_ref() };
        // SAFETY: points to the seven words that `common` has just pushed.
        let [room, f, e, d, c, b, a] = unsafe { &mut *frame };
        match hook {
            Some(hook) => {
                let (word, answer) = (hook.before)(site & 0xffff, [*a, *b, *c, *d, *e, *f]);
                if let Some(answer) = answer {
                    *room = answer as usize;
                }
                Verdict {
                    word,
                    done: answer.is_some().into(),
                }
            }
            None => Verdict { word: 0, done: 0 },
        }
    }

    extern "C" fn after(word: usize) {
        // SAFETY: as in `before`.
        if let Some(hook) = unsafe { HOOK.load(Ordering::Acquire).as_ref() } {
            (hook.after)(word);
        }
    }

    // On entry the stack holds the site (number | index << 16) and below it the
    // red zone of the interrupted function, skipped by the thunk. Everything
    // that the kernel preserves over a system call is preserved here.
    core::arch::global_asm!(
        ".balign 16",
        ".type {common}, @function",
        "{common}:",
        "push rbp",
        "mov rbp, rsp",
        "push rbx",
        "push rdi",
        "push rsi",
        "push rdx",
        "push r10",
        "push r8",
        "push r9",
        "push 0",
        "mov rdi, [rbp + 8]",
        "mov rsi, rsp",
        "and rsp, -16",
        "call {before}",
        "mov rbx, rax",
        "mov rcx, rdx",
        "mov r9, [rbp - 56]",
        "mov r8, [rbp - 48]",
        "mov r10, [rbp - 40]",
        "mov rdx, [rbp - 32]",
        "mov rsi, [rbp - 24]",
        "mov rdi, [rbp - 16]",
        "mov rax, [rbp - 64]",
        "test rcx, rcx",
        "jnz 2f",
        "movzx eax, word ptr [rbp + 8]",
        "syscall",
        "2:",
        "test rbx, rbx",
        "jz 3f",
        "lea rsp, [rbp - 80]",
        "mov [rbp - 64], rax",
        "and rsp, -16",
        "mov rdi, rbx",
        "call {after}",
        "mov rax, [rbp - 64]",
        "mov r9, [rbp - 56]",
        "mov r8, [rbp - 48]",
        "mov r10, [rbp - 40]",
        "mov rdx, [rbp - 32]",
        "mov rsi, [rbp - 24]",
        "mov rdi, [rbp - 16]",
        "3:",
        "mov rbx, [rbp - 8]",
        "mov r11, [rbp + 8]",
        "shr r11, 16",
        "lea rcx, [rip + {returns}]",
        "mov r11, [rcx + r11 * 8]",
        "mov rsp, rbp",
        "pop rbp",
        "lea rsp, [rsp + 136]",
        "jmp r11",
        ".size {common}, . - {common}",
        common = sym common,
        before = sym before,
        after = sym after,
        returns = sym RETURNS,
    );

    extern "C" {
        fn common();
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
    pub fn find(names: &[(&CStr, libc::c_long)], sites: &mut [Site; SITES]) -> usize {
        // SAFETY: asks for a library that is loaded already, or for nothing.
        let handle =
            unsafe { libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
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
            let wanted = [0xb8, number as u8, 0, 0, 0, 0x0f, 0x05];
            for at in 0..size.saturating_sub(wanted.len() - 1) {
                if code[at..at + wanted.len()] == wanted && count < SITES {
                    sites[count] = Site {
                        address: start + at,
                        number: number as usize,
                    };
                    count += 1;
                }
            }
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
        pub fn make(sites: &[Site], hook: &'static Hook) -> Sys<Self> {
            let near = sites.first().ok_or(libc::ENOENT)?.address;
            let page = page_near(near)?;
            let write = |at: usize, bytes: &[u8]| {
                // SAFETY: within the page just mapped writable.
                unsafe {
                    core::ptr::copy_nonoverlapping(
                        bytes.as_ptr(),
                        core::ptr::with_exposed_provenance_mut(page + at),
                        bytes.len(),
                    );
                }
            };
            for (i, site) in sites.iter().enumerate() {
                RETURNS[i].store(site.address + 7, Ordering::Release);
                let word = (site.number | i << 16) as u32;
                // lea rsp, [rsp - 128]; push site; jmp [rip]; address
                write(i * THUNK, &[0x48, 0x8d, 0x64, 0x24, 0x80, 0x68]);
                write(i * THUNK + 6, &word.to_le_bytes());
                write(i * THUNK + 10, &[0xff, 0x25, 0, 0, 0, 0]);
                write(
                    i * THUNK + 16,
                    &(common as *const () as usize).to_le_bytes(),
                );
            }
            HOOK.store(core::ptr::from_ref(hook).cast_mut(), Ordering::Release);
            if let Err(errno) = mem::protect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC) {
                let _ = mem::unmap(page, PAGE);
                return Err(errno);
            }
            Ok(Self { page })
        }

        /// Writes the jump of site `i`, if the instruction is still what it
        /// was. The program's threads stand.
        pub fn lead(&self, i: usize, site: &Site) -> Sys<()> {
            let wanted = [0xb8, site.number as u8, 0, 0, 0, 0x0f, 0x05];
            // SAFETY: libc's own instructions, mapped readable for ever.
            let now = unsafe { *core::ptr::with_exposed_provenance::<[u8; 7]>(site.address) };
            if now != wanted {
                return Err(libc::EBUSY);
            }
            let distance = (self.page + i * THUNK) as i64 - (site.address as i64 + 5);
            let distance = i32::try_from(distance)
                .map_err(|_| libc::ERANGE)?
                .to_le_bytes();
            let jump = [0xe9, distance[0], distance[1], distance[2], distance[3]];
            let fd = crate::rawsys::open(c"/proc/self/mem", libc::O_RDWR | libc::O_CLOEXEC, 0)?;
            let done = sys!(
                libc::SYS_pwrite64,
                fd,
                jump.as_ptr(),
                jump.len(),
                site.address
            );
            crate::rawsys::close(fd);
            match done? {
                5 => Ok(()),
                _ => Err(libc::EIO),
            }
        }
    }

    /// A fresh page at most 1 GiB from `near`.
    fn page_near(near: usize) -> Sys<usize> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let near = super::super::page_down(near);
        let mut distance = 4 << 20;
        while distance < 1 << 30 {
            for at in [near.wrapping_sub(distance), near + distance] {
                match mem::map(at, PAGE, prot, flags, -1, 0) {
                    Ok(page) if page == at => return Ok(page),
                    // A kernel that takes the address for a hint.
                    Ok(page) => {
                        let _ = mem::unmap(page, PAGE);
                    }
                    Err(_) => {}
                }
            }
            distance += 4 << 20;
        }
        Err(libc::ENOMEM)
    }
}
