// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory nodes: policies of mappings and of threads, and where pages are. Where a
//! container forbids to ask for policies, there is none.

#![forbid(unsafe_code)]

use super::procfs::{self, proc_path};
use super::{sys, task, Sys, PAGE};
use crate::errno::Errno;

const WORDS: usize = 16;
const NODES: usize = WORDS * 64;
const BY_ADDRESS: usize = 2;
const PREFERRED: i32 = 1;
const LOCAL: i32 = 4;

/// Where the pages of a mapping, or those that a thread touches first, are to come
/// from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    mode: i32,
    nodes: [u64; WORDS],
}

impl Policy {
    /// None of its own.
    pub const DEFAULT: Self = Self {
        mode: 0,
        nodes: [0; WORDS],
    };

    /// Of the mapping at `addr`.
    pub fn of(addr: usize) -> Self {
        let mut policy = Self::DEFAULT;
        let (mode, nodes) = (&raw mut policy.mode, policy.nodes.as_mut_ptr());
        match sys!(
            libc::SYS_get_mempolicy,
            mode,
            nodes,
            NODES,
            addr,
            BY_ADDRESS
        ) {
            Ok(_) => policy,
            Err(_) => Self::DEFAULT,
        }
    }

    /// One node, or another one where that is full.
    pub fn preferred(node: u32) -> Self {
        let mut policy = Self::DEFAULT;
        policy.mode = PREFERRED;
        policy.add(node as usize);
        policy
    }

    fn add(&mut self, node: usize) {
        if let Some(word) = self.nodes.get_mut(node / 64) {
            *word |= 1 << (node % 64);
        }
    }

    /// Whether pages come from the node of whoever touches them first.
    pub fn is_local(&self) -> bool {
        *self == Self::DEFAULT || self.mode == LOCAL
    }

    /// Takes from a new mapping of a file, and so from the file, the policies that
    /// other mappings have given it.
    pub fn take_away(addr: usize, len: usize) -> Sys<()> {
        // The mapping has none, and the file would not hear of none again.
        let local = Self {
            mode: LOCAL,
            ..Self::DEFAULT
        };
        local.give(addr, len)?;
        Self::DEFAULT.give(addr, len)
    }

    /// Sets the policy of mappings, for pages that are yet to come.
    pub fn give(&self, addr: usize, len: usize) -> Sys<()> {
        let nodes = self.nodes.as_ptr();
        // It counts one more than it reads.
        sys!(libc::SYS_mbind, addr, len, self.mode, nodes, NODES + 1, 0).map(drop)
    }

    /// Sets the policy of the calling thread.
    pub fn use_here(&self) -> Sys<()> {
        let nodes = self.nodes.as_ptr();
        sys!(libc::SYS_set_mempolicy, self.mode, nodes, NODES + 1).map(drop)
    }

    /// Reads a line of /proc/PID/numa_maps.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut policy = Self::DEFAULT;
        let mut words = line.split(|&b| b == b' ' || b == b'\n').skip(1);
        let name = words.next()?;
        policy.mode = match name.first()? {
            b'd' => return Some(policy),
            b'l' => LOCAL,
            b'b' => 2,
            b'i' => 3,
            b'w' => 6,
            b'p' => PREFERRED,
            _ => return None,
        };
        // Two of them are of two words, and both have a list.
        let list = if name.contains(&b':') || policy.mode == LOCAL {
            name
        } else {
            policy.mode += if policy.mode == PREFERRED { 4 } else { 0 };
            words.next()?
        };
        let mut bytes = list.iter();
        let equals = list.iter().position(|&b| b == b'=');
        match equals.and_then(|at| list.get(at + 1)) {
            Some(b's') => policy.mode |= 1 << 15,
            Some(_) => policy.mode |= 1 << 14,
            None => {}
        }
        if !bytes.any(|&b| b == b':') {
            return Some(policy);
        }
        let (mut first, mut number) = (None, 0);
        for &byte in bytes.chain(b",") {
            match byte {
                b'0'..=b'9' => number = (number * 10 + usize::from(byte - b'0')).min(NODES),
                b'-' => (first, number) = (Some(number), 0),
                _ => {
                    (first.unwrap_or(number)..=number).for_each(|node| policy.add(node));
                    (first, number) = (None, 0);
                }
            }
        }
        Some(policy)
    }

    /// Of the first thread of a process, where that can be seen: as that of the
    /// lowest mapping, which mostly has none of its own.
    pub fn of_process(pid: i32) -> Option<Self> {
        let mut text = [0u8; 512];
        Self::parse(read(pid, b"/numa_maps", &mut text)?)
    }
}

fn read<'a>(pid: i32, name: &[u8], text: &'a mut [u8; 512]) -> Option<&'a [u8]> {
    let mut path = [0u8; 32];
    let path = proc_path(&mut path, pid, name);
    let fd = crate::fd::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0).ok()?;
    let n = task::read_text(fd.fd(), text);
    Some(&text[..n])
}

/// Whether the process may have pages of more than one node.
pub fn has_several_nodes() -> bool {
    const ALLOWED: usize = 4;
    let mut nodes = [0u64; WORDS];
    let mode: *mut i32 = core::ptr::null_mut();
    match sys!(
        libc::SYS_get_mempolicy,
        mode,
        nodes.as_mut_ptr(),
        NODES,
        0,
        ALLOWED
    ) {
        Ok(_) => nodes.iter().map(|w| w.count_ones()).sum::<u32>() > 1,
        Err(Errno::ENOSYS) => false,
        // A container forbids to ask.
        Err(_) => {
            let mut text = [0u8; 32];
            let path = c"/sys/devices/system/node/has_memory";
            let Ok(fd) = crate::fd::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0) else {
                return false;
            };
            let n = task::read_text(fd.fd(), &mut text);
            text[..n].iter().any(|&b| b == b'-' || b == b',')
        }
    }
}

/// On which node the first thread of a process has last run.
pub fn node_of_process(pid: i32) -> Option<u32> {
    const PROCESSOR: usize = 39;
    let mut text = [0u8; 512];
    let processor = procfs::field(read(pid, b"/stat", &mut text)?, PROCESSOR)?;
    // The processor has a link to its node, by the node's name.
    let mut path = [0u8; 64];
    (0..NODES as u32).find(|&node| {
        let path = procfs::node_of_processor_path(&mut path, processor, node);
        sys!(libc::SYS_faccessat, libc::AT_FDCWD, path.as_ptr(), 0).is_ok()
    })
}

/// How many pages are asked for at a time.
pub const BATCH: usize = 256;

/// The nodes of the pages from `addr` on, one for each of `nodes`; negative where
/// there is none, or where it is not known.
pub fn nodes_of(addr: usize, nodes: &mut [i32]) -> Sys<()> {
    let pages: [usize; BATCH] = core::array::from_fn(|i| addr + i * PAGE);
    let (count, none) = (nodes.len().min(BATCH), 0);
    let (pages, nodes) = (pages.as_ptr(), nodes.as_mut_ptr());
    sys!(libc::SYS_move_pages, 0, count, pages, none, nodes, 0).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mode: i32, nodes: &[usize]) -> Policy {
        let mut policy = Policy::DEFAULT;
        policy.mode = mode;
        nodes.iter().for_each(|&node| policy.add(node));
        policy
    }

    #[test]
    fn what_the_kernel_writes_of_policies_is_understood() {
        for (text, wanted) in [
            ("default file=/bin/x mapped=4 N0=4", Policy::DEFAULT),
            ("local anon=1", policy(4, &[])),
            ("prefer:1 N1=3", policy(1, &[1])),
            ("prefer (many):0-2,70 N1=3", policy(5, &[0, 1, 2, 70])),
            ("bind=static:3", policy(2 | 1 << 15, &[3])),
            ("interleave=relative:0,2", policy(3 | 1 << 14, &[0, 2])),
            ("weighted interleave:0-1", policy(6, &[0, 1])),
        ] {
            let line = format!("00400000 {text}\n00401000 bind:9 more\n");
            assert_eq!(Policy::parse(line.as_bytes()), Some(wanted), "{text}");
        }
        for wrong in ["", "00400000", "00400000 new:1\n", "00400000 0=1\n"] {
            assert_eq!(Policy::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn the_kernel_tells_of_this_process() {
        let pid = crate::rawsys::getpid();
        let page = vec![1u8; 2 * PAGE];
        let addr = super::super::page_up(page.as_ptr().addr());
        let mut nodes = [-1; 1];
        if nodes_of(addr, &mut nodes).is_ok() {
            assert!(nodes[0] >= 0);
            assert!(Policy::of_process(pid).is_some());
            assert!(node_of_process(pid).is_some());
        }
    }
}
