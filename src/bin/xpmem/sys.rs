// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tool asks of the system: every `unsafe` block of it is here.

use memmap2::MmapMut;
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::mman::{mmap_anonymous, munmap, MapFlags, ProtFlags};
use nix::sys::ptrace;
use nix::sys::resource::{getrlimit, setrlimit, Resource, RLIM_INFINITY};
use nix::sys::signal::{signal, SigHandler, Signal};
use nix::sys::uio::{process_vm_readv, RemoteIoVec};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::{fork, ftruncate, getpid, sysconf, ForkResult, Pid, SysconfVar};
use std::io::{self, IoSliceMut};
use std::num::NonZeroUsize;
use std::ptr::NonNull;

/// Restores SIGPIPE's default action, which Rust's runtime takes away.
pub fn default_sigpipe() {
    // SAFETY: the default action is no handler, so no code can run on the signal.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

/// A crash of this process leaves no core file.
pub fn no_core_file() {
    // Lowering a limit is always allowed.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
}

pub fn effective_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// A memfd as large as the user part of the address space.
pub fn sparse_memfd(size: i64) -> io::Result<()> {
    let fd = memfd_create(c"", MFdFlags::MFD_CLOEXEC)?;
    // RLIMIT_FSIZE would end the process by SIGXFSZ, not only refuse.
    // SAFETY: ignoring is no handler; the old action is put back below.
    let old = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    let result = ftruncate(&fd, size);
    // SAFETY: `old` is what signal() returned above.
    unsafe { signal(Signal::SIGXFSZ, old) }?;
    Ok(result?)
}

/// The soft limit on file sizes; `None` when there is none.
pub fn file_size_limit() -> io::Result<Option<u64>> {
    let (soft, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
    Ok((soft != RLIM_INFINITY).then_some(soft))
}

/// Forks; the child runs `body` and ends with its answer (0..=125) as status.
/// Returns that status, or an error when the child could not be made or crashed.
///
/// `body` runs in a copy of a process with one thread, so it may do what any
/// program may.
pub fn in_child(body: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: the tool has one thread wherever it calls this, so the child
    // inherits no lock that a vanished thread holds.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let status = body();
            // SAFETY: ends this process and runs nothing else.
            unsafe { libc::_exit(status) }
        }
    };
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(status),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return Err(io::Error::other(format!(
                    "the child that tried it died of {signal}"
                )))
            }
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a child may stop a thread of this process: it seizes the calling
/// thread, interrupts it, sees it stop, and lets it go.
pub fn ptrace_own_threads() -> io::Result<()> {
    let target = getpid();
    // What the library does where Yama restricts ptrace to named tracers.
    // SAFETY: PR_SET_PTRACER takes numbers; refused where there is no Yama.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
    let outcome = in_child(|| seize_and_stop(target).map_or_else(|errno| errno as i32, |()| 0));
    // SAFETY: as above; 0 takes the permission back.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, 0, 0, 0, 0) };
    match outcome? {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// The target is the parent, which waits for us.
fn seize_and_stop(target: Pid) -> nix::Result<()> {
    ptrace::seize(target, ptrace::Options::empty())?;
    ptrace::interrupt(target)?;
    waitpid(target, Some(WaitPidFlag::__WALL))?;
    ptrace::detach(target, None)
}

/// Reads another process's memory with process_vm_readv, whole or not at all.
pub fn read_process(pid: i32, address: usize, into: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < into.len() {
        let left = &mut into[done..];
        let remote = RemoteIoVec {
            base: address + done,
            len: left.len(),
        };
        let read = process_vm_readv(Pid::from_raw(pid), &mut [IoSliceMut::new(left)], &[remote])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        done += read;
    }
    Ok(())
}

pub fn page_size() -> usize {
    match sysconf(SysconfVar::PAGE_SIZE) {
        Ok(Some(size)) => size as usize,
        _ => 4096,
    }
}

/// Memory that is reached through a pointer alone: our own mapping, or an
/// attachment of another process's memory, which changes under our feet.
pub struct Memory {
    start: NonNull<u8>,
    len: usize,
}

impl Memory {
    /// Memory that an attachment returned.
    ///
    /// A touch of it may end the process by SIGBUS when its owner unmaps it,
    /// which is what the demo shows; it is never somebody else's memory here.
    pub fn attached(address: usize, len: usize) -> Option<Self> {
        NonNull::new(address as *mut u8).map(|start| Self { start, len })
    }

    pub fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    pub fn len(&self) -> usize {
        self.len
    }

    fn word(&self, index: usize) -> *mut u64 {
        assert!(index < self.len / 8);
        // SAFETY: the assertion keeps the word inside the memory.
        unsafe { self.start.as_ptr().cast::<u64>().add(index) }
    }

    pub fn read_word(&self, index: usize) -> u64 {
        // SAFETY: word() returns an aligned address inside mapped memory; volatile since others write it.
        unsafe { self.word(index).read_volatile() }
    }

    pub fn write_word(&self, index: usize, value: u64) {
        // SAFETY: as in read_word.
        unsafe { self.word(index).write_volatile(value) }
    }

    /// Copies `into.len()` bytes from `offset`.
    pub fn copy_out(&self, offset: usize, into: &mut [u8]) {
        assert!(offset
            .checked_add(into.len())
            .is_some_and(|end| end <= self.len));
        // SAFETY: the assertion bounds the source; `into` is another object. Bytes have no
        // invalid value, and the protocol of the demo lets nobody write meanwhile.
        unsafe {
            self.start
                .as_ptr()
                .add(offset)
                .copy_to_nonoverlapping(into.as_mut_ptr(), into.len())
        }
    }
}

/// Private anonymous memory of ours, unmapped at the end.
pub struct Mapping {
    map: MmapMut,
    memory: Memory,
}

impl std::ops::Deref for Mapping {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}

impl Mapping {
    pub fn anonymous(len: usize) -> io::Result<Self> {
        let mut map = MmapMut::map_anon(len)?;
        let start = NonNull::new(map.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            map,
            memory: Memory { start, len },
        })
    }

    /// Unmaps the memory and maps fresh memory in its place.
    pub fn replace(&mut self) -> io::Result<()> {
        let start = self.start.cast();
        let place = NonZeroUsize::new(self.address()).ok_or(io::ErrorKind::InvalidInput)?;
        let length = NonZeroUsize::new(self.len()).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
        // SAFETY: the range is this object's, and nothing borrows it. `map` is the
        // owner of what is mapped there next: the same range, unmapped once.
        // Nobody else in this process maps memory in between; MAP_FIXED_NOREPLACE
        // refuses if somebody did.
        unsafe {
            munmap(start, length.get())?;
            mmap_anonymous(Some(place), length, access, flags)?;
        }
        Ok(())
    }

    /// Unmaps the memory; what it was exported as is a hole now.
    pub fn unmap(self) {
        drop(self.map);
    }
}
