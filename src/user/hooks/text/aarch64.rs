// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sites and thunks on aarch64.
//!
//! The wrappers of libc make their system calls by `svc #0`, with the number in
//! x8. That instruction itself becomes a branch: whoever is in the system call
//! just then comes back behind it, or, to begin it again, to the branch.

use super::a64::{branch, thunk as words_of, SVC, WORDS};
use super::{ask, Site, Verdict, ANY, PAGE, SITES};
use core::ffi::CStr;

/// How many bytes tell a site.
pub const LOOK: usize = 4;

/// How far a thunk may be from a site; a branch reaches 128 MiB, and libc has two.
pub const REACH: usize = 120 << 20;

const THUNK: usize = 4 * WORDS;
const _: () = assert!(SITES * THUNK <= PAGE);

/// What a compare takes; what is above is no system call.
const HIGHEST: usize = 4095;

/// Most numbers that are picked out of `syscall`'s.
const PICKED: usize = 16;

/// Those that make a task are left alone: a child may come back on another stack.
fn makes_a_task(number: usize) -> bool {
    [libc::SYS_clone as usize, libc::SYS_clone3 as usize].contains(&number)
}

/// Whether the instruction is that of a site.
pub fn is_site(code: &[u8; LOOK], _number: usize) -> bool {
    u32::from_le_bytes(*code) == SVC
}

/// Calls `found` with the place of each site in `code`.
pub fn places(code: &[u8], number: usize, mut found: impl FnMut(usize)) {
    if makes_a_task(number) || (number != ANY && number > HIGHEST) {
        return;
    }
    for (i, word) in code.chunks_exact(LOOK).enumerate() {
        if word.try_into().is_ok_and(|w| is_site(w, number)) {
            found(i * LOOK);
        }
    }
}

/// Where the thunk of site `i` is.
pub fn thunk(page: usize, i: usize) -> usize {
    page + i * THUNK
}

/// The instruction that leads from `from` to `to`.
pub fn jump(from: usize, to: usize) -> Option<[u8; 4]> {
    branch(from, to).map(u32::to_le_bytes)
}

/// Writes the thunks of all sites to `room`, the page at `page`.
pub fn fill(room: &mut [u8], page: usize, sites: &[Site], numbers: &[(&CStr, usize)]) {
    let mut picked = [0; PICKED];
    let mut count = 0;
    let is_picked = |n: &&(&CStr, usize)| n.1 <= HIGHEST && !makes_a_task(n.1);
    for &(_, number) in numbers.iter().filter(is_picked).take(PICKED) {
        picked[count] = number;
        count += 1;
    }
    for ((i, site), room) in sites.iter().enumerate().zip(room.chunks_exact_mut(THUNK)) {
        let picked = (site.number == ANY).then_some(&picked[..count]);
        let target = common as *const () as usize;
        // One that is out of reach stays empty, and no branch leads there.
        let words = words_of(thunk(page, i), site.address, picked, target);
        for (to, word) in room.chunks_exact_mut(4).zip(words.unwrap_or([0; WORDS])) {
            to.copy_from_slice(&word.to_le_bytes());
        }
    }
    flush(page, sites.len() * THUNK);
}

/// Has every processor fetch what has been written.
fn flush(start: usize, len: usize) {
    let ctr: usize;
    // SAFETY: reads a register that user mode may read.
    unsafe {
        core::arch::asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack));
    }
    let (data, code) = (4 << (ctr >> 16 & 15), 4 << (ctr & 15));
    for at in (start & !(data - 1)..start + len).step_by(data) {
        // SAFETY: cleans a line of memory that is mapped here.
        unsafe {
            core::arch::asm!("dc cvau, {}", in(reg) at, options(nostack));
        }
    }
    // SAFETY: orders the above and the below.
    unsafe {
        core::arch::asm!("dsb ish", options(nostack));
    }
    for at in (start & !(code - 1)..start + len).step_by(code) {
        // SAFETY: forgets a line of instructions that may be old.
        unsafe {
            core::arch::asm!("ic ivau, {}", in(reg) at, options(nostack));
        }
    }
    // SAFETY: orders the above and whatever is fetched next.
    unsafe {
        core::arch::asm!("dsb ish", "isb", options(nostack));
    }
}

/// Called by [`common`] with the number, the arguments, and room for an answer.
extern "C" fn before(number: usize, args: &[usize; 6], room: &mut usize) -> Verdict {
    ask(number & 0xffff_ffff, *args, room)
}

// Called by a thunk with the registers of the system call. Everything that the
// kernel preserves over one is preserved, but for x16, x17 and x30, which the
// thunk saves, and vector registers, which a caller of libc expects to lose.
core::arch::global_asm!(
    ".balign 16",
    ".type {common}, @function",
    "{common}:",
    // bti c, for processors that ask for it.
    "hint #34",
    "stp x29, x30, [sp, #-192]!",
    "mov x29, sp",
    "stp x0, x1, [sp, #16]",
    "stp x2, x3, [sp, #32]",
    "stp x4, x5, [sp, #48]",
    "stp x6, x7, [sp, #64]",
    "stp x8, x9, [sp, #80]",
    "stp x10, x11, [sp, #96]",
    "stp x12, x13, [sp, #112]",
    "stp x14, x15, [sp, #128]",
    "stp x18, x19, [sp, #144]",
    "mrs x9, nzcv",
    "str x9, [sp, #160]",
    "mov x0, x8",
    "add x1, sp, #16",
    "add x2, sp, #168",
    "bl {before}",
    "mov x19, x0",
    "cbnz x1, 2f",
    "ldp x0, x1, [sp, #16]",
    "ldp x2, x3, [sp, #32]",
    "ldp x4, x5, [sp, #48]",
    "ldp x6, x7, [sp, #64]",
    "ldr x8, [sp, #80]",
    "svc #0",
    "str x0, [sp, #168]",
    "2:",
    "cbz x19, 3f",
    "mov x0, x19",
    "bl {after}",
    "3:",
    "ldr x9, [sp, #160]",
    "msr nzcv, x9",
    "ldr x0, [sp, #168]",
    "ldr x1, [sp, #24]",
    "ldp x2, x3, [sp, #32]",
    "ldp x4, x5, [sp, #48]",
    "ldp x6, x7, [sp, #64]",
    "ldp x8, x9, [sp, #80]",
    "ldp x10, x11, [sp, #96]",
    "ldp x12, x13, [sp, #112]",
    "ldp x14, x15, [sp, #128]",
    "ldp x18, x19, [sp, #144]",
    "ldp x29, x30, [sp], #192",
    "ret",
    ".size {common}, . - {common}",
    common = sym common,
    before = sym before,
    after = sym super::after,
);

extern "C" {
    fn common();
}
