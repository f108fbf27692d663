// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tree of objects: links, types, sets, attributes.

mod node;
mod object;
mod sets;
mod walk;

use self::node::{has_no_children, Class, Node, Place, Siblings, NO_SETS};
use self::walk::{Deep, Seen, Walk};
use super::{Levels, MAX_DEPTH};
use crate::hwloc::bits::{add_bit, same_words, Union, NOTHING};
use crate::hwloc::image::{ensure, Checked, Corrupt, Image};
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use core::cell::Cell;
use core::mem::size_of;

/// Words of a set that is put together without an allocation.
const SMALL_SET: usize = 8;

/// Objects below each other that are checked in one go. The stack may be a
/// small thread's.
const IN_ONE_GO: usize = 12;

/// What a walk learned.
#[derive(Clone, Copy)]
pub struct Found {
    /// Some object has an address for infos and no infos.
    pub empty_infos: bool,
    /// Some numbers or sets do not fit each other.
    pub odd: bool,
}

/// Walks from the root and checks each object once.
pub fn check<'a>(image: &Image<'a>, t: &Topology, levels: &Levels<'a>) -> Checked<Found> {
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
        seen: Seen::new(levels.total())?,
        // It uses the lower 32 bits as a bitmap's index.
        largest_gp_index: t.next_gp_index.saturating_sub(1).min(i32::MAX as u64),
        attributes: memory::filled(0, levels.iter().count())?,
        visited: 0,
        empty_infos: false,
        odd: Cell::new(false),
        deep: Vec::new(),
        inherited: memory::list(IN_ONE_GO + 1)?,
        plain: 0,
        spare: Vec::new(),
    };
    walk.inherited.push(Union::default());
    walk.filters();
    let root = levels.at(0).and_then(|l| l.objs.first()).copied();
    let mut place = Place::NOWHERE;
    let root = walk.node(root.unwrap_or(0), &mut place, (&NO_SETS, &NO_SETS))?;
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
    walk.put_off()?;
    ensure(
        walk.visited == levels.total(),
        "level: holds objects that are not in the tree",
        root.addr,
    )?;
    // hwloc's own check wants each index once.
    let odd = !walk.seen.distinct() || walk.odd.get();
    Ok(Found {
        empty_infos: walk.empty_infos,
        odd,
    })
}

impl<'a> Walk<'a, '_> {
    /// Checks what was put off.
    fn put_off(&mut self) -> Checked<()> {
        while let Some(deep) = self.deep.pop() {
            self.inherited.clear();
            memory::push(&mut self.inherited, deep.inherited)?;
            self.plain = 0;
            let mut place = Place::NOWHERE;
            let node = self.node(deep.addr, &mut place, (&NO_SETS, &NO_SETS))?;
            self.visit(&node, deep.nesting)?;
        }
        Ok(())
    }

    /// Checks an object below another, or puts it off.
    #[inline(always)]
    fn below(&mut self, node: &Node<'_, 'a>, nesting: usize) -> Checked<()> {
        if nesting % IN_ONE_GO != 0 {
            return self.visit(node, nesting);
        }
        self.defer(node, nesting)
    }

    #[cold]
    #[inline(never)]
    fn defer(&mut self, node: &Node<'_, 'a>, nesting: usize) -> Checked<()> {
        let mut inherited = Union::default();
        self.charge(self.inherited().words.len(), node.addr)?;
        inherited.add_disjoint(&self.inherited(), &NOTHING)?;
        let deep = Deep {
            addr: node.addr,
            nesting,
            inherited,
        };
        Ok(memory::push(&mut self.deep, deep)?)
    }

    /// Checks an object and all below it.
    fn visit(&mut self, node: &Node<'_, 'a>, nesting: usize) -> Checked<()> {
        let at = node.addr;
        let o = node.obj;
        ensure(nesting < MAX_DEPTH, "object: nested too deeply", at)?;
        self.count(node)?;
        let local = self.scalars(node)?;
        let mut memory = 0;
        let has_memory = o.memory_arity != 0;
        if has_memory {
            self.memory(node, nesting, &mut memory)?;
        } else {
            let none = o.memory_first_child == 0;
            ensure(none, "object: children although there are none", at)?;
        }
        if o.kind == ty::PU {
            self.processor(node)?;
        } else if !is_normal(o.kind) {
            let none = has_no_children(o);
            ensure(none, "object: normal children below another kind", at)?;
        } else if o.arity == 1 {
            self.only_child(node, nesting, &mut memory)?;
        } else {
            self.children(node, nesting, &mut memory)?;
        }
        if has_memory {
            if let Some(union) = self.inherited.pop() {
                memory::push(&mut self.spare, union)?;
            }
            self.plain = 0;
        }
        self.want(memory.wrapping_add(local) == o.total_memory);
        if (o.io_arity | o.misc_arity) != 0 || (o.io_first_child | o.misc_first_child) != 0 {
            self.others(node, Class::Io, nesting, &mut |_, _| Ok(()))?;
            self.others(node, Class::Misc, nesting, &mut |_, _| Ok(()))?;
        }
        Ok(())
    }

    /// Counts an object that is visited.
    #[inline(always)]
    fn count(&mut self, node: &Node<'_, 'a>) -> Checked<()> {
        self.visited += 1;
        // The arrays of the levels hold each object once: there can be more
        // only if somebody changes the file under the check.
        let known = self.visited <= self.levels.total();
        ensure(known, "object: more than the levels hold", node.addr)?;
        // The next on this level is visited when all below this one was.
        self.image.soon(node.obj.next_cousin, size_of::<Obj>());
        Ok(())
    }

    /// Checks a processor with its own set and `whole` memory, and answers true,
    /// unless something is below it. Half of all objects are such.
    #[inline(always)]
    fn leaf(&mut self, node: &Node<'_, 'a>, whole: bool) -> Checked<bool> {
        let o = node.obj;
        let arity = o.arity | o.memory_arity | o.io_arity | o.misc_arity;
        let first = o.memory_first_child | o.io_first_child | o.misc_first_child;
        if arity != 0 || first | o.children | o.first_child | o.last_child != 0 {
            return Ok(false);
        }
        self.count(node)?;
        let local = self.scalars(node)?;
        self.want(whole && local == o.total_memory && self.may_use(o.os_index));
        Ok(true)
    }

    /// The array of normal children.
    #[inline(always)]
    fn listed(&self, node: &Node<'_, 'a>) -> Checked<&'a [Addr]> {
        let p = node.obj;
        let array = self.image.slice::<Addr>(p.children, p.arity as usize);
        let array = array.ok_or(Corrupt {
            what: "object: array of children outside",
            at: node.addr,
        })?;
        if array.last().copied().unwrap_or(0) != p.last_child {
            self.elsewhere(p.last_child, node.addr)?;
        }
        Ok(array)
    }

    /// Reads the normal child that is next in the list. Where the array says
    /// another, that is a child, too.
    #[inline(always)]
    fn child<'n>(
        &self,
        node: &'n Node<'_, 'a>,
        listed: Addr,
        siblings: &mut Siblings,
        place: &'n mut Place<'a>,
    ) -> Checked<Node<'n, 'a>> {
        if listed != siblings.next {
            self.elsewhere(listed, node.addr)?;
        }
        let child = self.node(siblings.next, place, (node.cpus, node.nodes))?;
        self.linked(siblings, &child)?;
        let right = is_normal(child.obj.kind) && child.obj.depth > node.obj.depth;
        ensure(right, "object: in the wrong list of children", child.addr)?;
        Ok(child)
    }

    /// Checks the links of the next child, and goes on to the one behind it.
    #[inline(always)]
    fn linked(&self, siblings: &mut Siblings, child: &Node<'_, 'a>) -> Checked<()> {
        if !siblings.are_right(child.obj) {
            self.out_of_order(siblings, child)?;
        }
        siblings.pass(child);
        Ok(())
    }

    /// A restriction can put a list in another order, of processors that are
    /// left, and leave the ranks, the way back and the array as they were. The
    /// list alone leads to the children, and ends.
    #[cold]
    #[inline(never)]
    fn out_of_order(&self, siblings: &Siblings, child: &Node<'_, 'a>) -> Checked<()> {
        let c = child.obj;
        let in_list = c.parent == siblings.parent
            && c.sibling_rank < siblings.arity
            && (c.next_sibling == 0) == (siblings.rank + 1 == siblings.arity);
        ensure(in_list, "object: wrong links between siblings", child.addr)?;
        match c.prev_sibling {
            0 => self.want(false),
            before => self.elsewhere(before, siblings.parent)?,
        }
        Ok(())
    }

    /// An object that is named at the wrong place is a child of that parent.
    #[cold]
    #[inline(never)]
    fn elsewhere(&self, addr: Addr, parent: Addr) -> Checked<()> {
        self.want(false);
        let obj = self.levels.object(self.image, addr);
        let child = obj.is_some_and(|obj| obj.parent == parent);
        ensure(child, "object: wrong links between siblings", addr)
    }

    /// An only child has the same two sets. Its own check, that they are what
    /// is attached above or below it, is the parent's too.
    #[inline(always)]
    fn only_child(&mut self, node: &Node<'_, 'a>, nesting: usize, memory: &mut u64) -> Checked<()> {
        let mut place = Place::NOWHERE;
        let mut siblings = Siblings::of(node, node.obj.first_child, 1);
        let listed = self.listed(node)?.first().copied().unwrap_or(0);
        let child = self.child(node, listed, &mut siblings, &mut place)?;
        *memory = memory.wrapping_add(child.obj.total_memory);
        let same = (child.cpus.addr == node.cpus.addr || child.cpus.set.equals(&node.cpus.set))
            && (child.nodes.addr == node.nodes.addr || child.nodes.set.equals(&node.nodes.set));
        self.want(same);
        self.below(&child, nesting + 1)
    }

    /// The normal children, none or several: their sets make up the parent's.
    #[inline(never)]
    fn children(&mut self, node: &Node<'_, 'a>, nesting: usize, memory: &mut u64) -> Checked<()> {
        let at = node.addr;
        let p = node.obj;
        let none = p.arity != 0 || has_no_children(p);
        ensure(none, "object: children although there are none", at)?;
        let array = self.listed(node)?;
        let whole = &node.cpus.set;
        let mut small = [0; SMALL_SET];
        let mut large;
        let cpus = match small.get_mut(..whole.words.len()) {
            Some(small) => small,
            None => {
                large = memory::filled(0, whole.words.len())?;
                large.as_mut_slice()
            }
        };
        // Below the memory nodes no child adds any: this stays empty.
        let mut nodes = None;
        let mut before = None;
        let mut empty_before = false;
        let mut siblings = Siblings::of(node, p.first_child, p.arity);
        let mut place = Place::NOWHERE;
        for listed in array {
            let child = self.child(node, *listed, &mut siblings, &mut place)?;
            *memory = memory.wrapping_add(child.obj.total_memory);
            let single = child.is_single();
            let (new, first) = match single {
                true => (add_bit(cpus, child.obj.os_index), Some(child.obj.os_index)),
                false => {
                    let new = child.cpus.set.move_into(cpus);
                    (new, child.cpus.complete.first())
                }
            };
            self.want(new);
            let whole = self.is_inherited(child.nodes)?;
            if !whole {
                let new = self.add_nodes(&mut nodes, &child.nodes.set)?;
                self.want(new);
            }
            let ordered = first.is_none() || (!empty_before && before < first);
            empty_before |= first.is_none();
            before = first;
            self.want(ordered);
            if !(single && self.leaf(&child, whole)?) {
                self.below(&child, nesting + 1)?;
            }
        }
        let complete = same_words(cpus, whole.words);
        self.want(complete);
        let complete = match nodes {
            None => self.is_inherited(node.nodes)?,
            Some(nodes) => {
                let same = nodes.as_bits().equals(&node.nodes.set);
                memory::push(&mut self.spare, nodes)?;
                same
            }
        };
        self.want(complete);
        Ok(())
    }

    /// Walks a list of children that are no part of the tree of processors:
    /// links first, then `each`, then below.
    #[inline(never)]
    fn others(
        &mut self,
        parent: &Node<'_, 'a>,
        class: Class,
        nesting: usize,
        each: &mut dyn FnMut(&mut Self, &Node<'_, 'a>) -> Checked<()>,
    ) -> Checked<()> {
        let p = parent.obj;
        let at = parent.addr;
        let (arity, first) = match class {
            Class::Memory => (p.memory_arity, p.memory_first_child),
            Class::Io => (p.io_arity, p.io_first_child),
            Class::Misc => (p.misc_arity, p.misc_first_child),
        };
        if arity == 0 {
            return ensure(first == 0, "object: children although there are none", at);
        }
        let may = match class {
            Class::Memory => (is_normal(p.kind) && p.kind != ty::PU) || p.kind == ty::MEMCACHE,
            Class::Io => is_normal(p.kind) || is_io(p.kind),
            Class::Misc => true,
        };
        ensure(may, "object: children that its type cannot have", at)?;
        let mut siblings = Siblings::of(parent, first, arity);
        let mut place = Place::NOWHERE;
        for _ in 0..arity {
            let above = (parent.cpus, parent.nodes);
            let child = self.node(siblings.next, &mut place, above)?;
            self.linked(&mut siblings, &child)?;
            let right = match class {
                Class::Memory => is_memory(child.obj.kind),
                Class::Io => is_io(child.obj.kind),
                Class::Misc => child.obj.kind == ty::MISC,
            };
            ensure(right, "object: in the wrong list of children", child.addr)?;
            each(self, &child)?;
            self.below(&child, nesting + 1)?;
        }
        Ok(())
    }
}
