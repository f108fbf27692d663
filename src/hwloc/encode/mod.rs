// SPDX-License-Identifier: MIT OR Apache-2.0
//! A topology as the bytes of a file, for a given address.
//!
//! The parts lie in the order header, topology, objects level by level, then
//! all the rest. So the address of an object follows from its depth and
//! logical index, and no table is needed. What is equal is written once:
//! sets, attributes and strings are read-only for whoever adopts. So are the
//! arrays of children: they are parts of the array of a level. The arrays
//! of sets end at their last member, and sets whose members all fall into
//! one word share a run of zeros before that word: a machine with 10,000
//! processors would otherwise be mostly zeros.

mod buffer;
mod encoder;
mod named;
mod objects;
mod shared;

pub use self::buffer::without_kept_if_short;

use self::buffer::Buffer;
use self::encoder::{Encoder, Run};
use crate::error::Result;
use crate::hwloc::image::{work_for, Image, OrInvalid};
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use crate::hwloc::validate::{Levels, MAX_DEPTH};
use core::mem::{offset_of, size_of};

/// Room for the topology structure: an adopter of any release copies its own
/// size of it, so zeros have to follow.
const TOPOLOGY_ROOM: usize = 1024;

/// Room for as many strings as small machines have.
const STRINGS: usize = 28;
/// The same for sets that end with different words.
const RUNS: usize = 14;

/// A topology as bytes.
pub struct Encoded {
    pub bytes: Buffer,
    /// Nothing was seen that a check of the tree could refuse.
    pub sure: bool,
}

/// Encodes `t`, whose pointers lead into `source`, for `base`. The header
/// says that `length` bytes belong to the file; the result may be longer.
///
/// `support` is how many bytes each support array of the source has.
pub fn encode(
    source: &Image<'_>,
    t: &Topology,
    support: [usize; 4],
    base: Addr,
    length: usize,
) -> Result<Encoded> {
    let levels = Levels::read(source, t)?;
    let root = levels.at(0).and_then(|l| l.objs.first()).copied();
    let root_cpus = root
        .and_then(|r| source.get::<Obj>(r))
        .and_then(|r| source.bitmap(r.cpuset))
        .valid()?;
    let mut encoder = Encoder {
        source: *source,
        levels: &levels,
        base,
        // What needs more than `length` is not written: a program may be short of
        // memory.
        buffer: Buffer::with_capacity(length.min(levels.total() * 300 + (16 << 10)))?,
        normal: memory::list(levels.depth())?,
        special: [0; SPECIAL_LEVELS],
        arrays: memory::list(levels.depth())?,
        runs: memory::map(RUNS)?,
        singles: [Run::default(); 64],
        strings: memory::map(STRINGS)?,
        root_cpus,
        no_attr: 0,
        looked_at: 0,
        longest: 0,
        objects: 0..0,
        sum: 0,
    };
    encoder.whole(t, support, length)?;
    Ok(Encoded {
        sure: encoder.is_sure(length),
        bytes: encoder.buffer,
    })
}

impl<'a> Encoder<'a, '_> {
    fn supports(&mut self, t: &mut Topology, support: [usize; 4]) -> Result<()> {
        for (array, bytes) in [
            &mut t.support_discovery,
            &mut t.support_cpubind,
            &mut t.support_membind,
            &mut t.support_misc,
        ]
        .into_iter()
        .zip(support)
        {
            let from = self.source.slice::<u8>(*array, bytes).valid()?;
            let at = self.reserve(16)?;
            self.buffer.bytes()[at..at + from.len()].copy_from_slice(from);
            *array = self.addr(at);
        }
        Ok(())
    }

    fn whole(&mut self, source: &Topology, support: [usize; 4], length: usize) -> Result<()> {
        let head = size_of::<Header>();
        self.objects.start = head + TOPOLOGY_ROOM;
        self.reserve(self.objects.start)?;
        for depth in 0..self.levels.depth() {
            let objs = self.levels.at(depth as i32).valid()?.objs.len();
            let at = self.claim(objs * size_of::<Obj>())?;
            self.normal.push(at);
        }
        for i in 0..SPECIAL_LEVELS {
            let objs = self
                .levels
                .at(DEPTH_NUMANODE - i as i32)
                .valid()?
                .objs
                .len();
            self.special[i] = self.claim(objs * size_of::<Obj>())?;
        }
        self.objects.end = self.buffer.used;
        self.no_attr = self.put_attr(&Attr::NONE)?;
        for depth in 0..self.levels.depth() {
            let objs = self.levels.at(depth as i32).valid()?.objs.len();
            let array = self.row(self.normal[depth], objs)?;
            self.arrays.push(array);
        }

        let mut t = *source;
        let allowed = (source.allowed_cpuset, source.allowed_nodeset);
        t.allowed_cpuset = self.bitmap(allowed.0, &[])?;
        t.allowed_nodeset = self.bitmap(allowed.1, &[])?;
        for depth in 0..self.levels.depth() {
            self.level(depth as i32)?;
        }
        // Memory caches before the nodes below them.
        for i in (0..SPECIAL_LEVELS).rev() {
            self.level(DEPTH_NUMANODE - i as i32)?;
        }
        self.level_arrays(&mut t)?;
        self.named(&mut t)?;
        self.cpukinds(&mut t)?;
        self.supports(&mut t, support)?;

        // Nothing of this process goes out but what the API promises.
        t.binding_hooks = [0; 24];
        t.userdata = 0;
        (t.userdata_export_cb, t.userdata_import_cb) = (0, 0);
        (t.adopted_shmem_addr, t.adopted_shmem_length) = (0, 0);
        (t.backends, t.pci_busid_backend) = (0, 0);
        t.grouping = [0; 8];
        (t.next_subkind, t._pad0, t._pad1, t._pad2) = (0, 0, 0, 0);
        t.is_loaded = 1;
        t.modified = 0;
        t.tma = self.buffer.used as u64;
        t.sum = 0;
        let abi = self.source.abi();
        let room = self.buffer.bytes().get_mut(head..).valid()?;
        abi.put(&t, room).valid()?;
        self.set(
            0,
            Header {
                version: HEADER_VERSION,
                header_length: head as u32,
                mmap_address: self.base,
                mmap_length: length as u64,
            },
        );
        let sum = self.total();
        self.set(head + abi.at(offset_of!(Topology, sum)), sum);
        Ok(())
    }

    /// Whether a check of the tree finds nothing to refuse: the links are right
    /// as they were made here, what the source can have wrong was looked at, and
    /// nothing is nested too deeply or, for a file of `length`, too much work.
    fn is_sure(&self, length: usize) -> bool {
        // Special levels, memory among them, can be nested.
        let special = (0..SPECIAL_LEVELS).filter_map(|i| self.levels.at(DEPTH_NUMANODE - i as i32));
        let nested = special.map(|level| level.objs.len()).sum::<usize>() + self.levels.depth();
        // A set of an object is looked at so often, by `validate::tree`.
        let sets = self.levels.total() * self.longest * 8 * 15;
        let work = sets + 4 * (self.looked_at + self.buffer.used);
        nested < MAX_DEPTH && work as u64 <= work_for(length).get()
    }

    fn level_arrays(&mut self, t: &mut Topology) -> Result<()> {
        let depth = self.levels.depth();
        let arrays = self.reserve(depth * 8)?;
        let counts = self.reserve(depth * 4)?;
        for d in 0..depth {
            let objs = self.levels.at(d as i32).valid()?.objs;
            let array = self.addr(self.arrays[d]);
            self.set(arrays + d * 8, array);
            self.set(counts + d * 4, objs.len() as u32);
        }
        t.levels = self.addr(arrays);
        t.level_nbobjects = self.addr(counts);
        for i in 0..SPECIAL_LEVELS {
            let objs = self.levels.at(DEPTH_NUMANODE - i as i32).valid()?.objs;
            let first = self.special[i];
            let array = self.row(first, objs.len())?;
            let end = |index: usize| self.addr(first + index * size_of::<Obj>());
            let ends = match objs.len() {
                0 => [0; 3],
                n => [self.addr(array), end(0), end(n - 1)],
            };
            t.slevels[i] = SpecialLevel {
                nbobjs: objs.len() as u32,
                _pad: 0,
                objs: ends[0],
                first: ends[1],
                last: ends[2],
            };
        }
        Ok(())
    }
}
