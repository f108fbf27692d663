// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any bytes as a file: the check ends, reads nothing outside, and what it
//! accepts can be encoded again, moved to another address, and is accepted
//! there too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xpmem::hwloc::image::{work_for, Image};
use xpmem::hwloc::layout::SUPPORT_BYTES;
use xpmem::hwloc::adopt::relocate;
use xpmem::hwloc::{encode, validate};

/// The address that the corpus was written for.
const BASE: u64 = 0x3000_0000_0000;
/// Room for what is encoded: the input has 24 KiB at the most.
const LENGTH: usize = 128 << 10;

fn check(words: &[u64], base: u64) -> Option<validate::Report> {
    let len = words.len() * 8;
    let work = work_for(len);
    // SAFETY: a buffer that outlives the image.
    let image = unsafe { Image::new(base, words.as_ptr().cast(), len, &work) }?;
    validate::image(&image).ok()
}

fuzz_target!(|data: &[u8]| {
    let mut words: Vec<u64> = data
        .chunks_exact(8)
        .map(|c| u64::from_ne_bytes(c.try_into().expect("eight bytes")))
        .collect();
    if words.len() < 110 || words.len() > 1 << 16 {
        return;
    }
    // The header says what the caller says; that is compared elsewhere.
    words[0] = 1 | 24 << 32;
    words[1] = BASE;
    words[2] = words.len() as u64 * 8;
    let Some(report) = check(&words, BASE) else {
        return;
    };

    let len = words.len() * 8;
    let work = work_for(len);
    // SAFETY: as above.
    let image = unsafe { Image::new(BASE, words.as_ptr().cast(), len, &work) }.expect("again");
    let other = 0x5000_0000_0000;
    // What is written is not checked once more where the encoder is sure.
    let encoded = encode::encode(&image, &report.topology, SUPPORT_BYTES, other, LENGTH);
    let encoded = encoded.ok().filter(|e| e.sure && e.bytes.as_slice().len() <= LENGTH);
    if let Some(encoded) = encoded {
        let mut again: Vec<u64> = encoded
            .bytes
            .as_slice()
            .chunks_exact(8)
            .map(|c| u64::from_ne_bytes(c.try_into().expect("eight bytes")))
            .collect();
        again.resize(LENGTH / 8, 0);
        let second = check(&again, other).expect("an accepted file encodes to an acceptable one");
        assert_eq!(second.objects, report.objects);
        assert!(second.resolved);
    }

    let mut moved = words.clone();
    // SAFETY: the same memory, as bytes.
    let bytes = unsafe { core::slice::from_raw_parts_mut(moved.as_mut_ptr().cast::<u8>(), len) };
    if relocate::rebase(&image, &report.topology, bytes, other).is_ok() {
        // Parts that overlap may not survive being moved; that must be
        // noticed, not crash.
        let _ = check(&moved, other);
    }
});
