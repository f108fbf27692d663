// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a task may do: told of another by /proc, of oneself by system calls.
//!
//! Only whether it is the same as before is of interest, so what is kept is a
//! digest of it.

#![forbid(unsafe_code)]

use super::sys;
use crate::errno::Errno;
use crate::user::sys::procfs;

/// A running digest (FNV-1a).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Digest(u64);

impl Digest {
    const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    fn add(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }

    fn add_words(&mut self, words: &[u32]) {
        for byte in words.iter().flat_map(|word| word.to_ne_bytes()) {
            self.add(byte);
        }
    }
}

/// What a task may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights {
    /// Users, groups, capabilities and no_new_privs.
    credentials: Digest,
    /// Filters of system calls.
    filters: Digest,
}

/// How two tasks differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Difference {
    None,
    Credentials,
    /// In what system calls are let through, maybe in credentials, too.
    Filters,
}

impl Rights {
    const NONE: Self = Self {
        credentials: Digest::EMPTY,
        filters: Digest::EMPTY,
    };

    /// The rights of a live task. `None` where it has ended, or cannot be seen.
    pub fn of(tid: i32) -> Option<Self> {
        let mut path = [0u8; 32];
        let path = procfs::proc_path(&mut path, tid, b"/status");
        let fd = crate::fd::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0).ok()?;
        let mut text = Text::new();
        let mut part = [0u8; 1024];
        loop {
            match super::task::read_text(fd.fd(), &mut part) {
                0 => break,
                n => part[..n].iter().for_each(|&byte| text.add(byte)),
            }
        }
        text.finish()
    }

    pub fn difference(&self, other: &Self) -> Difference {
        if self.filters != other.filters {
            Difference::Filters
        } else if self.credentials != other.credentials {
            Difference::Credentials
        } else {
            Difference::None
        }
    }
}

/// Reads /proc/PID/status, whose lines are `Key:<tab>value`.
struct Text {
    key: [u8; 16],
    len: usize,
    in_value: bool,
    seen: u32,
    is_alive: bool,
    rights: Rights,
}

/// The keys that count; the last ones are of filters.
const KEYS: [&[u8]; 11] = [
    b"Uid",
    b"Gid",
    b"Groups",
    b"CapInh",
    b"CapPrm",
    b"CapEff",
    b"CapBnd",
    b"CapAmb",
    b"NoNewPrivs",
    b"Seccomp",
    b"Seccomp_filters",
];
const FILTERS: usize = 9;

impl Text {
    fn new() -> Self {
        Self {
            key: [0; 16],
            len: 0,
            in_value: false,
            seen: 0,
            is_alive: true,
            rights: Rights::NONE,
        }
    }

    fn add(&mut self, byte: u8) {
        match byte {
            b'\n' => (self.len, self.in_value) = (0, false),
            b':' if !self.in_value => self.in_value = true,
            _ if self.in_value => self.add_to_value(byte),
            _ => {
                if let Some(place) = self.key.get_mut(self.len) {
                    *place = byte;
                }
                self.len += 1;
            }
        }
    }

    fn add_to_value(&mut self, byte: u8) {
        let key = self.key.get(..self.len).unwrap_or(b"");
        if key == b"State" && matches!(byte, b'Z' | b'X') {
            self.is_alive = false;
        }
        let Some(i) = KEYS.iter().position(|known| *known == key) else {
            return;
        };
        self.seen |= 1 << i;
        let digest = if i < FILTERS {
            &mut self.rights.credentials
        } else {
            &mut self.rights.filters
        };
        digest.add(byte);
    }

    fn finish(&self) -> Option<Rights> {
        // A kernel without capabilities of some kind, or filters, has no line.
        (self.is_alive && self.seen & 3 == 3).then_some(self.rights)
    }
}

/// Version of the sets of capabilities that capget(2) shall answer.
const CAPABILITIES: u32 = 0x2008_0522;

/// A digest of what the calling thread may do, by system calls that a program
/// makes, too.
pub fn own() -> u64 {
    let mut digest = Digest::EMPTY;
    let mut ids = [0u32; 3];
    for number in [libc::SYS_getresuid, libc::SYS_getresgid] {
        let [a, b, c] = &mut ids;
        let _ = sys!(number, &raw mut *a, &raw mut *b, &raw mut *c);
        digest.add_words(&ids);
    }
    let mut groups = [0u32; 64];
    let count = sys!(libc::SYS_getgroups, groups.len(), groups.as_mut_ptr());
    digest.add_words(&[count.map_or(u32::MAX, |n| n as u32)]);
    digest.add_words(&groups);
    let head = [CAPABILITIES, 0];
    let mut sets = [0u32; 6];
    let _ = sys!(libc::SYS_capget, head.as_ptr(), sets.as_mut_ptr());
    digest.add_words(&sets);
    for option in [libc::PR_GET_NO_NEW_PRIVS, libc::PR_GET_SECCOMP] {
        let answer = sys!(libc::SYS_prctl, option, 0, 0, 0, 0);
        digest.add_words(&[answer.map_or(u32::MAX, |n| n as u32)]);
    }
    // One of them is for the time of a setuid alone.
    const KEEP_CAPABILITIES: usize = 1 << 4;
    let bits = sys!(libc::SYS_prctl, libc::PR_GET_SECUREBITS, 0, 0, 0, 0);
    digest.add_words(&[bits.map_or(u32::MAX, |n| (n & !KEEP_CAPABILITIES) as u32)]);
    digest.0
}

/// Whether the calling thread may look into task `pid`, and signal it: not if that
/// one has rights that this one has given away, however the kernel keeps them. Its
/// memory tells nothing: who has the same may read it. Nor does the look where the
/// program, whose memory that one has, lets nobody look into it.
pub fn may_inspect(pid: i32) -> bool {
    let (mut head, mut len) = (0usize, 0usize);
    let looked = sys!(libc::SYS_get_robust_list, pid, &raw mut head, &raw mut len);
    super::task::signal_task(pid, pid, 0) != Err(Errno::EPERM)
        && (looked != Err(Errno::EPERM) || !is_dumpable())
}

/// Whether the calling thread may lock as much memory as it likes.
pub fn may_lock_all() -> bool {
    const IPC_LOCK: u32 = 14;
    if super::task::limit(libc::RLIMIT_MEMLOCK).is_some_and(|limit| limit[0] == u64::MAX) {
        return true;
    }
    effective_capabilities() >> IPC_LOCK & 1 == 1
}

/// The low word of them, in the order of capget(2).
fn effective_capabilities() -> u32 {
    let mut sets = [0u32; 6];
    let head = [CAPABILITIES, 0];
    match sys!(libc::SYS_capget, head.as_ptr(), sets.as_mut_ptr()) {
        Ok(_) => sets[0],
        Err(_) => 0,
    }
}

/// Whether the calling program lets others of its user look into it.
fn is_dumpable() -> bool {
    const DUMPABLE: usize = 1;
    sys!(libc::SYS_prctl, libc::PR_GET_DUMPABLE, 0, 0, 0, 0) == Ok(DUMPABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Rights> {
        let mut state = Text::new();
        text.bytes().for_each(|byte| state.add(byte));
        state.finish()
    }

    #[test]
    fn the_text_of_the_kernel_is_understood() {
        let base = "Name:\tUid: 5\nState:\tS (sleeping)\nUid:\t1 1 1 1\nGid:\t2\nGroups:\t3 4 \n";
        let tail = "NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\nCpus_allowed:\tff\n";
        let text = [base, tail].concat();
        let first = parse(&text).expect("complete");
        let differs = |from: &str, to: &str| {
            let other = parse(&text.replace(from, to)).expect("complete");
            first.difference(&other)
        };
        assert_eq!(
            differs("Cpus_allowed:\tff", "Cpus_allowed:\t1"),
            Difference::None
        );
        assert_eq!(differs("Name:\tUid: 5", "Name:\tUid: 6"), Difference::None);
        assert_eq!(differs("\t1 1 1 1", "\t1 1 1 0"), Difference::Credentials);
        assert_eq!(differs("\t3 4 ", "\t3 "), Difference::Credentials);
        assert_eq!(
            differs("NoNewPrivs:\t0", "NoNewPrivs:\t1"),
            Difference::Credentials
        );
        assert_eq!(differs("filters:\t0", "filters:\t1"), Difference::Filters);
        assert_eq!(parse(&text.replace("S (sleeping)", "Z (zombie)")), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn one_s_own_rights_are_those_of_another_thread() {
        let other = std::thread::spawn(|| (super::super::task::gettid(), own()));
        let (_, theirs) = other.join().expect("thread");
        assert_eq!(own(), theirs);
        let here = Rights::of(super::super::task::gettid()).expect("status");
        let first = Rights::of(crate::rawsys::getpid()).expect("status");
        assert_eq!(here.difference(&first), Difference::None);
    }

    #[test]
    fn a_thread_may_look_into_its_own() {
        assert!(may_inspect(crate::rawsys::getpid()));
    }
}
