// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the library uses of the kernel: one table.
//!
//! The service takes from it which features of userfaultfd it cannot do without,
//! `xpmem info` shows it for the machine it runs on, and a test holds the table
//! in `docs/facilities.md` to it.

#![forbid(unsafe_code)]

/// How much depends on a facility.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The kernel back end cannot serve without it.
    Kernel,
    /// The user back end cannot serve without it.
    User,
    /// The user back end is slower or narrower without it.
    Better,
}

/// One facility of the kernel.
#[derive(Debug)]
pub struct Facility {
    /// Stable name, for scripts that read `xpmem info --json`.
    pub name: &'static str,
    /// What the kernel's documentation calls it.
    pub what: &'static str,
    /// The least Linux that has it.
    pub since: &'static str,
    pub need: Need,
    pub used_for: &'static str,
    /// What is done where it is missing.
    pub without: &'static str,
    /// Its bit in the answer of `UFFDIO_API`; 0 for what is found out otherwise.
    pub bit: u64,
}

pub const EVENT_REMAP: u64 = 1 << 2;
pub const EVENT_REMOVE: u64 = 1 << 3;
pub const MISSING_SHMEM: u64 = 1 << 5;
pub const EVENT_UNMAP: u64 = 1 << 6;
pub const THREAD_ID: u64 = 1 << 8;
pub const MINOR_SHMEM: u64 = 1 << 10;
pub const WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
pub const POISON: u64 = 1 << 14;
pub const WP_ASYNC: u64 = 1 << 15;
pub const MOVE: u64 = 1 << 16;

/// Every facility, in the order in which they came into the kernel.
pub const ALL: [Facility; 22] = [
    Facility {
        name: "dev-xpmem",
        what: "`/dev/xpmem`",
        since: "the module",
        need: Need::Kernel,
        used_for: "any memory is shared, with any user, and no program is stopped for it",
        without: "the user back end serves",
        bit: 0,
    },
    Facility {
        name: "process-vm-readv",
        what: "`process_vm_readv`, `process_vm_writev`",
        since: "3.2",
        need: Need::Better,
        used_for: "hostile pointers given to `xpmem_ioctl` are EFAULT",
        without: "a pipe copies",
        bit: 0,
    },
    Facility {
        name: "map-files",
        what: "`/proc/self/map_files`, with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN",
        since: "3.3",
        need: Need::Better,
        used_for: "a mapped file is lent that no descriptor and no path leads to: shared anonymous memory that a fork child has too",
        without: "such mappings are refused (SIGBUS)",
        bit: 0,
    },
    Facility {
        name: "ptrace-own-threads",
        what: "`ptrace` of one's own threads (`PTRACE_SEIZE`)",
        since: "3.4",
        need: Need::User,
        used_for: "stores are not lost while memory moves",
        without: "ENOSYS",
        bit: 0,
    },
    Facility {
        name: "memfd-sparse",
        what: "memfd with seals, sparse to 2^47 (arm64: 2^48)",
        since: "3.17",
        need: Need::User,
        used_for: "the file whose offset is the address",
        without: "ENOSYS",
        bit: 0,
    },
    Facility {
        name: "uffd-event-unmap",
        what: "`UFFD_FEATURE_EVENT_UNMAP`",
        since: "4.11",
        need: Need::User,
        used_for: "a raw munmap of the owner is seen",
        without: "ENOSYS",
        bit: EVENT_UNMAP,
    },
    Facility {
        name: "uffd-event-remap",
        what: "`UFFD_FEATURE_EVENT_REMAP`",
        since: "4.11",
        need: Need::User,
        used_for: "a raw mremap of the owner is seen",
        without: "ENOSYS",
        bit: EVENT_REMAP,
    },
    Facility {
        name: "uffd-event-remove",
        what: "`UFFD_FEATURE_EVENT_REMOVE`",
        since: "4.11",
        need: Need::User,
        used_for: "a raw MADV_DONTNEED or MADV_REMOVE of the owner is seen",
        without: "ENOSYS",
        bit: EVENT_REMOVE,
    },
    Facility {
        name: "uffd-missing-shmem",
        what: "`UFFD_FEATURE_MISSING_SHMEM`",
        since: "4.11",
        need: Need::User,
        used_for: "a page is fetched when an attacher first touches it",
        without: "ENOSYS",
        bit: MISSING_SHMEM,
    },
    Facility {
        name: "wipe-on-fork",
        what: "`MADV_WIPEONFORK`",
        since: "4.14",
        need: Need::Better,
        used_for: "a fork child knows that it is one",
        without: "the pid tells",
        bit: 0,
    },
    Facility {
        name: "uffd-thread-id",
        what: "`UFFD_FEATURE_THREAD_ID`",
        since: "4.14",
        need: Need::User,
        used_for: "the thread that waits for a page is known, so that it alone gets SIGBUS for a hole",
        without: "ENOSYS",
        bit: THREAD_ID,
    },
    Facility {
        name: "uffd-user-mode",
        what: "userfaultfd with `UFFD_USER_MODE_ONLY`",
        since: "5.11",
        need: Need::User,
        used_for: "attachments fault lazily and the owner's changes are seen, with no privilege",
        without: "ENOSYS",
        bit: 0,
    },
    Facility {
        name: "uffd-minor-shmem",
        what: "`UFFD_FEATURE_MINOR_SHMEM`",
        since: "5.14",
        need: Need::User,
        used_for: "a page is mapped at an attacher only after its owner says that it is ready",
        without: "ENOSYS",
        bit: MINOR_SHMEM,
    },
    Facility {
        name: "uffd-wp-shmem",
        what: "`UFFD_FEATURE_WP_HUGETLBFS_SHMEM`",
        since: "5.19 (arm64: 6.10)",
        need: Need::User,
        used_for: "shared memory is watched for changes with no fault raised; read-only pages",
        without: "ENOSYS",
        bit: WP_HUGETLBFS_SHMEM,
    },
    Facility {
        name: "uffd-continue-wp",
        what: "`UFFDIO_CONTINUE_MODE_WP`",
        since: "6.4",
        need: Need::Better,
        used_for: "a page that the owner may not write is mapped read-only",
        without: "it is mapped, then protected, while the threads stand",
        bit: 0,
    },
    Facility {
        name: "uffd-poison",
        what: "`UFFD_FEATURE_POISON`",
        since: "6.6",
        need: Need::Better,
        used_for: "a touch of a hole is SIGBUS",
        without: "the signal is sent, without an address",
        bit: POISON,
    },
    Facility {
        name: "uffd-wp-async",
        what: "`UFFD_FEATURE_WP_ASYNC`",
        since: "6.7",
        need: Need::Better,
        used_for: "memory is copied while the program runs; mappings of ordinary files and of SysV segments are watched, so that they can be lent",
        without: "it stands still for the whole chunk; such mappings are refused (SIGBUS), tmpfs and memfds are not",
        bit: WP_ASYNC,
    },
    Facility {
        name: "pagemap-scan",
        what: "`PAGEMAP_SCAN`",
        since: "6.7",
        need: Need::Better,
        used_for: "the pages that changed during a copy are found; huge pages stay huge",
        without: "as without `UFFD_FEATURE_WP_ASYNC`",
        bit: 0,
    },
    Facility {
        name: "uffd-move",
        what: "`UFFD_FEATURE_MOVE`",
        since: "6.8",
        need: Need::Better,
        used_for: "pinned pages are refused",
        without: "they are copied, and what a device, or a call of another process, writes to them is lost",
        bit: MOVE,
    },
    Facility {
        name: "peer-pidfs",
        what: "`SO_PEERPIDFD`, and pidfds with an inode of their own",
        since: "6.9",
        need: Need::Better,
        used_for: "attachers that the owner's PID namespace does not show are told apart",
        without: "half of all places are for all of these together",
        bit: 0,
    },
    Facility {
        name: "procmap-query",
        what: "`PROCMAP_QUERY`",
        since: "6.11",
        need: Need::Better,
        used_for: "one mapping is looked up",
        without: "`/proc/self/maps` is read",
        bit: 0,
    },
    Facility {
        name: "pass-rights",
        what: "`SO_PASSRIGHTS`",
        since: "6.16",
        need: Need::Better,
        used_for: "descriptors that attachers send are refused",
        without: "they are closed, in a thread that nobody waits for",
        bit: 0,
    },
];

/// The features of userfaultfd that the user back end cannot do without.
pub const REQUIRED: u64 = bits(Need::User);

/// The features of userfaultfd that it makes use of where they are there.
pub const OPTIONAL: u64 = bits(Need::Better);

const fn is(need: Need, wanted: Need) -> bool {
    need as u8 == wanted as u8
}

const fn bits(need: Need) -> u64 {
    let mut mask = 0;
    let mut i = 0;
    while i < ALL.len() {
        if is(ALL[i].need, need) {
            mask |= ALL[i].bit;
        }
        i += 1;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../docs/facilities.md");
    const README: &str = include_str!("../README.md");

    fn row(f: &Facility) -> String {
        let need = match f.need {
            Need::Kernel => "kernel back end",
            Need::User => "**needed**",
            Need::Better => "better",
        };
        format!(
            "| `{}` | {} | {} | {need} | {} | {} |",
            f.name, f.what, f.since, f.used_for, f.without
        )
    }

    #[test]
    fn the_document_has_this_table() {
        let wanted: Vec<String> = ALL.iter().map(row).collect();
        let found: Vec<&str> = DOCUMENT
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        assert_eq!(
            found,
            wanted,
            "docs/facilities.md should have\n{}\n",
            wanted.join("\n")
        );
    }

    /// The number before and after the dot.
    fn release(since: &str) -> Option<(u32, u32)> {
        let (major, minor) = since.split_whitespace().next()?.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    #[test]
    fn the_readme_names_the_least_kernel_and_the_better_one() {
        let newest = |need| {
            ALL.iter()
                .filter(|f| f.need == need)
                .filter_map(|f| release(f.since))
                .max()
                .expect("a release")
        };
        let (major, minor) = newest(Need::User);
        assert!(README.contains(&format!("Linux {major}.{minor} or later")));
        // PROCMAP_QUERY is speed alone; what changes behaviour ends with this.
        let (major, minor) = ALL
            .iter()
            .find(|f| f.bit == MOVE)
            .and_then(|f| release(f.since))
            .expect("a release");
        assert!(README.contains(&format!("{major}.{minor} or later is better")));
    }

    #[test]
    fn names_and_bits_are_unique() {
        for (i, a) in ALL.iter().enumerate() {
            for b in &ALL[i + 1..] {
                assert_ne!(a.name, b.name);
                assert!(a.bit & b.bit == 0, "{} and {}", a.name, b.name);
            }
        }
        assert_eq!(REQUIRED & OPTIONAL, 0);
    }
}
