// SPDX-License-Identifier: MIT OR Apache-2.0
//! Is a file a topology, whole and consistent?
//!
//! What passes here can be walked, queried, exported, copied, compared and
//! checked by hwloc without a crash, an endless loop or a read outside the
//! file. The work is linear in what is read, however a file is made: each set
//! of each object is charged to it.
//!
//! Some numbers say the same as others: the sets of an object and of those
//! below it, an object's index, its attributes, the memory of a node. A program
//! may change them, and hwloc itself now and then gets them wrong. Stock shares
//! that, and so do we; but `hwloc_topology_check()` aborts on it, on the
//! original too. What is so is [`Report::odd`]; all else that check has nothing
//! to abort on. Damage would look the same: the sum that our writer keeps in the
//! file tells it.
//!
//! Two steps need nothing but pointers inside the file: `levels` finds the
//! arrays of objects, `tree` walks from the root. No mark on visited
//! objects is needed: an object is reached only from the parent it names, by the
//! list of its type there, which ends after as many as the parent says, and must
//! stand in the level array where it says. So a cycle or a second path cannot be
//! built, and when as many objects were reached as the arrays hold, each entry of
//! the arrays was. Ranks, the way back and the array of children say the same as
//! the list; hwloc itself can leave them in another order.

#![deny(clippy::indexing_slicing)]

mod attributes;
mod levels;
mod tree;

use super::image::{ensure, Checked, Corrupt, Image};
use super::layout::*;
use crate::hwloc::bits::sum;
use crate::hwloc::memory;
use core::mem::size_of;
pub use levels::Levels;

/// Deepest nesting of objects: hwloc recurses over the tree, and so a file
/// could otherwise exhaust the stack. With 8 MiB of it hwloc copies, checks and
/// exports twice as many levels.
pub const MAX_DEPTH: usize = 16384;

/// What a check learned.
#[derive(Clone, Debug)]
pub struct Report {
    /// The topology's own structure, a copy: on the heap, as a thread's stack may
    /// be small.
    pub topology: Box<Topology>,
    /// Number of objects of all levels.
    pub objects: usize,
    /// Whether every cached object pointer of distances and memory
    /// attributes has been resolved by the writer.
    pub resolved: bool,
    /// Whether an object without infos has an address for them. Stock writes
    /// that, and later releases abort on it when they check a topology.
    pub empty_infos: bool,
    /// Whether `hwloc_topology_check()` would abort on numbers or sets that do
    /// not fit each other.
    pub odd: bool,
}

/// Reads and checks the 24 bytes at the start.
pub fn header(header: &Header, addr: Addr, length: u64) -> Checked<()> {
    ensure(
        header.version == HEADER_VERSION,
        "header: unknown version",
        0,
    )?;
    ensure(
        header.header_length as usize == size_of::<Header>(),
        "header: unknown size",
        0,
    )?;
    ensure(
        header.mmap_address == addr,
        "header: written for another address",
        0,
    )?;
    ensure(
        header.mmap_length == length,
        "header: written with another length",
        0,
    )
}

/// Checks the whole image.
pub fn image(image: &Image<'_>) -> Checked<Report> {
    let base = image.base();
    let head: Header = image.get(base).ok_or(Corrupt {
        what: "shorter than a header",
        at: base,
    })?;
    header(&head, base, image.len() as u64)?;
    let report = contents(image)?;
    if report.odd {
        let whole = is_whole(image, &report.topology).is_none_or(|whole| whole);
        ensure(whole, "topology: damaged since it was written", base)?;
    }
    Ok(report)
}

/// Whether the sum of all words is the one that the writer kept, if it did.
fn is_whole(image: &Image<'_>, t: &Topology) -> Option<bool> {
    let used = t.in_use(image.len() as u64).filter(|_| t.sum != 0)?;
    let words = image.slice::<u64>(image.base(), used as usize / 8)?;
    // One of them is the sum.
    Some(sum(words) == t.sum.wrapping_mul(2))
}

/// Checks all but the tree of objects and the header.
pub fn around(image: &Image<'_>) -> Checked<()> {
    let (topology, levels) = beginning(image)?;
    attributes::check(image, &topology, &levels).map(|_| ())
}

#[inline(never)]
fn beginning<'a>(image: &Image<'a>) -> Checked<(Box<Topology>, Levels<'a>)> {
    let base = image.base();
    let at = base + size_of::<Header>() as u64;
    let topology = image.topology(at).ok_or(Corrupt {
        what: "shorter than a topology",
        at,
    })?;
    let topology = memory::boxed(topology)?;
    fields(image, &topology, at)?;
    let levels = Levels::read(image, &topology)?;
    Ok((topology, levels))
}

/// Checks all but the header, of an image that may be shorter than that says.
pub fn contents(image: &Image<'_>) -> Checked<Report> {
    let (topology, levels) = beginning(image)?;
    let tree = tree::check(image, &topology, &levels)?;
    let resolved = attributes::check(image, &topology, &levels)?;
    Ok(Report {
        topology,
        objects: levels.total(),
        resolved,
        empty_infos: tree.empty_infos,
        odd: tree.odd,
    })
}

/// The plain fields of the topology structure.
fn fields(image: &Image<'_>, t: &Topology, at: Addr) -> Checked<()> {
    ensure(t.abi == image.abi().number, "topology: another layout", at)?;
    ensure(t.is_loaded == 1, "topology: not loaded", at)?;
    ensure(t.modified == 0, "topology: being modified", at)?;
    ensure(
        t.backends == 0 && t.pci_busid_backend == 0,
        "topology: backends left in",
        at,
    )?;
    ensure(
        t.userdata_not_decoded & !1 == 0,
        "topology: bad userdata mode",
        at,
    )?;
    let supports = [
        t.support_discovery,
        t.support_cpubind,
        t.support_membind,
        t.support_misc,
    ];
    for (addr, bytes) in supports.into_iter().zip(SUPPORT_BYTES) {
        let found = image.slice::<u8>(addr, bytes).is_some() && addr % 8 == 0;
        ensure(found, "topology: support array outside", addr)?;
    }
    for (kind, filter) in t.type_filter.iter().enumerate() {
        let kind = kind as u32;
        // "Important" is a notion of I/O only.
        let limit = if is_io(kind) || is_special(kind) {
            KEEP_IMPORTANT
        } else {
            KEEP_IMPORTANT - 1
        };
        ensure(*filter <= limit, "topology: bad type filter", at)?;
    }
    Ok(())
}
