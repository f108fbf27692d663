// SPDX-License-Identifier: MIT OR Apache-2.0
//! The few instructions of aarch64 that thunks are made of. Plain arithmetic, so
//! that it is tested on every machine.

#![forbid(unsafe_code)]

/// `svc #0`
pub const SVC: u32 = 0xd400_0001;

/// Words of a thunk, with room for as many numbers as are picked out.
pub const WORDS: usize = 48;

/// A field of `bits` bits for a distance in units of four bytes.
fn distance(from: usize, to: usize, bits: u32) -> Option<u32> {
    let bytes = (to as i64).wrapping_sub(from as i64);
    let half = 1i64 << (bits + 1);
    let fits = bytes % 4 == 0 && (-half..half).contains(&bytes);
    fits.then_some((bytes >> 2) as u32 & ((1 << bits) - 1))
}

/// `b to`
pub fn branch(from: usize, to: usize) -> Option<u32> {
    Some(0x1400_0000 | distance(from, to, 26)?)
}

/// `b.eq to`
fn branch_if_equal(from: usize, to: usize) -> Option<u32> {
    Some(0x5400_0000 | distance(from, to, 19)? << 5)
}

/// `cmp w8, #number`
fn compare_number(number: usize) -> Option<u32> {
    (number < 1 << 12).then_some(0x7100_011f | (number as u32) << 10)
}

/// `ldr x17, at`
fn load_x17(from: usize, at: usize) -> Option<u32> {
    Some(0x5800_0011 | distance(from, at, 19)? << 5)
}

/// The thunk at `at` of the `svc` at `site`: calls `target`, which makes the
/// system call and preserves all registers but x0, x16, x17 and x30. With
/// `picked`, others than these are made without a use of the stack: who makes a
/// task may come back on another one.
///
/// Back to the site it goes by a plain branch: no landing pad stands there.
pub fn thunk(
    at: usize,
    site: usize,
    picked: Option<&[usize]>,
    target: usize,
) -> Option<[u32; WORDS]> {
    let mut words = [0u32; WORDS];
    let mut n = 0;
    let mut put = |word: u32| {
        *words.get_mut(n)? = word;
        n += 1;
        Some(at + 4 * n)
    };
    let mut here = at;
    if let Some(numbers) = picked {
        let hit = at + 4 * (2 * numbers.len() + 2);
        for &number in numbers {
            let here = put(compare_number(number)?)?;
            put(branch_if_equal(here, hit)?)?;
        }
        here = put(SVC)?;
        here = put(branch(here, site + 4)?)?;
    }
    // The address of the target stands behind the seven instructions.
    let literal = (here + 4 * 7 + 7) & !7;
    // stp x16, x17, [sp, #-32]!; str x30, [sp, #16]
    put(0xa9be_47f0)?;
    here = put(0xf900_0bfe)?;
    put(load_x17(here, literal)?)?;
    // blr x17; ldr x30, [sp, #16]; ldp x16, x17, [sp], #32
    put(0xd63f_0220)?;
    put(0xf940_0bfe)?;
    here = put(0xa8c2_47f0)?;
    here = put(branch(here, site + 4)?)?;
    if here < literal {
        put(0)?;
    }
    put(target as u32)?;
    put((target as u64 >> 32) as u32)?;
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_what_an_assembler_makes() {
        // as: b .+8; b .-4; b.eq .+8; cmp w8, #215; ldr x17, .+24
        assert_eq!(branch(0x1000, 0x1008), Some(0x1400_0002));
        assert_eq!(branch(0x1000, 0x0ffc), Some(0x17ff_ffff));
        assert_eq!(branch_if_equal(0x1000, 0x1008), Some(0x5400_0040));
        assert_eq!(compare_number(215), Some(0x7103_5d1f));
        assert_eq!(load_x17(0x1000, 0x1018), Some(0x5800_00d1));
    }

    #[test]
    fn branches_reach_128_mib() {
        let reach = 128 << 20;
        assert_eq!(branch(reach, 0), Some(0x1600_0000));
        assert_eq!(branch(0, reach - 4), Some(0x15ff_ffff));
        assert_eq!(branch(0, reach), None);
        assert_eq!(branch(reach + 4, 0), None);
        assert_eq!(branch(0, 2), None);
    }

    #[test]
    fn a_thunk_calls_its_target_and_goes_back_behind_the_site() {
        let (at, site) = (0x7f00_0010_0040, 0x7f00_0000_0508);
        let words = thunk(at, site, None, 0x7e12_3456_7890).expect("in reach");
        assert_eq!(words[6], branch(at + 24, site + 4).expect("near"));
        assert_eq!(words[2], load_x17(at + 8, at + 32).expect("near"));
        assert_eq!((words[8], words[9]), (0x3456_7890, 0x7e12));
        // Two numbers first: 215 and 222 go on, all others are made.
        let words = thunk(at, site, Some(&[215, 222]), 8).expect("in reach");
        assert_eq!(words[1], branch_if_equal(at + 4, at + 24).expect("near"));
        assert_eq!(words[3], branch_if_equal(at + 12, at + 24).expect("near"));
        assert_eq!(
            (words[4], words[5]),
            (SVC, branch(at + 20, site + 4).expect("near"))
        );
        assert_eq!(words[6], 0xa9be_47f0);
        assert_eq!(words[8], load_x17(at + 32, at + 56).expect("near"));
        assert_eq!((words[14], words[15]), (8, 0));
        assert!(thunk(at, site, Some(&[1; 40]), 8).is_none());
    }
}
