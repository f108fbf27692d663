// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tree of objects: links, types, sets, attributes.

use super::super::image::{ensure, Bits, Checked, Corrupt, Image, Union, NOTHING};
use super::super::layout::*;
use super::{attributes, Levels, MAX_DEPTH};
use core::mem::{size_of, MaybeUninit};

/// The four lists of children an object may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Normal,
    Memory,
    Io,
    Misc,
}

/// Where an object and its attributes are read to.
type Place = (MaybeUninit<Obj>, MaybeUninit<Attr>);

const NOWHERE: Place = (MaybeUninit::uninit(), MaybeUninit::uninit());

/// An object under check, as it was read, with its sets.
struct Node<'n, 'a> {
    addr: Addr,
    obj: &'n Obj,
    attr: &'n Attr,
    sets: Option<Sets<'a>>,
}

/// What hwloc wants all four or none of.
struct Sets<'a> {
    cpuset: Bits<'a>,
    complete_cpuset: Bits<'a>,
    nodeset: Bits<'a>,
    complete_nodeset: Bits<'a>,
}

/// Which indexes were seen: hwloc's own check wants each once.
struct Seen {
    words: Vec<u64>,
    far: Vec<u64>,
}

impl Seen {
    fn new(objects: usize) -> Self {
        Seen {
            words: vec![0; objects / 16 + 16],
            far: Vec::new(),
        }
    }

    fn insert(&mut self, index: u64) -> bool {
        match self.words.get_mut((index / 64) as usize) {
            Some(word) => {
                let bit = 1 << (index % 64);
                let new = *word & bit == 0;
                *word |= bit;
                new
            }
            None => {
                self.far.push(index);
                true
            }
        }
    }

    fn distinct(mut self) -> bool {
        self.far.sort_unstable();
        self.far.is_sorted_by(|a, b| a < b)
    }
}

struct Walk<'a, 'w> {
    image: &'w Image<'a>,
    topology: &'w Topology,
    levels: &'w Levels<'a>,
    allowed_cpuset: Bits<'a>,
    allowed_nodeset: Bits<'a>,
    seen: Seen,
    visited: usize,
    empty_infos: bool,
    /// Memory nodes attached to an ancestor, one set for each that has any.
    inherited: Vec<Union>,
    /// Buffers given back.
    spare: Vec<Union>,
}

/// Walks from the root and checks each object once.
///
/// Answers whether some object has an address for infos and no infos.
pub fn check<'a>(image: &Image<'a>, t: &Topology, levels: &Levels<'a>) -> Checked<bool> {
    let set = |addr| {
        image.bitmap(addr).ok_or(Corrupt {
            what: "topology: bad allowed set",
            at: addr,
        })
    };
    let mut walk = Walk {
        image,
        topology: t,
        levels,
        allowed_cpuset: set(t.allowed_cpuset)?,
        allowed_nodeset: set(t.allowed_nodeset)?,
        seen: Seen::new(levels.total()),
        visited: 0,
        empty_infos: false,
        inherited: vec![Union::default()],
        spare: Vec::new(),
    };
    let root = levels.at(0).and_then(|l| l.objs.first()).copied();
    let mut place = NOWHERE;
    let root = walk.node(root.unwrap_or(0), &mut place)?;
    let alone = root.obj.parent == 0
        && root.obj.sibling_rank == 0
        && root.obj.next_sibling == 0
        && root.obj.prev_sibling == 0;
    ensure(
        alone,
        "object: the root has a parent or siblings",
        root.addr,
    )?;
    walk.root_sets(&root)?;
    walk.visit(&root, 0)?;
    ensure(
        walk.visited == levels.total(),
        "level: holds objects that are not in the tree",
        root.addr,
    )?;
    let empty_infos = walk.empty_infos;
    ensure(walk.seen.distinct(), "object: index used twice", root.addr)?;
    Ok(empty_infos)
}

impl<'a> Walk<'a, '_> {
    // Not a call: its answer is large, and would be copied once more.
    #[inline(always)]
    fn node<'n>(&self, addr: Addr, place: &'n mut Place) -> Checked<Node<'n, 'a>> {
        let outside = Corrupt {
            what: "object: outside the file",
            at: addr,
        };
        let obj = self.image.get_in(addr, &mut place.0).ok_or(outside)?;
        let attr = self.image.get_in(obj.attr, &mut place.1).ok_or(Corrupt {
            what: "object: attributes outside",
            at: addr,
        })?;
        let sets = self.sets(addr, obj)?;
        Ok(Node {
            addr,
            obj,
            attr,
            sets,
        })
    }

    fn sets(&self, addr: Addr, obj: &Obj) -> Checked<Option<Sets<'a>>> {
        let four = [
            obj.cpuset,
            obj.complete_cpuset,
            obj.nodeset,
            obj.complete_nodeset,
        ];
        if is_special(obj.kind) {
            ensure(four == [0; 4], "object: sets on a device", addr)?;
            return Ok(None);
        }
        let set = |at| {
            self.image.bitmap(at).ok_or(Corrupt {
                what: "object: bad set",
                at: addr,
            })
        };
        let cpuset = set(obj.cpuset)?;
        let nodeset = set(obj.nodeset)?;
        ensure(
            !cpuset.infinite && !nodeset.infinite,
            "object: infinite set",
            addr,
        )?;
        // Equal sets are often one set: nothing to compare then.
        let complete_cpuset = if obj.complete_cpuset == obj.cpuset {
            cpuset
        } else {
            let complete = set(obj.complete_cpuset)?;
            let larger = cpuset.included_in(&complete);
            ensure(larger, "object: complete set is smaller", addr)?;
            complete
        };
        let complete_nodeset = if obj.complete_nodeset == obj.nodeset {
            nodeset
        } else {
            let complete = set(obj.complete_nodeset)?;
            let larger = nodeset.included_in(&complete);
            ensure(larger, "object: complete set is smaller", addr)?;
            complete
        };
        Ok(Some(Sets {
            cpuset,
            complete_cpuset,
            nodeset,
            complete_nodeset,
        }))
    }

    fn root_sets(&self, root: &Node<'_, 'a>) -> Checked<()> {
        let Some(sets) = &root.sets else {
            return ensure(false, "object: the root has no sets", root.addr);
        };
        let loose = self.topology.flags & FLAG_INCLUDE_DISALLOWED != 0;
        let pairs = [
            (&self.allowed_cpuset, &sets.cpuset),
            (&self.allowed_nodeset, &sets.nodeset),
        ];
        for (allowed, all) in pairs {
            let right = if loose {
                allowed.included_in(all)
            } else {
                allowed.equals(all)
            };
            ensure(right, "topology: allowed set does not fit", root.addr)?;
        }
        Ok(())
    }

    /// Checks an object and all below it.
    fn visit(&mut self, node: &Node<'_, 'a>, nesting: usize) -> Checked<()> {
        let at = node.addr;
        ensure(nesting < MAX_DEPTH, "object: nested too deeply", at)?;
        self.visited += 1;
        // The arrays of the levels hold each object once: there can be more
        // only if somebody changes the file under the check.
        let known = self.visited <= self.levels.total();
        ensure(known, "object: more than the levels hold", at)?;
        // The next on this level is visited when all below this one was.
        self.image.soon(node.obj.next_cousin, size_of::<Obj>());
        self.scalars(node)?;
        let mut memory = 0;
        let has_memory = self.memory(node, nesting, &mut memory)?;
        if is_normal(node.obj.kind) {
            self.cpu_tree(node, nesting, &mut memory)?;
        } else {
            ensure(
                node.obj.arity == 0
                    && node.obj.children == 0
                    && node.obj.first_child == 0
                    && node.obj.last_child == 0,
                "object: normal children below another kind",
                at,
            )?;
        }
        if has_memory {
            self.spare.extend(self.inherited.pop());
        }
        if node.obj.kind == ty::NUMANODE {
            memory = memory.wrapping_add(node.attr.local_memory());
        }
        ensure(
            memory == node.obj.total_memory,
            "object: memory does not add up",
            at,
        )?;
        let o = node.obj;
        if o.io_arity != 0 || o.io_first_child != 0 {
            self.children(node, Class::Io, nesting, &mut |_, _| Ok(()))?;
        }
        if o.misc_arity != 0 || o.misc_first_child != 0 {
            self.children(node, Class::Misc, nesting, &mut |_, _| Ok(()))?;
        }
        Ok(())
    }

    /// An empty set, from those that were given back if possible.
    fn union(&mut self) -> Union {
        let mut union = self.spare.pop().unwrap_or_default();
        union.clear();
        union
    }

    /// The memory children. Answers whether there are any: then the nodes
    /// attached to this object or above are on top of `inherited`.
    fn memory(&mut self, node: &Node<'_, 'a>, nesting: usize, memory: &mut u64) -> Checked<bool> {
        let at = node.addr;
        if node.obj.memory_arity == 0 {
            let none = node.obj.memory_first_child == 0;
            ensure(none, "object: children although there are none", at)?;
            return Ok(false);
        }
        let mut here = self.union();
        let mut before = None;
        self.children(node, Class::Memory, nesting, &mut |_, child| {
            let mine = child.sets.as_ref().zip(node.sets.as_ref());
            let Some((theirs, ours)) = mine else {
                return ensure(false, "object: memory without sets", child.addr);
            };
            let same = child.obj.cpuset == node.obj.cpuset || theirs.cpuset.equals(&ours.cpuset);
            ensure(same, "object: memory with another cpuset", child.addr)?;
            let first = theirs.complete_nodeset.first();
            let ordered = before.is_none_or(|b| b < first);
            ensure(ordered, "object: memory out of order", child.addr)?;
            before = Some(first);
            let new = here.add_disjoint(&theirs.nodeset, &NOTHING);
            ensure(new, "object: memory node attached twice", child.addr)?;
            *memory = memory.wrapping_add(child.obj.total_memory);
            Ok(())
        })?;
        if let Some(above) = self.inherited.last() {
            let new = here.add_disjoint(&above.as_bits(), &NOTHING);
            let below_normal = !is_normal(node.obj.kind);
            ensure(
                new || below_normal,
                "object: memory node attached twice",
                at,
            )?;
        }
        self.inherited.push(here);
        Ok(true)
    }

    /// Whether a set is exactly the memory nodes attached here or above.
    fn is_inherited(&self, set: &Bits<'_>) -> bool {
        let above = self.inherited.last().map_or(NOTHING, Union::as_bits);
        above.equals(set)
    }

    /// A processor: its own set, and no children.
    fn processor(&mut self, node: &Node<'_, 'a>, ours: &Sets<'a>) -> Checked<()> {
        let at = node.addr;
        let bit = node.obj.os_index;
        let alone = ours.cpuset.is_only(bit)
            && (node.obj.cpuset == node.obj.complete_cpuset || ours.complete_cpuset.is_only(bit));
        ensure(alone, "object: set of a processor", at)?;
        let loose = self.topology.flags & FLAG_INCLUDE_DISALLOWED != 0;
        let allowed = loose || self.allowed_cpuset.is_set(bit);
        ensure(allowed, "object: a processor that is not allowed", at)?;
        let whole = self.is_inherited(&ours.nodeset);
        ensure(whole, "object: children do not make up the nodeset", at)?;
        let o = node.obj;
        let leaf = o.arity == 0 && o.children == 0 && o.first_child == 0 && o.last_child == 0;
        ensure(leaf, "object: children of a processor", at)
    }

    /// The normal children, and that their sets make up the parent's.
    fn cpu_tree(&mut self, node: &Node<'_, 'a>, nesting: usize, memory: &mut u64) -> Checked<()> {
        let at = node.addr;
        let Some(ours) = &node.sets else {
            return ensure(false, "object: no sets", at);
        };
        if node.obj.kind == ty::PU {
            return self.processor(node, ours);
        }
        if node.obj.arity == 1 {
            // An only child with the same two sets: its own check, that
            // they are what is attached above or below it, is ours.
            let mut same = false;
            self.children(node, Class::Normal, nesting, &mut |_, child| {
                same = child.obj.cpuset == node.obj.cpuset && child.obj.nodeset == node.obj.nodeset;
                if !same {
                    same = child.sets.as_ref().is_some_and(|theirs| {
                        theirs.cpuset.equals(&ours.cpuset) && theirs.nodeset.equals(&ours.nodeset)
                    });
                }
                *memory = memory.wrapping_add(child.obj.total_memory);
                Ok(())
            })?;
            return ensure(same, "object: children do not make up the set", at);
        }
        let mut cpus = self.union();
        let mut nodes = self.union();
        if let Some(above) = self.inherited.last() {
            nodes.add_disjoint(&above.as_bits(), &NOTHING);
        }
        let mut before = None;
        let mut empty_before = false;
        self.children(node, Class::Normal, nesting, &mut |walk, child| {
            let Some(theirs) = &child.sets else {
                return ensure(false, "object: no sets", child.addr);
            };
            let new = cpus.add_disjoint(&theirs.cpuset, &NOTHING);
            ensure(new, "object: processors below two parents", child.addr)?;
            let above = walk.inherited.last().map_or(NOTHING, Union::as_bits);
            let new = nodes.add_disjoint(&theirs.nodeset, &above);
            ensure(new, "object: memory nodes below two parents", child.addr)?;
            let first = theirs.complete_cpuset.first();
            let ordered = first.is_none() || (!empty_before && before < first);
            empty_before |= first.is_none();
            before = first;
            ensure(ordered, "object: children out of order", child.addr)?;
            *memory = memory.wrapping_add(child.obj.total_memory);
            Ok(())
        })?;
        let whole = cpus.as_bits().equals(&ours.cpuset);
        ensure(whole, "object: children do not make up the cpuset", at)?;
        let whole = nodes.as_bits().equals(&ours.nodeset);
        ensure(whole, "object: children do not make up the nodeset", at)?;
        self.spare.push(cpus);
        self.spare.push(nodes);
        Ok(())
    }

    /// Walks one list of children: links first, then `each`, then below.
    fn children(
        &mut self,
        parent: &Node<'_, 'a>,
        class: Class,
        nesting: usize,
        each: &mut dyn FnMut(&mut Self, &Node<'_, 'a>) -> Checked<()>,
    ) -> Checked<()> {
        let p = parent.obj;
        let at = parent.addr;
        let (arity, first) = match class {
            Class::Normal => (p.arity, p.first_child),
            Class::Memory => (p.memory_arity, p.memory_first_child),
            Class::Io => (p.io_arity, p.io_first_child),
            Class::Misc => (p.misc_arity, p.misc_first_child),
        };
        if arity == 0 {
            let none =
                first == 0 && (class != Class::Normal || (p.children == 0 && p.last_child == 0));
            return ensure(none, "object: children although there are none", at);
        }
        let may = match class {
            Class::Normal => is_normal(p.kind) && p.kind != ty::PU,
            Class::Memory => (is_normal(p.kind) && p.kind != ty::PU) || p.kind == ty::MEMCACHE,
            Class::Io => is_normal(p.kind) || is_io(p.kind),
            Class::Misc => true,
        };
        ensure(may, "object: children that its type cannot have", at)?;
        let array = match class {
            Class::Normal => {
                let array =
                    self.image
                        .slice::<Addr>(p.children, arity as usize)
                        .ok_or(Corrupt {
                            what: "object: array of children outside",
                            at,
                        })?;
                let last = array.last() == Some(&p.last_child);
                ensure(last, "object: wrong last child", at)?;
                Some(array)
            }
            _ => None,
        };
        let mut addr = first;
        let mut prev = 0;
        let mut place = NOWHERE;
        for rank in 0..arity {
            let child = self.node(addr, &mut place)?;
            let c = child.obj;
            let linked = c.parent == at
                && c.sibling_rank == rank
                && c.prev_sibling == prev
                && (c.next_sibling == 0) == (rank + 1 == arity)
                && array.is_none_or(|a| a.get(rank as usize) == Some(&addr));
            ensure(linked, "object: wrong links between siblings", addr)?;
            let right = match class {
                Class::Normal => is_normal(c.kind) && c.depth > p.depth,
                Class::Memory => is_memory(c.kind),
                Class::Io => is_io(c.kind),
                Class::Misc => c.kind == ty::MISC,
            };
            ensure(right, "object: in the wrong list of children", addr)?;
            each(self, &child)?;
            self.visit(&child, nesting + 1)?;
            prev = addr;
            addr = c.next_sibling;
        }
        Ok(())
    }

    /// What concerns one object alone.
    fn scalars(&mut self, node: &Node<'_, 'a>) -> Checked<()> {
        let Node {
            addr, obj, attr, ..
        } = node;
        let at = *addr;
        ensure((obj.kind as usize) < TYPES, "object: unknown type", at)?;
        let deep = special_depth(obj.kind).map_or(obj.depth >= 0, |d| obj.depth == d);
        ensure(deep, "object: type at the wrong depth", at)?;
        ensure(
            self.levels.holds(at, obj, attr),
            "object: not where its level has it",
            at,
        )?;
        let known = obj.gp_index != 0 && obj.gp_index < self.topology.next_gp_index;
        // hwloc's check uses the lower 32 bits as a bitmap's index.
        ensure(
            known && obj.gp_index <= i32::MAX as u64,
            "object: index out of range",
            at,
        )?;
        let new = self.seen.insert(obj.gp_index);
        ensure(new, "object: index used twice", at)?;
        ensure(
            obj.symmetric_subtree & !1 == 0,
            "object: bad symmetry flag",
            at,
        )?;
        self.filter(node)?;
        self.attributes(node)?;
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

    /// Types that the writer's filters exclude do not occur.
    fn filter(&self, node: &Node<'_, 'a>) -> Checked<()> {
        let filter = self.topology.type_filter.get(node.obj.kind as usize);
        let kept = match filter.copied() {
            None | Some(KEEP_NONE) => false,
            Some(KEEP_IMPORTANT) => match node.obj.kind {
                ty::PCI_DEVICE => {
                    let class = node.attr.pci_class();
                    matches!(class >> 8, 0..=3 | 6 | 0x0b | 0x12)
                        || matches!(class, 0x0c04 | 0x0c06 | 0x0502)
                }
                // DMA engines are the unimportant ones.
                ty::OS_DEVICE => node.attr.osdev_type() != 4,
                _ => true,
            },
            _ => true,
        };
        ensure(kept, "object: type is filtered out", node.addr)
    }

    fn attributes(&self, node: &Node<'_, 'a>) -> Checked<()> {
        let Node {
            addr, obj, attr, ..
        } = node;
        let at = *addr;
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
                ensure(right, "object: cache of another type", at)
            }
            ty::GROUP => ensure(
                attr.group_depth() != u32::MAX,
                "object: bad group depth",
                at,
            ),
            ty::NUMANODE => {
                let n = attr.page_types_len() as usize;
                let pages = self
                    .image
                    .slice::<u64>(attr.page_types(), n.saturating_mul(2));
                // hwloc's copy frees the address of an empty array.
                let inside = pages.is_some() && (n != 0 || attr.page_types() == 0);
                ensure(inside, "object: page types outside", at)?;
                let bit = obj.os_index;
                let sets = node.sets.as_ref();
                let alone =
                    sets.is_some_and(|s| s.nodeset.is_only(bit) && s.complete_nodeset.is_only(bit));
                ensure(alone, "object: set of a memory node", at)?;
                let loose = self.topology.flags & FLAG_INCLUDE_DISALLOWED != 0;
                let allowed = loose || self.allowed_nodeset.is_set(bit);
                ensure(allowed, "object: a memory node that is not allowed", at)
            }
            ty::BRIDGE => ensure(
                attr.bridge_upstream() <= 1 && attr.bridge_downstream() == 1,
                "object: bad bridge",
                at,
            ),
            ty::OS_DEVICE => ensure(attr.osdev_type() <= 6, "object: bad OS device", at),
            _ => Ok(()),
        }
    }
}
