// SPDX-License-Identifier: MIT OR Apache-2.0
//! What concerns one object alone.

use super::node::{has_no_children, Node};
use super::walk::Walk;
use crate::hwloc::image::{ensure, Checked, Corrupt};
use crate::hwloc::layout::*;
use crate::hwloc::validate::attributes;

impl<'a> Walk<'a, '_> {
    /// Types that the writer's filters exclude do not occur.
    pub(super) fn filters(&mut self) {
        for level in self.levels.iter() {
            let filter = self.topology.type_filter.get(level.kind as usize);
            let kept = level.objs.is_empty() || filter.is_some_and(|f| *f != KEEP_NONE);
            self.want(kept);
        }
    }

    /// What concerns one object alone. Answers its own memory.
    #[inline(always)]
    pub(super) fn scalars(&mut self, node: &Node<'_, 'a>) -> Checked<u64> {
        let obj = node.obj;
        let at = node.addr;
        // Each level has one type, the right one for it.
        let slot = self.levels.slot(obj.depth);
        let level = slot.and_then(|slot| self.levels.get(slot));
        let here = level.is_some_and(|level| level.holds(at, obj));
        ensure(here, "object: not where its level has it", at)?;
        let known = obj.gp_index.wrapping_sub(1) < self.largest_gp_index;
        let new = self.seen.insert(obj.gp_index)?;
        self.want(known && new);
        ensure(
            obj.symmetric_subtree & !1 == 0,
            "object: bad symmetry flag",
            at,
        )?;
        let mut local = 0;
        let known = slot.and_then(|slot| self.attributes.get(slot)) == Some(&obj.attr);
        if !known || obj.attr == 0 || obj.kind == ty::NUMANODE {
            local = self.attributes(node)?;
        }
        if obj.name | obj.subtype | obj.infos != 0 || obj.infos_count != 0 {
            self.texts(node)?;
        }
        Ok(local)
    }

    #[inline(never)]
    pub(super) fn texts(&mut self, node: &Node<'_, 'a>) -> Checked<()> {
        let obj = node.obj;
        let at = node.addr;
        for text in [obj.name, obj.subtype] {
            let ends = text == 0 || self.image.string(text).is_some();
            ensure(ends, "object: name does not end", at)?;
        }
        if obj.infos_count != 0 {
            attributes::infos(self.image, obj.infos, obj.infos_count, at)?;
        }
        self.empty_infos |= obj.infos_count == 0 && obj.infos != 0;
        Ok(())
    }

    /// The attributes of an object that stands in its level. But for a memory
    /// node, whose own memory is answered, they alone decide.
    #[inline(never)]
    pub(super) fn attributes(&mut self, node: &Node<'_, 'a>) -> Checked<u64> {
        let obj = node.obj;
        let at = node.addr;
        let attr = self.image.attr(obj.attr).ok_or(Corrupt {
            what: "object: attributes outside",
            at,
        })?;
        if obj.kind == ty::NUMANODE {
            self.memory_node(node, &attr)?;
            return Ok(attr.local_memory());
        }
        let slot = self.levels.slot(obj.depth);
        match obj.kind {
            ty::L1CACHE..=ty::L3ICACHE => {
                let instruction = obj.kind >= ty::L1ICACHE;
                let first = if instruction {
                    ty::L1ICACHE
                } else {
                    ty::L1CACHE
                };
                let right = attr.cache_depth().wrapping_sub(1) == obj.kind - first
                    && if instruction {
                        attr.cache_type() == 2
                    } else {
                        attr.cache_type() <= 1
                    };
                self.want(right);
            }
            ty::GROUP => {
                let level = slot.and_then(|slot| self.levels.get(slot));
                let same = level.is_some_and(|level| attr.group_kind() == level.group);
                self.want(same && attr.group_depth() != u32::MAX);
            }
            ty::BRIDGE => ensure(attr.is_bridge(), "object: bad bridge", at)?,
            ty::PCI_DEVICE => {
                let class = attr.pci_class();
                let important = matches!(class >> 8, 0..=3 | 6 | 0x0b | 0x12)
                    || matches!(class, 0x0c04 | 0x0c06 | 0x0502);
                self.important(obj, important);
            }
            ty::OS_DEVICE => {
                // Kinds that a release does not know it only names otherwise: an
                // XML of a later one may have brought them. DMA engines are the
                // unimportant ones.
                self.important(obj, attr.osdev_type() != 4);
            }
            _ => {}
        }
        if let Some(known) = slot.and_then(|slot| self.attributes.get_mut(slot)) {
            *known = obj.attr;
        }
        Ok(0)
    }

    /// A device that is not important is not there if such were left out.
    pub(super) fn important(&mut self, obj: &Obj, important: bool) {
        let filter = self.topology.type_filter.get(obj.kind as usize);
        self.want(important || filter != Some(&KEEP_IMPORTANT));
    }

    pub(super) fn memory_node(&mut self, node: &Node<'_, 'a>, attr: &Attr) -> Checked<()> {
        let at = node.addr;
        let none = !self.image.abi().page_types;
        let n = attr.page_types_len() as usize;
        let pages = self
            .image
            .slice::<u64>(attr.page_types(), n.saturating_mul(2));
        // hwloc's copy frees the address of an empty array.
        let inside = none || pages.is_some() && (n != 0 || attr.page_types() == 0);
        ensure(inside, "object: page types outside", at)?;
        let bit = node.obj.os_index;
        let alone = node.nodes.set.is_only(bit) && node.nodes.complete.is_only(bit);
        self.want(alone);
        let loose = self.topology.flags & FLAG_INCLUDE_DISALLOWED != 0;
        self.want(loose || self.allowed_nodeset.is_set(bit));
        Ok(())
    }

    /// Whether a processor of this number may be used, or there are others too.
    #[inline]
    pub(super) fn may_use(&self, bit: u32) -> bool {
        let loose = self.topology.flags & FLAG_INCLUDE_DISALLOWED != 0;
        loose || self.allowed_cpuset.is_set(bit)
    }

    /// A processor: its own set, and no children.
    #[inline]
    pub(super) fn processor(&mut self, node: &Node<'_, 'a>) -> Checked<()> {
        let at = node.addr;
        let bit = node.obj.os_index;
        let cpus = node.cpus;
        let alone = cpus.set.is_only(bit)
            && (cpus.addr == cpus.complete_addr || cpus.complete.is_only(bit));
        self.want(alone);
        self.want(self.may_use(bit));
        let whole = self.is_inherited(node.nodes)?;
        self.want(whole);
        let leaf = has_no_children(node.obj);
        ensure(leaf, "object: children of a processor", at)
    }
}
