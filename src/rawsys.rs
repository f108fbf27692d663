// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one home of raw system calls.
//!
//! The service tasks of the user back end share the program's memory but have
//! no thread-local storage of their own, so they must not touch `errno`; and
//! the allocator, libc's locks and its interposers belong to the program.
//! Everything here enters the kernel directly; the macro answers `-errno`, the
//! functions a `Result`.

use crate::errno::Errno;
use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::time::Duration;

/// Enters the kernel.
///
/// Returns what the kernel returned: `-4095..=-1` is a negated errno.
///
/// # Safety
/// What the system call `nr` does with these arguments must be sound in the
/// caller's process: the kernel reads and writes whatever they point to, and
/// may unmap or replace memory.
#[inline]
pub unsafe fn syscall6(
    nr: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    let ret: isize;
    // SAFETY: the kernel's x86_64 convention: number in rax, arguments in
    // rdi, rsi, rdx, r10, r8, r9, answer in rax, rcx and r11 lost. The effects
    // of the call itself are the caller's promise.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") nr as isize => ret,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    // SAFETY: the kernel's aarch64 convention: number in x8, arguments in
    // x0..x5, answer in x0, everything else preserved. The effects of the call
    // itself are the caller's promise.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") nr,
            inlateout("x0") a as isize => ret,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            in("x4") e,
            in("x5") f,
            options(nostack),
        );
    }
    ret
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("XPMEM is ported to x86_64 and aarch64");

/// Enters the kernel with the given number and up to six arguments, each cast
/// to `usize`. Must stand in an `unsafe` block, like [`syscall6`].
macro_rules! raw_syscall {
    (@pad $nr:expr;) => { $crate::rawsys::syscall6($nr as usize, 0, 0, 0, 0, 0, 0) };
    (@pad $nr:expr; $a:expr) => { $crate::rawsys::syscall6($nr as usize, $a as usize, 0, 0, 0, 0, 0) };
    (@pad $nr:expr; $a:expr, $b:expr) => {
        $crate::rawsys::syscall6($nr as usize, $a as usize, $b as usize, 0, 0, 0, 0)
    };
    (@pad $nr:expr; $a:expr, $b:expr, $c:expr) => {
        $crate::rawsys::syscall6($nr as usize, $a as usize, $b as usize, $c as usize, 0, 0, 0)
    };
    (@pad $nr:expr; $a:expr, $b:expr, $c:expr, $d:expr) => {
        $crate::rawsys::syscall6(
            $nr as usize, $a as usize, $b as usize, $c as usize, $d as usize, 0, 0,
        )
    };
    (@pad $nr:expr; $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => {
        $crate::rawsys::syscall6(
            $nr as usize, $a as usize, $b as usize, $c as usize, $d as usize, $e as usize, 0,
        )
    };
    (@pad $nr:expr; $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        $crate::rawsys::syscall6(
            $nr as usize, $a as usize, $b as usize, $c as usize, $d as usize, $e as usize,
            $f as usize,
        )
    };
    ($nr:expr $(, $arg:expr)* $(,)?) => { $crate::raw_syscall!(@pad $nr; $($arg),*) };
}
pub(crate) use raw_syscall;

/// Turns a raw answer into a value or an errno.
#[inline]
pub fn check(ret: isize) -> Result<usize, Errno> {
    if (-4095..0).contains(&ret) {
        Err(Errno::new(-ret as c_int))
    } else {
        Ok(ret as usize)
    }
}

/// Process id of the caller, as its own PID namespace counts.
#[inline]
pub fn getpid() -> i32 {
    // SAFETY: getpid has no arguments and cannot fail.
    unsafe { raw_syscall!(libc::SYS_getpid) as i32 }
}

/// Id of the calling thread.
#[inline]
pub fn gettid() -> i32 {
    // SAFETY: gettid has no arguments and cannot fail.
    unsafe { raw_syscall!(libc::SYS_gettid) as i32 }
}

/// Gives the processor away for at least `time` (a signal may cut it short).
pub fn sleep(time: Duration) {
    let ts = libc::timespec {
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: time.subsec_nanos().into(),
    };
    // SAFETY: the kernel reads one timespec of this frame; no remainder asked.
    unsafe {
        raw_syscall!(libc::SYS_nanosleep, &raw const ts, 0);
    }
}

/// Copies from any address of this process: EFAULT instead of a crash where
/// nothing readable is mapped.
pub fn peek(addr: usize, into: &mut [MaybeUninit<u8>]) -> Result<(), Errno> {
    let local = iovec(into.as_mut_ptr().addr(), into.len());
    let remote = iovec(addr, into.len());
    // SAFETY: the kernel writes only into the live slice; the other side is
    // read with fault handling.
    let ret = check(unsafe {
        raw_syscall!(
            libc::SYS_process_vm_readv,
            getpid(),
            &raw const local,
            1,
            &raw const remote,
            1,
            0
        )
    });
    match ret {
        Ok(n) if n == into.len() => Ok(()),
        Ok(_) => Err(Errno::EFAULT),
        // A seccomp profile took it away: a pipe copies with fault handling too.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            through_pipe(addr, into.as_mut_ptr().addr(), into.len())
        }
        Err(errno) => Err(errno),
    }
}

/// Copies to any address of this process: EFAULT instead of a crash where
/// nothing writable is mapped.
pub fn poke(addr: usize, from: &[u8]) -> Result<(), Errno> {
    let local = iovec(from.as_ptr().addr(), from.len());
    let remote = iovec(addr, from.len());
    // SAFETY: the kernel reads the live slice; the other side is written with
    // fault handling, on behalf of a caller who handed out that address for it.
    let ret = check(unsafe {
        raw_syscall!(
            libc::SYS_process_vm_writev,
            getpid(),
            &raw const local,
            1,
            &raw const remote,
            1,
            0
        )
    });
    match ret {
        Ok(n) if n == from.len() => Ok(()),
        Ok(_) => Err(Errno::EFAULT),
        Err(Errno::ENOSYS | Errno::EPERM) => through_pipe(from.as_ptr().addr(), addr, from.len()),
        Err(errno) => Err(errno),
    }
}

fn iovec(addr: usize, len: usize) -> libc::iovec {
    libc::iovec {
        iov_base: core::ptr::with_exposed_provenance_mut(addr),
        iov_len: len,
    }
}

/// Copies at most a pipe's worth (`len <= 4096`) from one address to another.
fn through_pipe(from: usize, to: usize, len: usize) -> Result<(), Errno> {
    let mut fds: [c_int; 2] = [-1, -1];
    // SAFETY: the kernel writes two descriptors into the array.
    check(unsafe { raw_syscall!(libc::SYS_pipe2, fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: read and write handle faults; `peek` and `poke` vouch for the
    // side that is a slice, their callers for the other.
    let copied = unsafe {
        check(raw_syscall!(libc::SYS_write, fds[1], from, len))
            .and_then(|written| check(raw_syscall!(libc::SYS_read, fds[0], to, written)))
    };
    for fd in fds {
        // SAFETY: no memory is involved; both were opened here.
        unsafe {
            raw_syscall!(libc::SYS_close, fd);
        }
    }
    match copied {
        Ok(n) if n == len => Ok(()),
        Ok(_) => Err(Errno::EFAULT),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_values_or_errnos() {
        assert_eq!(check(0), Ok(0));
        assert_eq!(check(-1), Err(Errno::EPERM));
        assert_eq!(check(-4095), Err(Errno::new(4095)));
        assert_eq!(check(-4096), Ok(-4096isize as usize));
    }

    #[test]
    fn six_arguments_arrive_in_order() {
        // mmap takes six and refuses each that is wrong.
        // SAFETY: a fresh private mapping, unmapped below by its own address.
        let map = unsafe {
            raw_syscall!(
                libc::SYS_mmap,
                0,
                8192,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1isize,
                0
            )
        };
        let addr = check(map).expect("mmap");
        // SAFETY: unmaps exactly the mapping made above.
        let unmapped = unsafe { raw_syscall!(libc::SYS_munmap, addr, 8192) };
        assert_eq!(check(unmapped), Ok(0));
        assert_eq!(getpid() as u32, std::process::id());
    }

    #[test]
    fn wild_pointers_are_efault() {
        let source = [7u8; 16];
        let mut copy = [MaybeUninit::new(0u8); 16];
        assert_eq!(peek(source.as_ptr().expose_provenance(), &mut copy), Ok(()));
        // SAFETY: initialised above.
        assert_eq!(copy.map(|byte| unsafe { byte.assume_init() }), source);
        let target = copy.as_mut_ptr().expose_provenance();
        assert_eq!(poke(target, &[9; 16]), Ok(()));
        for wild in [0usize, 8, 0xffff_8000_0000_0000, usize::MAX - 3] {
            assert_eq!(peek(wild, &mut copy), Err(Errno::EFAULT), "{wild:#x}");
            assert_eq!(poke(wild, &source), Err(Errno::EFAULT), "{wild:#x}");
        }
        // Read-only memory: a string of the program.
        let constant = "0123456789abcdef".as_ptr().expose_provenance();
        assert_eq!(poke(constant, &source), Err(Errno::EFAULT));
        let from = source.as_ptr().expose_provenance();
        let to = copy.as_mut_ptr().expose_provenance();
        assert_eq!(through_pipe(from, to, 16), Ok(()));
        assert_eq!(through_pipe(8, to, 16), Err(Errno::EFAULT));
        assert_eq!(through_pipe(from, 8, 16), Err(Errno::EFAULT));
        assert_eq!(through_pipe(from, constant, 16), Err(Errno::EFAULT));
    }
}
