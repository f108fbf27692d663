// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segids and apids: who issued them, and what they name.
//!
//! An id is `token << 23 | kind << 22 | slot << 7 | generation`. The token is
//! random, 40 bits, and names the process that issued it: it is the name of
//! its socket. So an id says by itself whom to ask, works across PID
//! namespaces, and cannot be guessed.

#![forbid(unsafe_code)]

/// Bits of the token.
pub const TOKEN_BITS: u32 = 40;
const GENERATIONS: u32 = 1 << 7;
/// Most segments, and most permits, that a process can have at a time.
pub const SLOTS: usize = 1 << 12;

/// What an id names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Segment,
    Permit,
}

/// A decoded id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Id {
    pub token: u64,
    pub kind: Kind,
    pub slot: usize,
    pub generation: u32,
}

impl Id {
    /// The number that the program sees, always positive.
    pub fn encode(self) -> i64 {
        let kind = u64::from(self.kind == Kind::Permit);
        let low = kind << 22 | (self.slot as u64) << 7 | u64::from(self.generation);
        (self.token << 23 | low) as i64
    }

    /// `None` for a number that no process can have issued.
    pub fn decode(id: i64) -> Option<Self> {
        let raw = u64::try_from(id).ok().filter(|&raw| raw != 0)?;
        let slot = (raw >> 7 & 0x7fff) as usize;
        if slot >= SLOTS {
            return None;
        }
        Some(Self {
            token: raw >> 23,
            kind: if raw >> 22 & 1 == 1 {
                Kind::Permit
            } else {
                Kind::Segment
            },
            slot,
            generation: (raw as u32) % GENERATIONS,
        })
    }

    /// The generation that follows in a slot.
    pub fn next_generation(generation: u32) -> u32 {
        (generation + 1) % GENERATIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_the_round_trip() {
        for token in [1, 0x0012_3456_789a, (1 << TOKEN_BITS) - 1] {
            for kind in [Kind::Segment, Kind::Permit] {
                for slot in [0, 1, SLOTS - 1] {
                    for generation in [0, 127] {
                        let id = Id {
                            token,
                            kind,
                            slot,
                            generation,
                        };
                        assert!(id.encode() > 0);
                        assert_eq!(Id::decode(id.encode()), Some(id));
                    }
                }
            }
        }
        assert_eq!(Id::decode(0), None);
        assert_eq!(Id::decode(-1), None);
    }
}
