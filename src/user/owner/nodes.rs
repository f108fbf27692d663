// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages of the file are on the memory node where the program has them, or would.
//!
//! What is copied goes to the node of the page that it is copied from, and what
//! nobody has touched yet to where the owner's policy says: that of the mapping,
//! which the file keeps, or else that of the program's first thread. The service
//! takes that policy over for the time being. On a machine with one node nothing
//! of that is done.

#![forbid(unsafe_code)]

use super::Owner;
use crate::debug_log;
use crate::errno::Errno;
use crate::user::program::scratch::Place;
use crate::user::sys::policy::{self, Policy, BATCH};
use crate::user::sys::{held, insist, mem, Span, Sys, PAGE};

/// What the service knows of nodes. All zero: there is one.
#[derive(Clone, Copy)]
pub struct Nodes {
    several: bool,
    /// What it may not do has been told.
    told: bool,
    /// Where pages come from that the service touches first: a node, plus 1.
    from: u32,
}

/// As it was when the service began.
const ANY: u32 = 0;
/// As the program's first thread would have it.
const OWNER: u32 = u32::MAX;

impl Nodes {
    pub fn find() -> Self {
        Self {
            several: policy::has_several_nodes() || crate::testing::plays_several_nodes(),
            told: false,
            from: ANY,
        }
    }

    /// For another thread: the node that pages come from, plus 1; 0: any. `None`: it
    /// cannot be told.
    pub fn number(&self) -> Option<u32> {
        match self.from {
            _ if !self.several => Some(ANY),
            ANY | OWNER => None,
            node => Some(node),
        }
    }
}

impl Owner {
    /// Looks again what the program's first thread would have: at each request.
    pub fn look_at_nodes(&mut self) {
        if self.nodes.from == OWNER {
            self.nodes.from = ANY;
        }
    }

    /// Calls `body` with each part of `span` whose pages are on one node, so that pages
    /// which it makes come from there.
    pub fn on_their_nodes(
        &mut self,
        span: Span,
        body: &mut dyn FnMut(&mut Self, Span) -> Sys<()>,
    ) -> Sys<()> {
        if !self.nodes.several {
            return body(self, span);
        }
        let (mut at, end) = (span.start(), span.end());
        let mut begun = at;
        let mut node = None;
        while at < end {
            let mut nodes = [-1; BATCH];
            let count = ((end - at) / PAGE).min(BATCH);
            if let Err(errno) = policy::nodes_of(at, &mut nodes[..count]) {
                self.give_nodes_up("where pages are cannot be seen", errno);
            }
            for found in &nodes[..count] {
                // What has no page goes with what is before it.
                let found = u32::try_from(*found).ok();
                if found.is_some() && found != node {
                    if begun < at {
                        self.come_from(node);
                        body(self, Span::new(begun, at))?;
                    }
                    (begun, node) = (at, found);
                }
                at += PAGE;
            }
        }
        self.come_from(node);
        body(self, span.from(begun))
    }

    fn come_from(&mut self, node: Option<u32>) {
        let source = node.map_or(OWNER, |node| node + 1);
        if source == self.nodes.from {
            return;
        }
        let policy = match node {
            Some(node) => Some(Policy::preferred(node)),
            None => match Policy::of_process(self.program.tgid()) {
                Some(policy) if !policy.is_local() => Some(policy),
                _ => policy::node_of_process(self.program.tgid()).map(Policy::preferred),
            },
        };
        self.nodes.from = source;
        if let Some(Err(errno)) = policy.map(|policy| policy.use_here()) {
            self.nodes.from = ANY;
            self.give_nodes_up("pages come from the service's own node", errno);
        }
    }

    /// Gives memory of the file pages where it has none: where the owner's would be.
    pub fn populate_as_owner(&mut self, span: Span) -> Sys<()> {
        let (addr, len) = (span.start(), span.len());
        if !self.nodes.several {
            return mem::populate(addr, len);
        }
        self.come_from(None);
        // Of its own accord the kernel would take the node of the service.
        let local = Policy::of(addr);
        if local == Policy::DEFAULT || !local.is_local() {
            return mem::populate(addr, len);
        }
        let Some(node) = policy::node_of_process(self.program.tgid()) else {
            return mem::populate(addr, len);
        };
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        let (read, file) = (libc::PROT_READ, self.memfd);
        let map = |place| {
            self.program
                .scratch
                .map(place, len, read, flags, file, addr)
        };
        let stage = map(Place::Stage)?;
        let done = Policy::preferred(node)
            .give(stage, len)
            .and_then(|()| mem::populate(stage, len));
        let _ = insist(|| local.give(stage, len));
        self.program.scratch.unmap(Span::of(stage, len));
        done
    }

    /// As [`mem::write_from`]: what `from` holds goes to `offset` of the file.
    pub fn write_near(&mut self, from: Span, offset: usize) -> Sys<()> {
        self.on_their_nodes(from, &mut |owner, part| {
            let done = part.start() - from.start();
            mem::write_from(owner.memfd, part.start(), part.len(), offset + done)
        })
    }

    /// A mapping of the file that is new at `stage`, to take the place of the memory
    /// at `addr`, has no policy. Answers which it is to have.
    pub fn take_policy(&mut self, addr: usize, stage: usize, len: usize) -> Policy {
        let policy = Policy::of(addr);
        if self.nodes.several || self.has_policies {
            let _ = Policy::take_away(stage, len);
        }
        policy
    }

    /// Pages that come to `span` from now on come from where `policy` says. The file
    /// remembers that, also for other memory at the same place.
    pub fn give_policy(&mut self, policy: &Policy, span: Span) {
        let (addr, len) = (span.start(), span.len());
        if *policy == Policy::DEFAULT {
            return;
        }
        self.has_policies = true;
        if let Err(errno) = policy.give(addr, len) {
            debug_log!("{addr:#x}+{len:#x} loses its NUMA policy: errno {errno}");
        }
    }

    /// Whether memory that becomes private again may have a policy.
    pub fn may_have_policies(&self) -> bool {
        self.nodes.several || self.has_policies
    }

    /// As [`mem::read_into`]: `data` of the file, which is mapped at `at`, to `to`.
    pub fn read_near(&mut self, to: usize, data: Span, at: usize) -> Sys<()> {
        let mapped = Span::of(at, data.len());
        if self.nodes.several {
            // Where a page is can be seen where it is mapped.
            let _ = mem::populate(mapped.start(), mapped.len());
        }
        self.on_their_nodes(mapped, &mut |owner, part| {
            let done = part.start() - mapped.start();
            held::read_into(owner.memfd, to + done, part.len(), data.start() + done)
        })
    }

    /// The kernel refuses: where it always does, nothing more is asked.
    fn give_nodes_up(&mut self, what: &str, errno: Errno) {
        if errno == Errno::EPERM || errno == Errno::ENOSYS {
            self.nodes.several = false;
        }
        if !core::mem::replace(&mut self.nodes.told, true) {
            debug_log!("{what}: errno {errno}");
        }
    }
}
