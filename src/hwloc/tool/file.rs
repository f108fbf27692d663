// SPDX-License-Identifier: MIT OR Apache-2.0
//! A shared-memory topology as a file to look into, without libhwloc: for the
//! command-line tool.

use crate::hwloc::image::{work_for, Corrupt, Image};
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use crate::hwloc::range::file::data;
use crate::hwloc::validate::{self, Report};
use core::mem::size_of;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Largest file that is read.
const LARGEST: u64 = 4 << 30;

/// A file in memory, checked.
pub struct File {
    words: Vec<u64>,
    pub header: Header,
    pub report: Report,
    /// Bytes in use, if the writer says (ours does).
    pub used: Option<u64>,
}

/// Why a file cannot be looked into.
#[derive(Debug)]
pub enum Refused {
    Io(io::Error),
    /// Not even a header.
    Short,
    Corrupt(Corrupt),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Refused::Io(error)
    }
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Refused::Io(error) => error.fmt(f),
            Refused::Short => f.write_str("too short for a topology"),
            Refused::Corrupt(c) if c.at == 0 => f.write_str(c.what),
            Refused::Corrupt(c) => write!(f, "{} (at {:#x})", c.what, c.at),
        }
    }
}

/// An object, as far as a reader wants to know it.
#[derive(Debug)]
pub struct Object {
    pub kind: u32,
    pub depth: i32,
    pub os_index: u32,
    pub logical_index: u32,
    pub name: Option<String>,
    pub subtype: Option<String>,
    pub attr: Attr,
    pub total_memory: u64,
    pub infos: Vec<(String, String)>,
    pub normal: Vec<Object>,
    pub memory: Vec<Object>,
    pub io: Vec<Object>,
    pub misc: Vec<Object>,
}

impl File {
    /// Reads and checks a topology that begins at `offset` of a file.
    ///
    /// # Errors
    /// What reading says, or what is wrong with the contents.
    pub fn open(path: &Path, offset: u64) -> Result<File, Refused> {
        let file = fs::File::open(path)?;
        let room = file.metadata()?.len().saturating_sub(offset);
        if room < (size_of::<Header>() + TOPOLOGY_COMMON) as u64 {
            return Err(Refused::Short);
        }
        let mut head = [0; 3];
        file.read_exact_at(as_bytes(&mut head), offset)?;
        let halves = head[0].to_ne_bytes();
        let half =
            |i: usize| u32::from_ne_bytes([halves[i], halves[i + 1], halves[i + 2], halves[i + 3]]);
        let header = Header {
            version: half(0),
            header_length: half(4),
            mmap_address: head[1],
            mmap_length: head[2],
        };
        if header.mmap_length > room.min(LARGEST) {
            return Err(Refused::Corrupt(Corrupt {
                what: "the file is shorter than its header says",
                at: 0,
            }));
        }
        let words = read(&file, offset, header.mmap_length)?;
        let report = with_image(&words, &header, |image| validate::image(&image))
            .ok_or(Refused::Short)?
            .map_err(Refused::Corrupt)?;
        let used = report.topology.in_use(header.mmap_length);
        Ok(File {
            words,
            header,
            report,
            used,
        })
    }

    /// The tree of objects.
    pub fn root(&self) -> Option<Object> {
        with_image(&self.words, &self.header, |image| {
            let levels: &[Addr] = image.slice(self.report.topology.levels, 1)?;
            let root: Addr = image.get(levels[0])?;
            object(&image, root)
        })?
    }

    /// Names of distances, of memory attributes with values, and the number
    /// of CPU kinds.
    pub fn extras(&self) -> (Vec<String>, Vec<String>, u32) {
        let t = &self.report.topology;
        let found = with_image(&self.words, &self.header, |image| {
            let mut distances = Vec::new();
            let mut at = t.first_dist;
            while let Some(d) = (at != 0).then(|| image.get::<Distances>(at)).flatten() {
                let name = text(&image, d.name).unwrap_or_else(|| "unnamed".to_string());
                distances.push(format!("{name} ({} objects)", d.nbobjs));
                at = d.next;
            }
            let attrs = image.slice::<Memattr>(t.memattrs, t.nr_memattrs as usize);
            let attrs = attrs.unwrap_or(&[]).iter().filter(|a| a.nr_targets != 0);
            let attrs = attrs.filter_map(|a| text(&image, a.name)).collect();
            (distances, attrs)
        });
        let (distances, attrs) = found.unwrap_or_default();
        (distances, attrs, t.nr_cpukinds)
    }
}

fn as_bytes(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: the same memory, as bytes.
    unsafe { core::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), size_of_val(words)) }
}

/// The bytes of a file from `offset` on, which has as many. Holes are left out:
/// they take memory no more than they do in the file.
fn read(file: &fs::File, offset: u64, length: u64) -> Result<Vec<u64>, Refused> {
    let no_memory = |_| Refused::Io(io::ErrorKind::OutOfMemory.into());
    let count = usize::try_from(length.div_ceil(8)).unwrap_or(usize::MAX);
    let mut words = memory::zeroed(count).map_err(no_memory)?;
    let bytes = &mut as_bytes(&mut words)[..length as usize];
    let end = offset + length;
    let mut at = offset;
    while let Some((from, to)) = data(file.as_raw_fd(), at, end) {
        let part = (from - offset) as usize..(to - offset) as usize;
        file.read_exact_at(&mut bytes[part], from)?;
        at = to;
    }
    Ok(words)
}

fn with_image<T>(words: &[u64], header: &Header, f: impl FnOnce(Image<'_>) -> T) -> Option<T> {
    let (base, length) = (header.mmap_address, header.mmap_length as usize);
    let length = length.min(size_of_val(words));
    let work = work_for(length);
    // SAFETY: a buffer that outlives the image.
    let image = unsafe { Image::new(base, words.as_ptr().cast(), length, &work) };
    image.map(f)
}

fn text(image: &Image<'_>, addr: Addr) -> Option<String> {
    if addr == 0 {
        return None;
    }
    let bytes = image.string(addr)?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

fn list(image: &Image<'_>, first: Addr) -> Option<Vec<Object>> {
    let mut all = Vec::new();
    let mut at = first;
    while at != 0 {
        all.push(object(image, at)?);
        at = image.at::<Obj>(at)?.next_sibling;
    }
    Some(all)
}

fn object(image: &Image<'_>, addr: Addr) -> Option<Object> {
    let obj: &Obj = image.at(addr)?;
    let infos = image.slice::<Info>(obj.infos, obj.infos_count as usize)?;
    let pair = |i: &Info| Some((text(image, i.name)?, text(image, i.value)?));
    Some(Object {
        kind: image.kind(obj.kind),
        depth: obj.depth,
        os_index: obj.os_index,
        logical_index: obj.logical_index,
        name: text(image, obj.name),
        subtype: text(image, obj.subtype),
        attr: image.attr(obj.attr)?,
        total_memory: obj.total_memory,
        infos: infos.iter().filter_map(pair).collect(),
        normal: list(image, obj.first_child)?,
        memory: list(image, obj.memory_first_child)?,
        io: list(image, obj.io_first_child)?,
        misc: list(image, obj.misc_first_child)?,
    })
}
