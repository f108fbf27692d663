// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the sets of an object and those around it fit each other.

use super::node::{Class, Node, Pair};
use super::walk::Walk;
use crate::hwloc::bits::{Bits, Union, NOTHING};
use crate::hwloc::image::Checked;
use crate::hwloc::layout::*;
use crate::hwloc::memory;

impl<'a> Walk<'a, '_> {
    pub(super) fn root_sets(&self, root: &Node<'_, 'a>) -> Checked<()> {
        let loose = self.topology.flags & FLAG_INCLUDE_DISALLOWED != 0;
        let pairs = [
            (&self.allowed_cpuset, &root.cpus.set),
            (&self.allowed_nodeset, &root.nodes.set),
        ];
        for (allowed, all) in pairs {
            let right = if loose {
                allowed.included_in(all)
            } else {
                allowed.equals(all)
            };
            self.want(right);
        }
        Ok(())
    }

    /// An empty set, from those that were given back if possible.
    pub(super) fn union(&mut self) -> Union {
        let mut union = self.spare.pop().unwrap_or_default();
        union.clear();
        union
    }

    /// The memory nodes attached to the object under check or above.
    pub(super) fn inherited(&self) -> Bits<'_> {
        self.inherited.last().map_or(NOTHING, Union::as_bits)
    }

    /// Whether a set is exactly the memory nodes attached here or above.
    #[inline]
    pub(super) fn is_inherited(&mut self, nodes: &Pair<'_>) -> Checked<bool> {
        if self.plain != 0 && nodes.addr == self.plain {
            return Ok(true);
        }
        self.charge(self.inherited().words.len(), nodes.addr)?;
        let same = self.inherited().equals(&nodes.set);
        if same {
            self.plain = nodes.addr;
        }
        Ok(same)
    }

    /// Adds a child's memory nodes to those of its siblings and those
    /// attached above, which all may have.
    #[inline(never)]
    pub(super) fn add_nodes(&mut self, nodes: &mut Option<Union>, set: &Bits<'_>) -> Checked<bool> {
        let mut all = match nodes.take() {
            Some(all) => all,
            None => {
                let mut all = self.union();
                self.charge(self.inherited().words.len(), 0)?;
                all.add_disjoint(&self.inherited(), &NOTHING)?;
                all
            }
        };
        let new = all.add_disjoint(set, &self.inherited())?;
        *nodes = Some(all);
        Ok(new)
    }

    /// The memory children: the nodes attached to this object or above are
    /// on top of `inherited` then.
    #[inline(never)]
    pub(super) fn memory(
        &mut self,
        node: &Node<'_, 'a>,
        nesting: usize,
        total: &mut u64,
    ) -> Checked<()> {
        let at = node.addr;
        let mut here = self.union();
        let mut before = None;
        self.others(node, Class::Memory, nesting, &mut |walk, child| {
            walk.charge(node.cpus.set.words.len(), child.addr)?;
            let same = child.cpus.addr == node.cpus.addr || child.cpus.set.equals(&node.cpus.set);
            walk.want(same);
            let first = child.nodes.complete.first();
            let ordered = before.is_none_or(|b| b < first);
            walk.want(ordered);
            before = Some(first);
            let new = here.add_disjoint(&child.nodes.set, &NOTHING)?;
            walk.want(new);
            *total = total.wrapping_add(child.obj.total_memory);
            Ok(())
        })?;
        self.charge(self.inherited().words.len(), at)?;
        let new = here.add_disjoint(&self.inherited(), &NOTHING)?;
        let below_normal = !is_normal(node.obj.kind);
        self.want(new || below_normal);
        memory::push(&mut self.inherited, here)?;
        self.plain = 0;
        Ok(())
    }
}
