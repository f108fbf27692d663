// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls of the tool: every `unsafe` block of it is here.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

fn check(result: i64) -> io::Result<i64> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(result: i64) -> io::Result<OwnedFd> {
    let fd = check(result)? as i32;
    // SAFETY: the kernel has just handed out this descriptor, to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Restores SIGPIPE's default action, which Rust's runtime takes away.
pub fn default_sigpipe() {
    // SAFETY: SIG_DFL is no handler, so no code can run on the signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// A crash of this process leaves no core file.
pub fn no_core_file() {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: setrlimit reads one struct rlimit. Lowering a limit is always allowed.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
}

pub fn effective_uid() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

pub fn parent_pid() -> i32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::getppid() }
}

/// Opens a userfaultfd; `flags` as userfaultfd(2) takes them.
pub fn userfaultfd(flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes an integer and answers a descriptor.
    owned(unsafe { libc::syscall(libc::SYS_userfaultfd, flags | libc::O_CLOEXEC) })
}

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// The features that a fresh userfaultfd offers (UFFDIO_API), as a bit mask.
pub fn userfaultfd_features(uffd: &OwnedFd) -> io::Result<u64> {
    const UFFD_API: u64 = 0xaa;
    const UFFDIO_API: u64 = 0xc018_aa3f;
    let mut api = UffdioApi {
        api: UFFD_API,
        features: 0,
        ioctls: 0,
    };
    // SAFETY: UFFDIO_API reads and writes one struct uffdio_api, which `api` is.
    check(i64::from(unsafe {
        libc::ioctl(uffd.as_raw_fd(), UFFDIO_API as _, &mut api)
    }))?;
    Ok(api.features)
}

#[repr(C)]
#[derive(Default)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// Scans one page of this process with PAGEMAP_SCAN.
pub fn pagemap_scan() -> io::Result<()> {
    const PAGEMAP_SCAN: u64 = 0xc060_6610;
    const PAGE_IS_PRESENT: u64 = 1 << 3;
    let pagemap = std::fs::File::open("/proc/self/pagemap")?;
    let page = Mapping::anonymous(page_size())?;
    let start = page.address() as u64;
    let mut region = [0u64; 3];
    let mut arg = PmScanArg {
        size: size_of::<PmScanArg>() as u64,
        start,
        end: start + page.len() as u64,
        vec: region.as_mut_ptr() as u64,
        vec_len: 1,
        category_mask: PAGE_IS_PRESENT,
        return_mask: PAGE_IS_PRESENT,
        ..PmScanArg::default()
    };
    // SAFETY: `arg` is a struct pm_scan_arg whose vec has room for the one region it announces.
    check(i64::from(unsafe {
        libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN as _, &mut arg)
    }))?;
    Ok(())
}

#[repr(C)]
#[derive(Default)]
struct ProcmapQuery {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

/// Asks for the mapping that holds one of our own pages with PROCMAP_QUERY.
pub fn procmap_query() -> io::Result<()> {
    const PROCMAP_QUERY: u64 = 0xc068_6611;
    let maps = std::fs::File::open("/proc/self/maps")?;
    let page = Mapping::anonymous(page_size())?;
    let mut query = ProcmapQuery {
        size: size_of::<ProcmapQuery>() as u64,
        query_addr: page.address() as u64,
        ..ProcmapQuery::default()
    };
    // SAFETY: `query` is a struct procmap_query that asks for no name and no build id.
    check(i64::from(unsafe {
        libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY as _, &mut query)
    }))?;
    if query.vma_start <= query.query_addr && query.query_addr < query.vma_end {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EIO))
    }
}

/// A memfd as large as the user part of the address space.
pub fn sparse_memfd(size: i64) -> io::Result<()> {
    let name = CString::default();
    // SAFETY: `name` is a C string that outlives the call.
    let fd = owned(i64::from(unsafe {
        libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC)
    }))?;
    // RLIMIT_FSIZE would end the process by SIGXFSZ, not only refuse.
    // SAFETY: SIG_IGN is no handler; the old action is put back below.
    let old = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    // SAFETY: an open descriptor of ours and a number.
    let result = check(i64::from(unsafe { libc::ftruncate(fd.as_raw_fd(), size) }));
    // SAFETY: `old` is what signal() answered above.
    unsafe { libc::signal(libc::SIGXFSZ, old) };
    result.map(|_| ())
}

/// The soft limit on file sizes; `None` when there is none.
pub fn file_size_limit() -> io::Result<Option<u64>> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes one struct rlimit.
    check(i64::from(unsafe {
        libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit)
    }))?;
    Ok((limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur))
}

/// Forks; the child runs `body` and ends with its answer (0..=125) as status.
/// Answers that status, or an error when the child could not be made or crashed.
///
/// `body` runs in a copy of a process with one thread, so it may do what any
/// program may.
pub fn in_child(body: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: the tool has one thread wherever it calls this, so the child
    // inherits no lock that a vanished thread holds.
    let pid = check(i64::from(unsafe { libc::fork() }))? as i32;
    if pid == 0 {
        let status = body();
        // SAFETY: ends this process and runs nothing else.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    loop {
        // SAFETY: waitpid writes one int.
        let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
        if waited == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    if libc::WIFEXITED(status) {
        Ok(libc::WEXITSTATUS(status))
    } else {
        Err(io::Error::other(format!(
            "the child that tried it died of signal {}",
            libc::WTERMSIG(status)
        )))
    }
}

/// Whether a child may stop a thread of this process: it seizes the calling
/// thread, interrupts it, sees it stop, and lets it go.
pub fn ptrace_own_threads() -> io::Result<()> {
    let target = std::process::id() as i32;
    // What the library does where Yama restricts ptrace to named tracers.
    // SAFETY: PR_SET_PTRACER takes numbers; refused where there is no Yama.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
    let outcome = in_child(|| {
        seize_and_stop(target).map_or_else(|error| error.raw_os_error().unwrap_or(125), |()| 0)
    });
    // SAFETY: as above; 0 takes the permission back.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, 0, 0, 0, 0) };
    match outcome? {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn seize_and_stop(target: i32) -> io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests take no pointer. The target is the parent, which waits for us.
    check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, target, none, none) })?;
    // SAFETY: as above.
    check(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, target, none, none) })?;
    let mut status = 0;
    // SAFETY: waitpid writes one int.
    check(i64::from(unsafe {
        libc::waitpid(target, &mut status, libc::__WALL)
    }))?;
    // SAFETY: as above; the target is stopped.
    check(unsafe { libc::ptrace(libc::PTRACE_DETACH, target, none, none) })?;
    Ok(())
}

/// Reads another process's memory with process_vm_readv, whole or not at all.
pub fn read_process(pid: i32, address: usize, into: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < into.len() {
        let left = &mut into[done..];
        let local = libc::iovec {
            iov_base: left.as_mut_ptr().cast(),
            iov_len: left.len(),
        };
        let remote = libc::iovec {
            iov_base: (address + done) as *mut _,
            iov_len: left.len(),
        };
        // SAFETY: the local range is `left`, which is ours to write; the remote one is the kernel's to check.
        let n = check(unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) } as i64)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        done += n as usize;
    }
    Ok(())
}

pub fn page_size() -> usize {
    // SAFETY: takes a number.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Memory that is reached through a pointer alone: our own mapping, or an
/// attachment of another process's memory, which changes under our feet.
pub struct Memory {
    start: NonNull<u8>,
    len: usize,
}

impl Memory {
    /// Memory that an attachment answered.
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
        // SAFETY: word() answers an aligned address inside mapped memory; volatile since others write it.
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
        // SAFETY: a new mapping at a place of the kernel's choice disturbs nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            memory: Memory { start, len },
        })
    }

    /// Unmaps the memory and maps fresh memory in its place.
    pub fn replace(&mut self) -> io::Result<()> {
        self.unmap_only()?;
        // SAFETY: the range was ours until the line above, and nobody else in this
        // process maps memory in between; MAP_FIXED_NOREPLACE refuses if somebody did.
        let start = unsafe {
            libc::mmap(
                self.start.as_ptr().cast(),
                self.len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn unmap_only(&self) -> io::Result<()> {
        // SAFETY: the range is this object's mapping; callers map it again or forget the object.
        check(i64::from(unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.len)
        }))
        .map(|_| ())
    }

    /// Unmaps the memory; answers the address that is empty now.
    pub fn unmap(self) -> io::Result<usize> {
        let address = self.address();
        self.unmap_only()?;
        std::mem::forget(self);
        Ok(address)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Only a wrong range can fail here, and the range came from mmap.
        let _ = self.unmap_only();
    }
}
