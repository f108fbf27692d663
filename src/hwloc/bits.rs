// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sets of small integers, as hwloc keeps them.

use crate::error::Error;

/// The sum of words that somebody may change meanwhile.
pub fn sum(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

/// Tests count the words that are looked at: a check of a file may look at no
/// more than it has charged for.
#[cfg(test)]
pub mod account {
    use std::cell::Cell;
    std::thread_local! {
        pub static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
    }
}

#[inline(always)]
fn look_at(words: usize) {
    #[cfg(test)]
    account::LOOKED_AT.with(|all| all.set(all.get() + words));
    let _ = words;
}

/// A set of small integers: bits in words, and whether all beyond are set.
/// The words may change under a reader: they are compared and combined, and
/// nothing is found by them.
#[derive(Clone, Copy, Debug)]
pub struct Bits<'a> {
    pub words: &'a [u64],
    pub infinite: bool,
}

/// Whether two lists of words are equal. Sets are mostly a few words: a call
/// of `memcmp` costs more than comparing them.
#[inline]
pub fn same_words(a: &[u64], b: &[u64]) -> bool {
    look_at(a.len());
    if a.len() != b.len() {
        return false;
    }
    if a.len() > 8 {
        return a == b;
    }
    a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

/// Whether no word has a bit set. Eight at a time: half of what a machine with
/// thousands of processors costs is here.
#[inline(never)]
pub fn all_zero(words: &[u64]) -> bool {
    let mut eights = words.chunks_exact(8);
    eights.all(is_zero) && eights.remainder().iter().all(|w| *w == 0)
}

#[inline]
fn is_zero(eight: &[u64]) -> bool {
    eight.iter().fold(0, |all, w| all | w) == 0
}

/// Adds a member to `words`; false if it was there before, or has no place.
#[inline]
pub fn add_bit(words: &mut [u64], bit: u32) -> bool {
    let Some(word) = words.get_mut(bit as usize / 64) else {
        return false;
    };
    let bit = 1 << (bit % 64);
    let new = *word & bit == 0;
    *word |= bit;
    new
}

impl Bits<'_> {
    fn beyond(&self) -> u64 {
        if self.infinite {
            u64::MAX
        } else {
            0
        }
    }

    #[inline]
    fn word(&self, index: usize) -> u64 {
        match self.words.get(index) {
            Some(w) => *w,
            None => self.beyond(),
        }
    }

    pub fn is_set(&self, bit: u32) -> bool {
        self.word(bit as usize / 64) >> (bit % 64) & 1 == 1
    }

    /// The lowest member.
    #[inline]
    pub fn first(&self) -> Option<u32> {
        look_at(self.words.len());
        for (i, w) in self.words.iter().enumerate() {
            if *w != 0 {
                return Some(i as u32 * 64 + w.trailing_zeros());
            }
        }
        self.infinite.then_some(self.words.len() as u32 * 64)
    }

    /// The lowest member in the words that is not below `from`.
    #[inline]
    pub fn next(&self, from: u32) -> Option<u32> {
        let mut at = from as usize / 64;
        let mut word = self.words.get(at)? & (u64::MAX << (from % 64));
        if word == 0 {
            let rest = &self.words[at + 1..];
            let zeros = rest.chunks_exact(8).take_while(|eight| is_zero(eight));
            at += 1 + 8 * zeros.count();
            at += self.words[at..].iter().position(|w| *w != 0)?;
            word = self.words[at];
        }
        u32::try_from(at * 64 + word.trailing_zeros() as usize).ok()
    }

    /// Whether `bit` is the one and only member.
    #[inline]
    pub fn is_only(&self, bit: u32) -> bool {
        look_at(self.words.len());
        let at = bit as usize / 64;
        // Each word is looked at once.
        let Some((low, [word, high @ ..])) = self.words.split_at_checked(at) else {
            return false;
        };
        let zero = |words: &[u64]| words.is_empty() || all_zero(words);
        !self.infinite && *word == 1 << (bit % 64) && zero(low) && zero(high)
    }

    pub fn equals(&self, other: &Bits<'_>) -> bool {
        look_at(self.words.len() + other.words.len());
        let n = self.words.len().min(other.words.len());
        self.infinite == other.infinite
            && same_words(&self.words[..n], &other.words[..n])
            && self.words[n..].iter().all(|w| *w == other.beyond())
            && other.words[n..].iter().all(|w| *w == self.beyond())
    }

    /// Adds the members to `words`, those of a finite set; false if one was
    /// there before, or has no place.
    #[inline]
    pub fn move_into(&self, words: &mut [u64]) -> bool {
        look_at(self.words.len() + words.len());
        let mut common = 0;
        for (mine, new) in words.iter_mut().zip(self.words) {
            let new = *new;
            common |= *mine & new;
            *mine |= new;
        }
        let beyond = self.words.get(words.len()..).unwrap_or(&[]);
        common == 0 && beyond.iter().all(|w| *w == 0)
    }

    pub fn is_empty(&self) -> bool {
        look_at(self.words.len());
        !self.infinite && self.words.iter().all(|w| *w == 0)
    }

    /// Whether some member is in `other`, a finite set, too.
    pub fn intersects(&self, other: &Bits<'_>) -> bool {
        self.within(other).any(|w| w != 0)
    }

    /// The words of the members that are in `other`, a finite set, too.
    pub fn within<'b>(&'b self, other: &Bits<'b>) -> impl Iterator<Item = u64> + 'b {
        look_at(other.words.len());
        let words = other.words.iter().enumerate();
        words.map(|(i, w)| w & self.word(i))
    }

    /// Whether every member is in `other` too.
    pub fn included_in(&self, other: &Bits<'_>) -> bool {
        let n = self.words.len().max(other.words.len());
        look_at(n);
        (!self.infinite || other.infinite) && (0..n).all(|i| self.word(i) & !other.word(i) == 0)
    }
}

/// A finite set that grows: the union of other sets.
#[derive(Debug, Default)]
pub struct Union {
    words: Vec<u64>,
}

impl Union {
    pub fn clear(&mut self) {
        self.words.clear();
    }

    pub fn as_bits(&self) -> Bits<'_> {
        Bits {
            words: &self.words,
            infinite: false,
        }
    }

    /// Adds the members of `set` that are not in `except`; false if one of
    /// those was there before.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn add_disjoint(
        &mut self,
        set: &Bits<'_>,
        except: &Bits<'_>,
    ) -> crate::error::Result<bool> {
        let more = set.words.len().saturating_sub(self.words.len());
        if more != 0 {
            self.words.try_reserve(more).map_err(|_| Error::NoMemory)?;
            self.words.resize(set.words.len(), 0);
        }
        look_at(set.words.len());
        let mut common = 0;
        for (i, (mine, word)) in self.words.iter_mut().zip(set.words).enumerate() {
            let new = word & !except.word(i);
            common |= *mine & new;
            *mine |= new;
        }
        Ok(common == 0)
    }
}

/// The empty set.
pub const NOTHING: Bits<'static> = Bits {
    words: &[],
    infinite: false,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_finds_each_member() {
        let mut words = [0; 40];
        let members = [0, 1, 63, 64, 130, 700, 1281, 1983, 2559];
        for member in members {
            assert!(add_bit(&mut words, member));
        }
        let set = Bits {
            words: &words,
            infinite: false,
        };
        for from in 0..2700 {
            let expected = members.into_iter().find(|member| *member >= from);
            assert_eq!(set.next(from), expected, "from {from}");
        }
        assert_eq!(set.next(u32::MAX), None);
        assert_eq!(NOTHING.next(0), None);
    }
}
