// SPDX-License-Identifier: MIT OR Apache-2.0
//! An object under check, its sets and its place among siblings.

use crate::hwloc::bits::{Bits, NOTHING};
use crate::hwloc::layout::*;
use core::mem::MaybeUninit;

/// The lists of children an object may have beside the normal ones.
#[derive(Clone, Copy)]
pub(super) enum Class {
    Memory,
    Io,
    Misc,
}

/// Where an object and its sets are read to.
pub(super) struct Place<'a> {
    pub(super) obj: MaybeUninit<Obj>,
    pub(super) cpus: MaybeUninit<Pair<'a>>,
    pub(super) nodes: MaybeUninit<Pair<'a>>,
}

impl Place<'_> {
    pub(super) const NOWHERE: Self = Place {
        obj: MaybeUninit::uninit(),
        cpus: MaybeUninit::uninit(),
        nodes: MaybeUninit::uninit(),
    };
}

/// An object under check, as it was read, with its sets. Devices have none:
/// theirs are empty here.
pub(super) struct Node<'n, 'a> {
    pub(super) addr: Addr,
    pub(super) obj: &'n Obj,
    pub(super) cpus: &'n Pair<'a>,
    pub(super) nodes: &'n Pair<'a>,
}

impl Node<'_, '_> {
    /// Whether it is a processor whose two sets are one, which holds just its
    /// number. More than that need not be asked of them then.
    #[inline(always)]
    pub(super) fn is_single(&self) -> bool {
        let cpus = self.cpus;
        self.obj.kind == ty::PU
            && cpus.addr == cpus.complete_addr
            && cpus.set.is_only(self.obj.os_index)
    }
}

/// A set and its complete form, and where they were read: an object below
/// often has the same two, and they need no second look. Address 0 is none,
/// also where a file says so.
pub(super) struct Pair<'a> {
    pub(super) addr: Addr,
    pub(super) complete_addr: Addr,
    pub(super) set: Bits<'a>,
    pub(super) complete: Bits<'a>,
}

impl Pair<'_> {
    #[inline]
    pub(super) fn words(&self) -> usize {
        self.set.words.len() + self.complete.words.len()
    }
}

/// The sets of a device, and those above the root.
pub(super) const NO_SETS: Pair<'static> = Pair {
    addr: 0,
    complete_addr: 0,
    set: NOTHING,
    complete: NOTHING,
};

/// Where a list of children is, and what the next one has to say.
pub(super) struct Siblings {
    pub(super) parent: Addr,
    pub(super) prev: Addr,
    pub(super) next: Addr,
    pub(super) rank: u32,
    pub(super) arity: u32,
}

impl Siblings {
    pub(super) fn of(parent: &Node<'_, '_>, first: Addr, arity: u32) -> Self {
        Siblings {
            parent: parent.addr,
            prev: 0,
            next: first,
            rank: 0,
            arity,
        }
    }

    /// Whether the next child has the links of one.
    #[inline(always)]
    pub(super) fn are_right(&self, c: &Obj) -> bool {
        c.parent == self.parent
            && c.sibling_rank == self.rank
            && c.prev_sibling == self.prev
            && (c.next_sibling == 0) == (self.rank + 1 == self.arity)
    }

    /// Goes on to the one behind it.
    #[inline(always)]
    pub(super) fn pass(&mut self, child: &Node<'_, '_>) {
        self.rank += 1;
        self.prev = child.addr;
        self.next = child.obj.next_sibling;
    }
}

/// Whether an object has no normal children.
pub(super) fn has_no_children(obj: &Obj) -> bool {
    obj.arity == 0 && obj.children == 0 && obj.first_child == 0 && obj.last_child == 0
}
