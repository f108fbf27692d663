// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mappings, memfds, and what can be done to their pages. What changes memory is
//! `unsafe` here; the service calls it through [`super::held`].

use super::Span;
use super::{owned, sys, Sys};
use crate::errno::Errno;
use crate::fd::{Fd, OwnedFd};
use core::ffi::{c_int, CStr};

/// mmap(2).
///
/// # Safety
/// With `MAP_FIXED` in `flags` no reference of Rust's leads into the range.
pub unsafe fn map(
    addr: usize,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: Fd,
    off: usize,
) -> Sys<usize> {
    sys!(libc::SYS_mmap, addr, len, prot, flags, fd, off)
}

/// munmap(2).
///
/// # Safety
/// No reference of Rust's leads into the range.
pub unsafe fn unmap(addr: usize, len: usize) -> Sys<()> {
    sys!(libc::SYS_munmap, addr, len).map(drop)
}

/// Moves the mapping `[from, from + len)` to `to`, over whatever is there.
///
/// # Safety
/// No reference of Rust's leads into either range.
pub unsafe fn move_over(from: usize, len: usize, to: usize) -> Sys<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    sys!(libc::SYS_mremap, from, len, len, flags, to).map(drop)
}

/// Since Linux 5.7; of mappings that are not private anonymous ones since 5.13.
pub const MREMAP_DONTUNMAP: c_int = 4;

/// Makes a mapping at `to` that has the flags of the one at `from` and nothing
/// else of it; that one stays, without what it holds in `[from, from + len)`, and
/// is not locked any more.
///
/// # Safety
/// No reference of Rust's leads into either range.
pub unsafe fn imitate(from: usize, len: usize, to: usize) -> Sys<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | MREMAP_DONTUNMAP;
    sys!(libc::SYS_mremap, from, len, len, flags, to).map(drop)
}

/// Whether a range has been sealed (`mseal`, Linux 6.10): nothing can take its
/// place. The kernel refuses even a change that changes nothing.
pub fn is_sealed(addr: usize, len: usize) -> bool {
    sys!(libc::SYS_mremap, addr, len, len, 0, 0) == Err(Errno::EPERM)
}

/// mprotect(2).
///
/// # Safety
/// No reference of Rust's leads into the range.
pub unsafe fn protect(addr: usize, len: usize, prot: c_int) -> Sys<()> {
    sys!(libc::SYS_mprotect, addr, len, prot).map(drop)
}

/// madvise(2).
///
/// # Safety
/// No reference of Rust's leads into the range, or the advice changes nothing that it holds.
pub unsafe fn advise(addr: usize, len: usize, advice: c_int) -> Sys<()> {
    sys!(libc::SYS_madvise, addr, len, advice).map(drop)
}

/// madvise(2) that changes nothing that a range holds.
fn advise_kindly(addr: usize, len: usize, advice: c_int) -> Sys<()> {
    // SAFETY: whoever looks there sees what was there before.
    unsafe { advise(addr, len, advice) }
}

/// Makes a huge page of the pages of a range that is aligned to one (Linux 6.1).
pub fn collapse(addr: usize, len: usize) -> Sys<()> {
    const MADV_COLLAPSE: c_int = 25;
    // Somebody may be looking at one of the pages.
    const TRIES: u32 = 4;
    super::task::beat();
    let mut done = advise_kindly(addr, len, MADV_COLLAPSE);
    for _ in 1..TRIES {
        if done != Err(Errno::EAGAIN) {
            break;
        }
        done = advise_kindly(addr, len, MADV_COLLAPSE);
    }
    done
}

/// Unmaps the pages of a shared mapping of a file, also of a locked one; the
/// file keeps them.
///
/// # Safety
/// No reference of Rust's leads into the range.
pub unsafe fn drop_pages(addr: usize, len: usize) -> Sys<()> {
    const MADV_DONTNEED_LOCKED: c_int = 24;
    // SAFETY: the caller's word.
    unsafe { advise(addr, len, MADV_DONTNEED_LOCKED) }
}

/// Whether the memory around `addr` is locked. It is not looked for in smaps,
/// which walks every page of the process: the kernel refuses an advice about
/// locked memory that does little harm to the one page elsewhere (and about
/// devices and huge pages, which never come here).
pub fn is_locked(addr: usize) -> bool {
    const MADV_COLD: c_int = 20;
    advise_kindly(super::page_down(addr), super::PAGE, MADV_COLD) == Err(Errno::EINVAL)
}

/// Locks the pages that a range has, and others when they come.
pub fn lock(addr: usize, len: usize) -> Sys<()> {
    const MLOCK_ONFAULT: c_int = 1;
    sys!(libc::SYS_mlock2, addr, len, MLOCK_ONFAULT).map(drop)
}

/// munlock(2).
pub fn unlock(addr: usize, len: usize) -> Sys<()> {
    sys!(libc::SYS_munlock, addr, len).map(drop)
}

/// memfd_create(2), closed on exec, open for sealing.
pub fn memfd(name: &CStr) -> Sys<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    sys!(libc::SYS_memfd_create, name.as_ptr(), flags).map(owned)
}

/// ftruncate(2).
pub fn set_size(fd: Fd, size: usize) -> Sys<()> {
    sys!(libc::SYS_ftruncate, fd, size).map(drop)
}

/// Forbids anybody to make the file smaller or larger, or to add other seals: with
/// one against writing no page could be taken back.
pub fn seal_size(fd: Fd) -> Sys<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    sys!(libc::SYS_fcntl, fd, libc::F_ADD_SEALS, seals).map(drop)
}

/// Opens a file of the caller's once more, with a position and flags of its own.
pub fn open_again(fd: Fd, flags: c_int) -> Sys<OwnedFd> {
    let mut path = [0u8; 32];
    let path = super::procfs::descriptor_path(&mut path, fd);
    crate::fd::open(path, flags | libc::O_CLOEXEC, 0)
}

/// The seals of a memfd; EINVAL for any other file.
pub fn seals(fd: Fd) -> Sys<c_int> {
    sys!(libc::SYS_fcntl, fd, libc::F_GET_SEALS).map(|s| s as c_int)
}

/// Removes `[off, off + len)` of the file from the file and from every
/// process that maps it, before it returns. Who writes there meanwhile may lose that.
pub fn punch(fd: Fd, off: usize, len: usize) -> Sys<()> {
    if next_data(fd, off, off.saturating_add(len)).is_none() {
        // Nobody has a page of it mapped either, and looking for that takes long
        // where many map the file.
        return Ok(());
    }
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // A part of a huge page stays, with zeros in it, where the kernel cannot split the
    // page: somebody looks at it, or a processor has not put it into its list yet.
    const TRIES: u32 = 100;
    for _ in 0..TRIES {
        super::insist(|| sys!(libc::SYS_fallocate, fd, mode, off, len).map(drop))?;
        if next_data(fd, off, off.saturating_add(len)).is_none() {
            return Ok(());
        }
        super::task::beat();
        crate::rawsys::sleep(core::time::Duration::from_micros(100));
    }
    Ok(())
}

/// Gives shared memory that can be read pages where its file has none. Not by
/// fallocate(2): its pages count as holes for `SEEK_DATA` until they are touched.
pub fn populate(addr: usize, len: usize) -> Sys<()> {
    const MADV_POPULATE_READ: c_int = 22;
    advise_kindly(addr, len, MADV_POPULATE_READ)
}

/// Most bytes that are read or written between two signs of life.
const AT_A_TIME: usize = 64 << 20;

/// Has `step` move `len` bytes; it is told how many are done and how many it may move,
/// and answers how many it has.
fn move_all(len: usize, step: impl Fn(usize, usize) -> Sys<usize>) -> Sys<()> {
    let mut done = 0;
    while done < len {
        super::task::beat();
        match step(done, (len - done).min(AT_A_TIME))? {
            0 => return Err(Errno::EIO),
            n => done += n,
        }
    }
    Ok(())
}

/// Writes `len` bytes at address `from` of this process to `off` of the file.
/// EFAULT where the memory cannot be read.
pub fn write_from(fd: Fd, from: usize, len: usize, off: usize) -> Sys<()> {
    move_all(len, |done, part| {
        sys!(libc::SYS_pwrite64, fd, from + done, part, off + done)
    })
}

/// Reads `len` bytes at `off` of the file to address `to` of this process.
///
/// # Safety
/// No reference of Rust's leads into the range.
pub unsafe fn read_into(fd: Fd, to: usize, len: usize, off: usize) -> Sys<()> {
    move_all(len, |done, part| {
        sys!(libc::SYS_pread64, fd, to + done, part, off + done)
    })
}

/// The next run of pages that the file has in `[from, end)`.
pub fn next_data(fd: Fd, from: usize, end: usize) -> Option<Span> {
    if from >= end {
        return None;
    }
    let seek = |from: usize, what: c_int| {
        // Pages must not seem absent because the question was refused.
        super::insist(|| match sys!(libc::SYS_lseek, fd, from, what) {
            Err(Errno::ENXIO) => Ok(None),
            answer => answer.map(Some),
        })
    };
    let start = seek(from, libc::SEEK_DATA).unwrap_or(Some(from))?;
    if start >= end {
        return None;
    }
    let stop = seek(start, libc::SEEK_HOLE).ok().flatten().unwrap_or(end);
    Some(Span::new(
        super::page_down(start),
        super::page_up(stop).min(end),
    ))
}

/// Device and inode of an open file, as /proc/PID/maps counts them, and its size.
pub fn identity(fd: Fd) -> Sys<(u64, u64, u64)> {
    let stat = super::file::stat(fd)?;
    Ok((stat.st_dev, stat.st_ino, stat.st_size as u64))
}

/// Touches one byte of our memory for reading, as a load would: below a stack
/// that makes it grow. An address that cannot be touched is EFAULT and no crash.
///
/// The kernel reads it as a file name. process_vm_readv does not do: since
/// Linux 6.5 only a fault of the address space's own user grows a stack.
pub fn touch(addr: usize) -> Sys<()> {
    let name: *const u8 = core::ptr::with_exposed_provenance(addr);
    match sys!(libc::SYS_faccessat, libc::AT_FDCWD, name, 0) {
        Err(Errno::EFAULT) => Err(Errno::EFAULT),
        _ => Ok(()),
    }
}

/// Copies `len` bytes at `off` of a file to the same address of process `pid`.
pub fn copy_file_to_process(fd: Fd, pid: i32, off: usize, len: usize) -> Sys<()> {
    const WINDOW: usize = 16 << 20;
    let mut done = 0;
    while done < len {
        let part = (len - done).min(WINDOW);
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: the kernel finds a place where nothing is.
        let from = unsafe { map(0, part, libc::PROT_READ, flags, fd, off + done) }?;
        let copied = copy_to_process(pid, from, off + done, part);
        // SAFETY: it is the mapping just made, and no reference has led there.
        super::insist(|| unsafe { unmap(from, part) })?;
        copied?;
        done += part;
    }
    Ok(())
}

/// One process_vm_writev(2) of `len` bytes at `from` of this process to `to` of `pid`;
/// answers how many it has written.
fn write_process(pid: i32, from: usize, to: usize, len: usize) -> Sys<usize> {
    let part = |at: usize| libc::iovec {
        iov_base: core::ptr::with_exposed_provenance_mut(at),
        iov_len: len,
    };
    let (local, remote) = (part(from), part(to));
    sys!(
        libc::SYS_process_vm_writev,
        pid,
        &raw const local,
        1,
        &raw const remote,
        1,
        0
    )
}

/// Copies `len` bytes at `from` of this process to `to` of `pid`.
fn copy_to_process(pid: i32, from: usize, to: usize, len: usize) -> Sys<()> {
    let mut done = 0;
    while done < len {
        let n = write_process(pid, from + done, to + done, len - done)?;
        if n == 0 {
            return Err(Errno::EFAULT);
        }
        done += n;
    }
    Ok(())
}

/// Writes one 32-bit word at `addr` of `pid`.
pub fn poke_word(pid: i32, addr: usize, word: u32) -> Sys<()> {
    let from = (&raw const word).expose_provenance();
    write_process(pid, from, addr, core::mem::size_of_val(&word)).map(drop)
}

/// Reads `len <= 256` bytes at `addr` of `pid` into `into`.
pub fn peek_process(pid: i32, addr: usize, into: &mut [u8]) -> Sys<()> {
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let remote = libc::iovec {
        iov_base: core::ptr::with_exposed_provenance_mut(addr),
        iov_len: into.len(),
    };
    match sys!(
        libc::SYS_process_vm_readv,
        pid,
        &raw const local,
        1,
        &raw const remote,
        1,
        0
    )? {
        n if n == into.len() => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Where the heap of the process ends.
pub fn program_break() -> usize {
    sys!(libc::SYS_brk, 0).unwrap_or(0)
}

/// How long a System V segment is.
pub fn sysv_size(id: i32) -> Sys<usize> {
    let mut about = core::mem::MaybeUninit::<libc::shmid_ds>::zeroed();
    sys!(libc::SYS_shmctl, id, libc::IPC_STAT, about.as_mut_ptr())?;
    // SAFETY: all-zero is a valid description and the kernel has filled it.
    Ok(unsafe { about.assume_init() }.shm_segsz)
}

/// Faults a page in as a write would: it becomes the program's own, if a fork
/// child had it too. EFAULT where it must not be written.
pub fn unshare(addr: usize) -> Sys<()> {
    const MADV_POPULATE_WRITE: c_int = 23;
    advise_kindly(addr, super::PAGE, MADV_POPULATE_WRITE)
}

/// Copies one page between two places that do not overlap.
///
/// # Safety
/// Both are mapped, the second writable, no reference of Rust's leads into it, and
/// nobody writes to either meanwhile.
pub unsafe fn copy_page(from: usize, to: usize) {
    // SAFETY: the caller's word.
    unsafe {
        core::ptr::copy_nonoverlapping(
            core::ptr::with_exposed_provenance::<u8>(from),
            core::ptr::with_exposed_provenance_mut::<u8>(to),
            super::PAGE,
        );
    }
}

/// Whether two pages hold the same.
///
/// # Safety
/// Both are mapped and readable, and nobody writes to them meanwhile.
pub unsafe fn same_page(a: usize, b: usize) -> bool {
    // SAFETY: the caller's word.
    let page = |addr: usize| unsafe {
        core::slice::from_raw_parts(core::ptr::with_exposed_provenance::<u8>(addr), super::PAGE)
    };
    page(a) == page(b)
}
