// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is written once: strings, attributes, sets and their words.

use super::encoder::{Encoder, Run};
use crate::error::{Error, Result};
use crate::hwloc::bits::{all_zero, same_words, Bits};
use crate::hwloc::image::OrInvalid;
use crate::hwloc::layout::*;
use crate::hwloc::memory;
use core::mem::size_of;

/// The members' words without the zeros behind the last.
#[inline]
pub(super) fn trimmed<'a>(set: &Bits<'a>) -> &'a [u64] {
    if set.words.last().is_some_and(|w| *w != 0) && !set.infinite {
        return set.words;
    }
    let tail = if set.infinite { u64::MAX } else { 0 };
    let used = set.words.iter().rposition(|w| *w != tail);
    &set.words[..used.map_or(1, |last| last + 1)]
}

impl<'a> Encoder<'a, '_> {
    #[inline]
    pub(super) fn string(&mut self, addr: Addr) -> Result<Addr> {
        match addr {
            0 => Ok(0),
            _ => self.text(addr),
        }
    }

    #[inline(never)]
    pub(super) fn text(&mut self, addr: Addr) -> Result<Addr> {
        let text = self.source.string(addr).valid()?;
        self.looked_at += text.len();
        if let Some(known) = self.strings.get(text) {
            return Ok(*known);
        }
        let at = self.reserve(text.len() + 1)?;
        self.buffer.bytes()[at..at + text.len()].copy_from_slice(text);
        let written = self.addr(at);
        memory::insert(&mut self.strings, text, written)?;
        Ok(self.addr(at))
    }

    #[inline]
    pub(super) fn infos(&mut self, array: Addr, count: u32) -> Result<Addr> {
        match count {
            0 => Ok(0),
            _ => self.some_infos(array, count),
        }
    }

    #[inline(never)]
    pub(super) fn some_infos(&mut self, array: Addr, count: u32) -> Result<Addr> {
        let list = self.source.slice::<Info>(array, count as usize).valid()?;
        let at = self.reserve(size_of_val(list))?;
        for (i, info) in list.iter().enumerate() {
            let info = Info {
                name: self.string(info.name)?,
                value: self.string(info.value)?,
            };
            self.set(at + i * size_of::<Info>(), info);
        }
        Ok(self.addr(at))
    }

    /// Writes a set, unless it equals one of `written`, pairs of a set of
    /// the source and where that went.
    #[inline(always)]
    pub(super) fn bitmap(&mut self, addr: Addr, written: &[(Addr, Addr)]) -> Result<Addr> {
        if addr == 0 {
            return Ok(0);
        }
        for (from, to) in written {
            if *to != 0 && (*from == addr || self.are_same(*from, addr)?) {
                return Ok(*to);
            }
        }
        self.new_bitmap(addr)
    }

    /// Whether two sets have the same members.
    #[inline]
    pub(super) fn are_same(&self, one: Addr, other: Addr) -> Result<bool> {
        let heads = [one, other].map(|at| self.source.at::<Bitmap>(at));
        let [Some(first), Some(second)] = heads else {
            return Err(Error::Invalid);
        };
        if first.infinite == second.infinite && (first.count, second.count) == (1, 1) {
            let words = [first, second].map(|set| self.source.at::<u64>(set.ulongs));
            return Ok(words[0].valid()? == words[1].valid()?);
        }
        self.are_same_members(first, second)
    }

    #[inline(never)]
    fn are_same_members(&self, first: &Bitmap, second: &Bitmap) -> Result<bool> {
        let words = self.source.words(first).valid()?;
        let others = self.source.words(second).valid()?;
        let infinite = [first, second].map(|set| set.infinite != 0);
        // The tail of one may be longer, and say nothing.
        if first.count == second.count {
            return Ok(infinite[0] == infinite[1] && same_words(words, others));
        }
        let set = |words, infinite| Bits { words, infinite };
        Ok(set(words, infinite[0]).equals(&set(others, infinite[1])))
    }

    #[inline(never)]
    pub(super) fn new_bitmap(&mut self, addr: Addr) -> Result<Addr> {
        let set = self.source.bitmap(addr).valid()?;
        let words = trimmed(&set);
        let (last, zeros) = words.split_last().valid()?;
        let ulongs = if !set.infinite && all_zero(zeros) {
            self.run(zeros.len(), *last)?
        } else {
            self.put_slice(words)?
        };
        self.put_bitmap(words.len() as u32, ulongs, set.infinite)
    }

    #[inline]
    pub(super) fn put_bitmap(&mut self, count: u32, ulongs: Addr, infinite: bool) -> Result<Addr> {
        self.looked_at += count as usize * 8;
        self.longest = self.longest.max(count as usize);
        self.put_small(Bitmap {
            count,
            allocated: count,
            ulongs,
            infinite: i32::from(infinite),
            mark: BITMAP_MARK,
        })
    }

    /// An array of `zeros` zeros and a word: the end of a longer one.
    pub(super) fn run(&mut self, zeros: usize, word: u64) -> Result<Addr> {
        let run = self.longer_run(zeros, word)?;
        Ok(self.addr(run.word_at - zeros * 8))
    }

    /// A run of at least that many zeros.
    pub(super) fn longer_run(&mut self, zeros: usize, word: u64) -> Result<Run> {
        Ok(match self.runs.get(&word) {
            Some(run) if run.zeros >= zeros => *run,
            _ => {
                let zeros = zeros.max(self.root_cpus.words.len().saturating_sub(1));
                let at = self.reserve((zeros + 1) * 8)?;
                let run = Run {
                    word_at: at + zeros * 8,
                    zeros,
                };
                self.set(run.word_at, word);
                memory::insert(&mut self.runs, word, run)?;
                run
            }
        })
    }

    /// As many words of attributes as the layout has.
    pub(super) fn put_attr(&mut self, attr: &Attr) -> Result<Addr> {
        let words = attr.words.get(..self.source.abi().attr).valid()?;
        self.put_slice(words)
    }

    pub(super) fn attr(
        &mut self,
        obj: &Obj,
        kind: u32,
        previous: &mut Option<(Attr, Addr)>,
    ) -> Result<Addr> {
        // A processor has none: a look would be for nothing.
        if kind == ty::PU {
            return Ok(self.no_attr);
        }
        let mut attr = self.source.attr(obj.attr).valid()?;
        if kind == ty::BRIDGE && !attr.is_bridge() {
            return Err(Error::Invalid);
        }
        if kind == ty::NUMANODE && self.source.abi().page_types {
            let n = attr.page_types_len() as usize;
            let pages = self.source.slice::<u64>(attr.page_types(), n * 2).valid()?;
            attr.words[2] = self.put_slice(pages)?;
        }
        if same_words(&attr.words, &Attr::NONE.words) {
            return Ok(self.no_attr);
        }
        if let Some((_, at)) = previous.filter(|p| same_words(&p.0.words, &attr.words)) {
            return Ok(at);
        }
        let at = self.put_attr(&attr)?;
        *previous = Some((attr, at));
        Ok(at)
    }
}
