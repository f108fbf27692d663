// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tree of objects: links, types, sets, attributes.

use super::{attributes, Levels, MAX_DEPTH};
use crate::hwloc::image::{ensure, same_words, Bits, Checked, Corrupt, Image, Union, NOTHING};
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use core::cell::Cell;
use core::mem::{size_of, MaybeUninit};

/// The lists of children an object may have beside the normal ones.
#[derive(Clone, Copy)]
enum Class {
    Memory,
    Io,
    Misc,
}

/// Where an object and its sets are read to.
struct Place<'a> {
    obj: MaybeUninit<Obj>,
    cpus: MaybeUninit<Pair<'a>>,
    nodes: MaybeUninit<Pair<'a>>,
}

impl Place<'_> {
    const NOWHERE: Self = Place {
        obj: MaybeUninit::uninit(),
        cpus: MaybeUninit::uninit(),
        nodes: MaybeUninit::uninit(),
    };
}

/// An object under check, as it was read, with its sets. Devices have none:
/// theirs are empty here.
struct Node<'n, 'a> {
    addr: Addr,
    obj: &'n Obj,
    cpus: &'n Pair<'a>,
    nodes: &'n Pair<'a>,
}

/// A set and its complete form, and where they were read: an object below
/// often has the same two, and they need no second look. Address 0 is none,
/// also where a file says so.
struct Pair<'a> {
    addr: Addr,
    complete_addr: Addr,
    set: Bits<'a>,
    complete: Bits<'a>,
}

impl Pair<'_> {
    #[inline]
    fn words(&self) -> usize {
        self.set.words.len() + self.complete.words.len()
    }
}

/// Words of a set that is put together without an allocation.
const SMALL_SET: usize = 8;

/// The sets of a device, and those above the root.
const NO_SETS: Pair<'static> = Pair {
    addr: 0,
    complete_addr: 0,
    set: NOTHING,
    complete: NOTHING,
};

/// Where a list of children is, and what the next one has to say.
struct Siblings {
    parent: Addr,
    prev: Addr,
    next: Addr,
    rank: u32,
    arity: u32,
}

impl Siblings {
    fn of(parent: &Node<'_, '_>, first: Addr, arity: u32) -> Self {
        Siblings {
            parent: parent.addr,
            prev: 0,
            next: first,
            rank: 0,
            arity,
        }
    }

    /// Checks the links of the next child, and goes on to the one behind it.
    #[inline(always)]
    fn check(&mut self, child: &Node<'_, '_>) -> Checked<()> {
        let c = child.obj;
        let linked = c.parent == self.parent
            && c.sibling_rank == self.rank
            && c.prev_sibling == self.prev
            && (c.next_sibling == 0) == (self.rank + 1 == self.arity);
        ensure(linked, "object: wrong links between siblings", child.addr)?;
        self.rank += 1;
        self.prev = child.addr;
        self.next = c.next_sibling;
        Ok(())
    }
}

/// Whether an object has no normal children.
fn has_no_children(obj: &Obj) -> bool {
    obj.arity == 0 && obj.children == 0 && obj.first_child == 0 && obj.last_child == 0
}

/// Which indexes were seen: hwloc's own check wants each once.
struct Seen {
    words: Vec<u64>,
    far: Vec<u64>,
}

impl Seen {
    fn new(objects: usize) -> Checked<Self> {
        Ok(Seen {
            words: memory::filled(0, objects / 16 + 16)?,
            far: Vec::new(),
        })
    }

    fn insert(&mut self, index: u64) -> Checked<bool> {
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
    /// hwloc's own check wants none that is larger, or 0.
    largest_gp_index: u64,
    /// The attributes last found to be right, for each level: often all
    /// objects of a level share them.
    attributes: Vec<Addr>,
    visited: usize,
    empty_infos: bool,
    odd: Cell<bool>,
    /// Objects nested too deeply to go on from one to the next below it, with
    /// all above them checked.
    deep: Vec<Deep>,
    /// Memory nodes attached to an ancestor, one set for each that has any.
    inherited: Vec<Union>,
    /// Where a set was read that is just those nodes, if one was.
    plain: Addr,
    /// Buffers given back.
    spare: Vec<Union>,
}

/// An object whose check is put off, with what is above it.
struct Deep {
    addr: Addr,
    nesting: usize,
    inherited: Union,
}

/// Objects below each other that are checked in one go. The stack may be a
/// small thread's.
const IN_ONE_GO: usize = 24;

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
    /// Notes where what hwloc's own check wants does not hold, and nothing else
    /// depends on it.
    #[inline(always)]
    fn want(&self, condition: bool) {
        if !condition {
            self.odd.set(true);
        }
    }

    /// Charges words of sets that are about to be looked at.
    #[inline]
    fn charge(&self, words: usize, at: Addr) -> Checked<()> {
        self.image.charge(words * 8).ok_or(Corrupt {
            what: "object: sets that overlap others",
            at,
        })
    }

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

    /// Reads an object below one with the sets `above`.
    // Not a call: its answer is large, and would be copied once more.
    #[inline(always)]
    fn node<'n>(
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
    fn pair<'n>(
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

    fn root_sets(&self, root: &Node<'_, 'a>) -> Checked<()> {
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

    /// Checks an object and all below it.
    fn visit(&mut self, node: &Node<'_, 'a>, nesting: usize) -> Checked<()> {
        let at = node.addr;
        let o = node.obj;
        ensure(nesting < MAX_DEPTH, "object: nested too deeply", at)?;
        self.visited += 1;
        // The arrays of the levels hold each object once: there can be more
        // only if somebody changes the file under the check.
        let known = self.visited <= self.levels.total();
        ensure(known, "object: more than the levels hold", at)?;
        // The next on this level is visited when all below this one was.
        self.image.soon(o.next_cousin, size_of::<Obj>());
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

    /// An empty set, from those that were given back if possible.
    fn union(&mut self) -> Union {
        let mut union = self.spare.pop().unwrap_or_default();
        union.clear();
        union
    }

    /// The memory nodes attached to the object under check or above.
    fn inherited(&self) -> Bits<'_> {
        self.inherited.last().map_or(NOTHING, Union::as_bits)
    }

    /// The memory children: the nodes attached to this object or above are
    /// on top of `inherited` then.
    #[inline(never)]
    fn memory(&mut self, node: &Node<'_, 'a>, nesting: usize, total: &mut u64) -> Checked<()> {
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

    /// Whether a set is exactly the memory nodes attached here or above.
    #[inline]
    fn is_inherited(&mut self, nodes: &Pair<'_>) -> Checked<bool> {
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

    /// A processor: its own set, and no children.
    #[inline]
    fn processor(&mut self, node: &Node<'_, 'a>) -> Checked<()> {
        let at = node.addr;
        let bit = node.obj.os_index;
        let cpus = node.cpus;
        let alone = cpus.set.is_only(bit)
            && (cpus.addr == cpus.complete_addr || cpus.complete.is_only(bit));
        self.want(alone);
        let loose = self.topology.flags & FLAG_INCLUDE_DISALLOWED != 0;
        self.want(loose || self.allowed_cpuset.is_set(bit));
        let whole = self.is_inherited(node.nodes)?;
        self.want(whole);
        let leaf = has_no_children(node.obj);
        ensure(leaf, "object: children of a processor", at)
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
        let last = array.last().copied().unwrap_or(0) == p.last_child;
        ensure(last, "object: wrong last child", node.addr)?;
        Ok(array)
    }

    /// Reads a normal child, which stands where its siblings and the array
    /// say.
    #[inline(always)]
    fn child<'n>(
        &self,
        node: &'n Node<'_, 'a>,
        listed: Addr,
        siblings: &mut Siblings,
        place: &'n mut Place<'a>,
    ) -> Checked<Node<'n, 'a>> {
        let right = listed == siblings.next;
        ensure(right, "object: wrong links between siblings", siblings.next)?;
        let child = self.node(listed, place, (node.cpus, node.nodes))?;
        siblings.check(&child)?;
        let right = is_normal(child.obj.kind) && child.obj.depth > node.obj.depth;
        ensure(right, "object: in the wrong list of children", child.addr)?;
        Ok(child)
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
            let new = child.cpus.set.move_into(cpus);
            self.want(new);
            if !self.is_inherited(child.nodes)? {
                let new = self.add_nodes(&mut nodes, &child.nodes.set)?;
                self.want(new);
            }
            let first = child.cpus.complete.first();
            let ordered = first.is_none() || (!empty_before && before < first);
            empty_before |= first.is_none();
            before = first;
            self.want(ordered);
            self.below(&child, nesting + 1)?;
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

    /// Adds a child's memory nodes to those of its siblings and those
    /// attached above, which all may have.
    #[inline(never)]
    fn add_nodes(&mut self, nodes: &mut Option<Union>, set: &Bits<'_>) -> Checked<bool> {
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
            siblings.check(&child)?;
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

    /// Types that the writer's filters exclude do not occur.
    fn filters(&mut self) {
        for level in self.levels.iter() {
            let filter = self.topology.type_filter.get(level.kind as usize);
            let kept = level.objs.is_empty() || filter.is_some_and(|f| *f != KEEP_NONE);
            self.want(kept);
        }
    }

    /// What concerns one object alone. Answers its own memory.
    #[inline(always)]
    fn scalars(&mut self, node: &Node<'_, 'a>) -> Checked<u64> {
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
    fn texts(&mut self, node: &Node<'_, 'a>) -> Checked<()> {
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
    fn attributes(&mut self, node: &Node<'_, 'a>) -> Checked<u64> {
        let obj = node.obj;
        let at = node.addr;
        let attr: Attr = self.image.get(obj.attr).ok_or(Corrupt {
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
    fn important(&mut self, obj: &Obj, important: bool) {
        let filter = self.topology.type_filter.get(obj.kind as usize);
        self.want(important || filter != Some(&KEEP_IMPORTANT));
    }

    fn memory_node(&mut self, node: &Node<'_, 'a>, attr: &Attr) -> Checked<()> {
        let at = node.addr;
        let n = attr.page_types_len() as usize;
        let pages = self
            .image
            .slice::<u64>(attr.page_types(), n.saturating_mul(2));
        // hwloc's copy frees the address of an empty array.
        let inside = pages.is_some() && (n != 0 || attr.page_types() == 0);
        ensure(inside, "object: page types outside", at)?;
        let bit = node.obj.os_index;
        let alone = node.nodes.set.is_only(bit) && node.nodes.complete.is_only(bit);
        self.want(alone);
        let loose = self.topology.flags & FLAG_INCLUDE_DISALLOWED != 0;
        self.want(loose || self.allowed_nodeset.is_set(bit));
        Ok(())
    }
}
