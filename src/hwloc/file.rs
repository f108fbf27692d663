// SPDX-License-Identifier: MIT OR Apache-2.0
//! A shared-memory topology as a file to look into, without libhwloc: for the
//! command-line tool.

use super::image::{work_for, Corrupt, Image};
use super::layout::*;
use super::validate::{self, Report};
use core::mem::size_of;
use std::fs;
use std::io;
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
        let size = fs::metadata(path)?.len();
        let room = size.saturating_sub(offset).min(LARGEST);
        if room < (size_of::<Header>() + TOPOLOGY_COMMON) as u64 {
            return Err(Refused::Short);
        }
        let bytes = fs::read(path)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = bytes.get(from..).ok_or(Refused::Short)?;
        let mut words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|c| u64::from_ne_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
            .collect();
        if words.len() < 4 {
            return Err(Refused::Short);
        }
        let head = words[0].to_ne_bytes();
        let header = Header {
            version: u32::from_ne_bytes([head[0], head[1], head[2], head[3]]),
            header_length: u32::from_ne_bytes([head[4], head[5], head[6], head[7]]),
            mmap_address: words[1],
            mmap_length: words[2],
        };
        let wanted = header.mmap_length.div_ceil(8);
        if wanted > words.len() as u64 {
            return Err(Refused::Corrupt(Corrupt {
                what: "the file is shorter than its header says",
                at: 0,
            }));
        }
        words.truncate(wanted as usize);
        let report = with_image(&words, header.mmap_address, |image| validate::image(&image))
            .ok_or(Refused::Short)?
            .map_err(Refused::Corrupt)?;
        report
            .unless_damaged(header.mmap_length)
            .map_err(Refused::Corrupt)?;
        let used = report.topology.in_use(header.mmap_length);
        let used = used.map(|(used, _)| used);
        Ok(File {
            words,
            header,
            report,
            used,
        })
    }

    /// The tree of objects.
    pub fn root(&self) -> Option<Object> {
        with_image(&self.words, self.header.mmap_address, |image| {
            let levels: &[Addr] = image.slice(self.report.topology.levels, 1)?;
            let root: Addr = image.get(levels[0])?;
            object(&image, root)
        })?
    }

    /// Names of distances, of memory attributes with values, and the number
    /// of CPU kinds.
    pub fn extras(&self) -> (Vec<String>, Vec<String>, u32) {
        let t = &self.report.topology;
        let found = with_image(&self.words, self.header.mmap_address, |image| {
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

fn with_image<T>(words: &[u64], base: Addr, f: impl FnOnce(Image<'_>) -> T) -> Option<T> {
    let work = work_for(words.len() * 8);
    // SAFETY: a buffer that outlives the image.
    let image = unsafe { Image::new(base, words.as_ptr().cast(), words.len() * 8, &work) };
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
        kind: obj.kind,
        depth: obj.depth,
        os_index: obj.os_index,
        logical_index: obj.logical_index,
        name: text(image, obj.name),
        subtype: text(image, obj.subtype),
        attr: image.get(obj.attr)?,
        total_memory: obj.total_memory,
        infos: infos.iter().filter_map(pair).collect(),
        normal: list(image, obj.first_child)?,
        memory: list(image, obj.memory_first_child)?,
        io: list(image, obj.io_first_child)?,
        misc: list(image, obj.misc_first_child)?,
    })
}
