// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel facilities that sharing memory leans on, each tried for real.

use crate::sys;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;

/// How much depends on a facility.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The kernel back end cannot serve without it.
    Kernel,
    /// The user back end cannot serve without it.
    User,
    /// The user back end is slower or narrower without it.
    Better,
    /// Worth knowing; nothing here depends on it.
    Fact,
}

impl Need {
    pub fn name(self) -> &'static str {
        match self {
            Need::Kernel => "kernel back end",
            Need::User => "user back end",
            Need::Better => "better with",
            Need::Fact => "for comparison",
        }
    }
}

pub struct Facility {
    /// Stable name, for scripts.
    pub name: &'static str,
    pub need: Need,
    pub found: bool,
    /// What was found, or the reason why not.
    pub detail: String,
    /// What it is for.
    pub why: &'static str,
}

/// Bits that UFFDIO_API answers, with the least kernel that knows each.
const UFFD_FEATURES: [(u64, &str, Need, &str, &str); 8] = [
    (
        1 << 6,
        "uffd-event-unmap",
        Need::User,
        "Linux 4.11",
        "tells the owner's service of an munmap before the next page is served",
    ),
    (
        1 << 2,
        "uffd-event-remap",
        Need::User,
        "Linux 4.11",
        "tells it of an mremap",
    ),
    (
        1 << 3,
        "uffd-event-remove",
        Need::User,
        "Linux 4.11",
        "tells it of MADV_DONTNEED and MADV_REMOVE",
    ),
    (
        1 << 5,
        "uffd-missing-shmem",
        Need::User,
        "Linux 4.11",
        "lets an attachment fault page by page, when it is touched",
    ),
    (
        1 << 12,
        "uffd-wp-shmem",
        Need::Better,
        "Linux 5.19",
        "watches shared memory for unmaps without raising a fault; else missing faults carry the watch",
    ),
    (
        1 << 14,
        "uffd-poison",
        Need::Better,
        "Linux 6.6",
        "a hole in an attachment is SIGBUS in one call; else an empty file is mapped there",
    ),
    (
        1 << 15,
        "uffd-wp-async",
        Need::Better,
        "Linux 6.7",
        "copies memory while the program runs, so that it stops for the changed pages only",
    ),
    (
        1 << 16,
        "uffd-move",
        Need::Better,
        "Linux 6.8",
        "moves pages without a copy and finds pinned ones (RDMA, io_uring)",
    ),
];

/// Tries everything. The caller has one thread.
pub fn all() -> Vec<Facility> {
    let mut list = Vec::new();
    device(&mut list);
    userfaultfd(&mut list);
    list.push(tried(
        "pagemap-scan",
        Need::Better,
        sys::pagemap_scan(),
        "PAGEMAP_SCAN (Linux 6.7)",
        "finds the pages that changed during a copy",
    ));
    list.push(tried(
        "procmap-query",
        Need::Better,
        sys::procmap_query(),
        "PROCMAP_QUERY (Linux 6.11)",
        "looks one mapping up; else /proc/self/maps is read as text",
    ));
    list.push(ptrace());
    list.push(memfd());
    list.push(file_size_limit());
    list.push(map_files());
    list.push(cma());
    list
}

fn tried(
    name: &'static str,
    need: Need,
    outcome: io::Result<()>,
    what: &str,
    why: &'static str,
) -> Facility {
    Facility {
        name,
        need,
        found: outcome.is_ok(),
        detail: match outcome {
            Ok(()) => what.to_string(),
            Err(error) => format!("{what}: {error}"),
        },
        why,
    }
}

fn device(list: &mut Vec<Facility>) {
    let path = "/dev/xpmem";
    let outcome = fs::metadata(path).and_then(|metadata| {
        if !metadata.file_type().is_char_device() {
            return Err(io::Error::other("not a character device"));
        }
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map(drop)
    });
    list.push(tried(
        "dev-xpmem",
        Need::Kernel,
        outcome,
        path,
        "the module: any memory, any user, no stop of the program",
    ));
}

fn userfaultfd(list: &mut Vec<Facility>) {
    const USER_MODE_ONLY: i32 = 1;
    let user = sys::userfaultfd(USER_MODE_ONLY);
    let features = user
        .as_ref()
        .map_or(0, |fd| sys::userfaultfd_features(fd).unwrap_or(0));
    list.push(tried(
        "uffd-user-mode",
        Need::User,
        user.map(drop),
        "userfaultfd, faults of user code (Linux 5.11; container profiles may refuse it)",
        "a page is fetched when the attacher first touches it, and the owner's changes are seen",
    ));
    for (bit, name, need, since, why) in UFFD_FEATURES {
        list.push(Facility {
            name,
            need,
            found: features & bit != 0,
            detail: since.to_string(),
            why,
        });
    }
}

/// The value of one line of /proc/self/status.
fn status_field(field: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .map(|value| value.trim().to_string())
}

fn ptrace() -> Facility {
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    let scope = match yama.as_deref().map(str::trim) {
        Ok("0") => "Yama scope 0",
        Ok("1") => "Yama scope 1: a process names its tracer",
        Ok("2") => "Yama scope 2: administrators only",
        Ok("3") => "Yama scope 3: nobody",
        Ok(_) => "unknown Yama scope",
        Err(_) => "no Yama",
    };
    let mut what = format!("a child stops threads of its parent ({scope}");
    match status_field("Seccomp").as_deref() {
        Some("0") | None => {}
        Some(_) => what.push_str(", under a seccomp filter"),
    }
    match status_field("TracerPid").as_deref() {
        Some("0") | None => {}
        Some(tracer) => what.push_str(&format!(", and process {tracer} traces this one")),
    }
    what.push(')');
    tried(
        "ptrace-own-threads",
        Need::User,
        sys::ptrace_own_threads(),
        &what,
        "memory moves into the shared file while no thread of the owner can write to it",
    )
}

fn memfd() -> Facility {
    tried(
        "memfd-sparse",
        Need::User,
        sys::sparse_memfd(1 << 47),
        "a memory file of 2^47 bytes, all holes",
        "file offset = owner's address: the whole address space is one file",
    )
}

fn file_size_limit() -> Facility {
    let limit = sys::file_size_limit();
    Facility {
        name: "file-size-limit",
        need: Need::Better,
        found: matches!(limit, Ok(None)),
        detail: match limit {
            Ok(None) => "RLIMIT_FSIZE is unlimited".to_string(),
            Ok(Some(bytes)) => format!("RLIMIT_FSIZE is {bytes} bytes (ulimit -f)"),
            Err(error) => format!("RLIMIT_FSIZE: {error}"),
        },
        why: "a limit keeps the memory file from being as large as the address space",
    }
}

fn map_files() -> Facility {
    // Followed only with the capability, whatever the file behind it.
    let outcome =
        fs::read_dir("/proc/self/map_files").and_then(|mut entries| match entries.next() {
            Some(entry) => fs::metadata(entry?.path()).map(drop),
            None => Err(io::ErrorKind::NotFound.into()),
        });
    tried(
        "map-files",
        Need::Better,
        outcome,
        "/proc/self/map_files (CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN)",
        "memory that several processes map already (MAP_SHARED|MAP_ANONYMOUS) is passed on as it is",
    )
}

fn cma() -> Facility {
    let word = Box::new(0x5a5a_a5a5_u64);
    let address = std::ptr::from_ref(&*word) as usize;
    let outcome = sys::in_child(|| {
        let mut copy = [0; 8];
        match sys::read_process(sys::parent_pid(), address, &mut copy) {
            Ok(()) if u64::from_ne_bytes(copy) == 0x5a5a_a5a5 => 0,
            Ok(()) => libc::EIO,
            Err(error) => error.raw_os_error().unwrap_or(125),
        }
    })
    .and_then(|status| match status {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    });
    drop(word);
    tried(
        "cma",
        Need::Fact,
        outcome,
        "process_vm_readv of another process",
        "what MPI libraries use for large messages where there is no XPMEM",
    )
}
