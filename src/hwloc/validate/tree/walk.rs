// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state of a walk, and how it reads.

use super::node::{Node, Pair, Place, NO_SETS};
use crate::hwloc::bits::{Bits, Union};
use crate::hwloc::image::{ensure, Checked, Corrupt, Image};
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use crate::hwloc::validate::Levels;
use core::cell::Cell;
use core::mem::MaybeUninit;

/// Which indexes were seen: hwloc's own check wants each once.
pub(super) struct Seen {
    words: Vec<u64>,
    far: Vec<u64>,
}

impl Seen {
    pub(super) fn new(objects: usize) -> Checked<Self> {
        Ok(Seen {
            words: memory::filled(0, objects / 16 + 16)?,
            far: Vec::new(),
        })
    }

    pub(super) fn insert(&mut self, index: u64) -> Checked<bool> {
        let word = usize::try_from(index / 64).ok();
        match word.and_then(|word| self.words.get_mut(word)) {
            Some(word) => {
                let bit = 1 << (index % 64);
                let new = *word & bit == 0;
                *word |= bit;
                Ok(new)
            }
            None => {
                memory::push(&mut self.far, index)?;
                Ok(true)
            }
        }
    }

    pub(super) fn distinct(mut self) -> bool {
        self.far.sort_unstable();
        self.far.is_sorted_by(|a, b| a < b)
    }
}

pub(super) struct Walk<'a, 'w> {
    pub(super) image: &'w Image<'a>,
    pub(super) topology: &'w Topology,
    pub(super) levels: &'w Levels<'a>,
    pub(super) allowed_cpuset: Bits<'a>,
    pub(super) allowed_nodeset: Bits<'a>,
    pub(super) seen: Seen,
    /// hwloc's own check wants none that is larger, or 0.
    pub(super) largest_gp_index: u64,
    /// The attributes last found to be right, for each level: often all
    /// objects of a level share them.
    pub(super) attributes: Vec<Addr>,
    pub(super) visited: usize,
    pub(super) empty_infos: bool,
    pub(super) odd: Cell<bool>,
    /// Objects nested too deeply to go on from one to the next below it, with
    /// all above them checked.
    pub(super) deep: Vec<Deep>,
    /// Memory nodes attached to an ancestor, one set for each that has any.
    pub(super) inherited: Vec<Union>,
    /// Where a set was read that is just those nodes, if one was.
    pub(super) plain: Addr,
    /// Buffers given back.
    pub(super) spare: Vec<Union>,
}

/// An object whose check is put off, with what is above it.
pub(super) struct Deep {
    pub(super) addr: Addr,
    pub(super) nesting: usize,
    pub(super) inherited: Union,
}

impl<'a> Walk<'a, '_> {
    /// Reads an object below one with the sets `above`.
    // Not a call: its answer is large, and would be copied once more.
    #[inline(always)]
    pub(super) fn node<'n>(
        &self,
        addr: Addr,
        place: &'n mut Place<'a>,
        above: (&'n Pair<'a>, &'n Pair<'a>),
    ) -> Checked<Node<'n, 'a>> {
        let outside = Corrupt {
            what: "object: outside the file",
            at: addr,
        };
        let obj = self.image.get_in(addr, &mut place.obj).ok_or(outside)?;
        obj.kind = self.image.kind(obj.kind);
        let obj: &Obj = obj;
        let (cpus, nodes): (&Pair<'a>, &Pair<'a>) = if is_special(obj.kind) {
            let four = obj.cpuset | obj.complete_cpuset | obj.nodeset | obj.complete_nodeset;
            ensure(four == 0, "object: sets on a device", addr)?;
            (&NO_SETS, &NO_SETS)
        } else {
            let cpus = (obj.cpuset, obj.complete_cpuset);
            let nodes = (obj.nodeset, obj.complete_nodeset);
            let cpus = self.pair(cpus, &mut place.cpus, above.0, addr)?;
            let nodes = self.pair(nodes, &mut place.nodes, above.1, addr)?;
            // Each is looked at a few times, also where it was read above.
            self.charge(cpus.words() + nodes.words(), addr)?;
            (cpus, nodes)
        };
        Ok(Node {
            addr,
            obj,
            cpus,
            nodes,
        })
    }

    /// A set and its complete form: those of the object above, or read.
    #[inline(always)]
    pub(super) fn pair<'n>(
        &self,
        (addr, complete_addr): (Addr, Addr),
        place: &'n mut MaybeUninit<Pair<'a>>,
        above: &'n Pair<'a>,
        at: Addr,
    ) -> Checked<&'n Pair<'a>> {
        if addr != 0 && addr == above.addr && complete_addr == above.complete_addr {
            return Ok(above);
        }
        let bad = Corrupt {
            what: "object: bad set",
            at,
        };
        let set = self.image.bitmap(addr).ok_or(bad)?;
        ensure(!set.infinite, "object: infinite set", at)?;
        // Equal sets are often one set: nothing to compare then.
        let complete = if complete_addr == addr {
            set
        } else {
            let complete = self.image.bitmap(complete_addr).ok_or(bad)?;
            let larger = set.included_in(&complete);
            self.want(larger);
            complete
        };
        Ok(place.write(Pair {
            addr,
            complete_addr,
            set,
            complete,
        }))
    }

    /// Notes where what hwloc's own check wants does not hold, and nothing else
    /// depends on it.
    #[inline(always)]
    pub(super) fn want(&self, condition: bool) {
        if !condition {
            self.odd.set(true);
        }
    }

    /// Charges words of sets that are about to be looked at.
    #[inline]
    pub(super) fn charge(&self, words: usize, at: Addr) -> Checked<()> {
        self.image.charge(words * 8).ok_or(Corrupt {
            what: "object: sets that overlap others",
            at,
        })
    }
}
