// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tries what the library uses of the kernel ([`xpmem::facilities`]), and what
//! else is worth knowing.

#![forbid(unsafe_code)]

use crate::sys;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use xpmem::{facilities, probe};

/// How much depends on a facility.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Kernel,
    User,
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

impl From<facilities::Need> for Need {
    fn from(need: facilities::Need) -> Self {
        match need {
            facilities::Need::Kernel => Need::Kernel,
            facilities::Need::User => Need::User,
            facilities::Need::Better => Need::Better,
        }
    }
}

/// A facility that was tried.
pub struct Facility {
    /// Stable name, for scripts.
    pub name: &'static str,
    pub need: Need,
    pub found: bool,
    /// What was found, or the reason why not.
    pub detail: String,
    /// What it is for.
    pub why: &'static str,
    /// What is done where it is missing.
    pub without: &'static str,
}

/// What a trial returned: something to add to the facility's description.
type Outcome = io::Result<Option<String>>;

/// Tries everything. The caller has one thread.
pub fn all() -> Vec<Facility> {
    let features = probe::userfaultfd();
    let mut list: Vec<Facility> = facilities::ALL
        .iter()
        .map(|facility| described(facility, tried(facility, &features)))
        .collect();
    list.push(file_size_limit());
    list.push(cma());
    list
}

fn described(facility: &facilities::Facility, outcome: Outcome) -> Facility {
    let mut detail = facility.what.replace('`', "");
    if facility.since.starts_with(|c: char| c.is_ascii_digit()) {
        detail = format!("{detail}, Linux {}", facility.since);
    }
    let found = outcome.is_ok();
    match outcome {
        Ok(None) => {}
        Ok(Some(more)) => detail = format!("{detail} ({more})"),
        Err(error) => detail = format!("{detail}: {error}"),
    }
    Facility {
        name: facility.name,
        need: facility.need.into(),
        found,
        detail,
        why: facility.used_for,
        without: facility.without,
    }
}

fn tried(facility: &facilities::Facility, features: &io::Result<u64>) -> Outcome {
    let has = |found| match found {
        true => Ok(None),
        false => Err(io::Error::other("not here")),
    };
    match facility.name {
        "dev-xpmem" => device(),
        "process-vm-readv" => read_own_memory(),
        "map-files" => map_files(),
        "ptrace-own-threads" => ptrace(),
        "memfd-sparse" => sys::sparse_memfd(1 << 47).map(|()| None),
        "wipe-on-fork" => has(probe::wipes_on_fork()),
        "uffd-user-mode" => match features {
            Ok(_) => Ok(None),
            Err(error) => Err(again(error)),
        },
        "uffd-continue-wp" => has(probe::continues_protected()),
        "pagemap-scan" => probe::proc_ioctls().and_then(|(_, scan)| has(scan)),
        "procmap-query" => probe::proc_ioctls().and_then(|(query, _)| has(query)),
        "peer-pidfs" => has(probe::tells_peers_apart()),
        "pass-rights" => has(probe::refuses_descriptors()),
        _ if facility.bit != 0 => has(features.as_ref().is_ok_and(|bits| bits & facility.bit != 0)),
        _ => Err(io::Error::other("not tried")),
    }
}

fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => error.kind().into(),
    }
}

fn device() -> Outcome {
    let path = "/dev/xpmem";
    if !fs::metadata(path)?.file_type().is_char_device() {
        return Err(io::Error::other("not a character device"));
    }
    fs::OpenOptions::new().read(true).write(true).open(path)?;
    Ok(None)
}

fn read_own_memory() -> Outcome {
    let word = 0x5a5a_a5a5_u64;
    read_word(std::process::id() as i32, &word).map(|()| None)
}

/// Reads `word` as process `pid` has it at the same address.
fn read_word(pid: i32, word: &u64) -> io::Result<()> {
    let mut copy = [0; 8];
    sys::read_process(pid, std::ptr::from_ref(word).addr(), &mut copy)?;
    match u64::from_ne_bytes(copy) == *word {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::EIO)),
    }
}

fn map_files() -> Outcome {
    // Followed only with the capability, whatever the file behind it.
    match fs::read_dir("/proc/self/map_files")?.next() {
        Some(entry) => fs::metadata(entry?.path()).map(|_| None),
        None => Err(io::ErrorKind::NotFound.into()),
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

fn ptrace() -> Outcome {
    let circumstances = || {
        let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
        let mut text = match yama.as_deref().map(str::trim) {
            Ok("0") => "Yama scope 0",
            Ok("1") => "Yama scope 1: a process names its tracer",
            Ok("2") => "Yama scope 2: administrators only",
            Ok("3") => "Yama scope 3: nobody",
            Ok(_) => "unknown Yama scope",
            Err(_) => "no Yama",
        }
        .to_string();
        if status_field("Seccomp").is_some_and(|mode| mode != "0") {
            text.push_str(", under a seccomp filter");
        }
        if let Some(tracer) = status_field("TracerPid").filter(|tracer| tracer != "0") {
            text.push_str(&format!(", and process {tracer} traces this one"));
        }
        text
    };
    match sys::ptrace_own_threads() {
        Ok(()) => Ok(Some(circumstances())),
        Err(error) => Err(io::Error::other(format!("{error} ({})", circumstances()))),
    }
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
        without: "a soft limit is lifted for the moment; under a hard one, ENOSYS",
    }
}

fn cma() -> Facility {
    let word = Box::new(0x5a5a_a5a5_u64);
    let outcome =
        sys::in_child(
            || match read_word(std::os::unix::process::parent_id() as i32, &word) {
                Ok(()) => 0,
                Err(error) => error.raw_os_error().unwrap_or(125),
            },
        )
        .and_then(|status| match status {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        });
    let what = "process_vm_readv of another process";
    Facility {
        name: "cma",
        need: Need::Fact,
        found: outcome.is_ok(),
        detail: match outcome {
            Ok(()) => what.to_string(),
            Err(error) => format!("{what}: {error}"),
        },
        why: "what MPI libraries use for large messages where there is no XPMEM",
        without: "",
    }
}
