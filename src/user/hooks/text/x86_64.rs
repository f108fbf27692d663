// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sites and thunks on x86-64.
//!
//! The wrappers of libc end in `mov $number, %eax; syscall`, with the arguments
//! in their registers, and `syscall` in `mov 8(%rsp), %r9; syscall`. The first of
//! the two instructions has five bytes, just what a jump needs.

use super::{ask, Site, Verdict, ANY, SITES};
use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// How many bytes tell a site.
pub const LOOK: usize = 7;

/// How far a thunk may be from a site.
pub const REACH: usize = 1 << 30;

const THUNK: usize = 32;
const _: () = assert!(SITES * THUNK <= super::PAGE);

/// Of each site: the address behind its `syscall`.
static RETURNS: [AtomicUsize; SITES] = [const { AtomicUsize::new(0) }; SITES];

/// The address behind the `syscall` of the one site that is [`ANY`].
static BACK: AtomicUsize = AtomicUsize::new(0);

/// Highest number of a system call that is picked out of `syscall`'s, plus one.
const NUMBERS: usize = 1024;

/// One bit for each that is.
static PICKED: [AtomicU32; NUMBERS / 32] = [const { AtomicU32::new(0) }; NUMBERS / 32];

/// Whether the instructions are those of a site.
pub fn is_site(code: &[u8; LOOK], number: usize) -> bool {
    if number == ANY {
        return *code == [0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05];
    }
    let [a, b, c, d] = (number as u32).to_le_bytes();
    *code == [0xb8, a, b, c, d, 0x0f, 0x05]
}

/// Calls `found` with the place of each site in `code`.
pub fn places(code: &[u8], number: usize, mut found: impl FnMut(usize)) {
    for (at, window) in code.windows(LOOK).enumerate() {
        if window.try_into().is_ok_and(|w| is_site(w, number)) {
            found(at);
            if number == ANY {
                return;
            }
        }
    }
}

/// Where the thunk of site `i` is.
pub fn thunk(page: usize, i: usize) -> usize {
    page + i * THUNK
}

/// The instruction that leads from `from` to `to`.
pub fn jump(from: usize, to: usize) -> Option<[u8; 5]> {
    let distance = i32::try_from(to as i64 - (from as i64 + 5)).ok()?;
    let [a, b, c, d] = distance.to_le_bytes();
    Some([0xe9, a, b, c, d])
}

/// Writes the thunks of all sites to `room`, the page at `_page`.
pub fn fill(room: &mut [u8], _page: usize, sites: &[Site], numbers: &[(&CStr, usize)]) {
    for &(_, number) in numbers.iter().filter(|n| n.1 < NUMBERS) {
        PICKED[number / 32].fetch_or(1 << (number % 32), Ordering::Relaxed);
    }
    for ((i, site), room) in sites.iter().enumerate().zip(room.chunks_exact_mut(THUNK)) {
        RETURNS[i].store(site.address + LOOK, Ordering::Release);
        let target = if site.number == ANY {
            BACK.store(site.address + LOOK, Ordering::Release);
            // mov r11d, index << 16
            room[..2].copy_from_slice(&[0x41, 0xbb]);
            room[2..6].copy_from_slice(&((i as u32) << 16).to_le_bytes());
            (pick as *const (), 6)
        } else {
            let word = (site.number | i << 16) as u32;
            // lea rsp, [rsp - 128]; push site
            room[..6].copy_from_slice(&[0x48, 0x8d, 0x64, 0x24, 0x80, 0x68]);
            room[6..10].copy_from_slice(&word.to_le_bytes());
            (common as *const (), 10)
        };
        let (to, at) = target;
        // jmp [rip]; address
        room[at..at + 6].copy_from_slice(&[0xff, 0x25, 0, 0, 0, 0]);
        room[at + 6..at + 14].copy_from_slice(&(to as usize).to_le_bytes());
    }
}

/// Called by [`common`] with the site, room for an answer and, behind that,
/// the saved registers r9, r8, r10, rdx, rsi, rdi.
extern "C" fn before(site: usize, frame: *mut [usize; 7]) -> Verdict {
    // SAFETY: points to the seven words that `common` has just pushed.
    let [room, f, e, d, c, b, a] = unsafe { &mut *frame };
    ask(site & 0xffff, [*a, *b, *c, *d, *e, *f], room)
}

/// Leaves `common`: all is as it was, but rcx and r11, which holds where the site
/// goes on.
macro_rules! go_back {
    () => {
        "mov rbx, [rbp - 8]
        mov r11, [rbp + 8]
        shr r11, 16
        lea rcx, [rip + {returns}]
        mov r11, [rcx + r11 * 8]
        mov rsp, rbp
        pop rbp
        lea rsp, [rsp + 136]"
    };
}

// On entry the stack holds the site (number | index << 16) and below it the
// red zone of the interrupted function, skipped by the thunk. Everything
// that the kernel preserves over a system call is preserved here.
core::arch::global_asm!(
    ".balign 16",
    ".type {common}, @function",
    "{common}:",
    "push rbp",
    "mov rbp, rsp",
    "push rbx",
    "push rdi",
    "push rsi",
    "push rdx",
    "push r10",
    "push r8",
    "push r9",
    "push 0",
    "mov rdi, [rbp + 8]",
    "mov rsi, rsp",
    "and rsp, -16",
    "call {before}",
    "mov rbx, rax",
    "mov rcx, rdx",
    "mov r9, [rbp - 56]",
    "mov r8, [rbp - 48]",
    "mov r10, [rbp - 40]",
    "mov rdx, [rbp - 32]",
    "mov rsi, [rbp - 24]",
    "mov rdi, [rbp - 16]",
    "mov rax, [rbp - 64]",
    "cmp rcx, 1",
    "je 2f",
    "movzx eax, word ptr [rbp + 8]",
    "ja 4f",
    "syscall",
    "2:",
    "test rbx, rbx",
    "jz 3f",
    "lea rsp, [rbp - 80]",
    "mov [rbp - 64], rax",
    "and rsp, -16",
    "mov rdi, rbx",
    "call {after}",
    "mov rax, [rbp - 64]",
    "mov r9, [rbp - 56]",
    "mov r8, [rbp - 48]",
    "mov r10, [rbp - 40]",
    "mov rdx, [rbp - 32]",
    "mov rsi, [rbp - 24]",
    "mov rdi, [rbp - 16]",
    "3:",
    go_back!(),
    "jmp r11",
    // To the system call's own instruction.
    "4:",
    go_back!(),
    "lea r11, [r11 - 2]",
    "jmp r11",
    ".size {common}, . - {common}",
    common = sym common,
    before = sym before,
    after = sym super::after,
    returns = sym RETURNS,
);

// In the place of the last two instructions of `syscall`, with the site's index
// in the upper half of r11d: rcx and r11 are free, the kernel takes them. What is
// not picked is made at once, without a use of the stack: who makes a task here
// may come back on another one.
core::arch::global_asm!(
    ".balign 16",
    ".type {pick}, @function",
    "{pick}:",
    "mov r9, [rsp + 8]",
    "cmp rax, {numbers}",
    "jae 2f",
    "lea rcx, [rip + {picked}]",
    "bt dword ptr [rcx], eax",
    "jnc 2f",
    "or r11, rax",
    "lea rsp, [rsp - 128]",
    "push r11",
    "jmp {common}",
    "2:",
    "syscall",
    "jmp qword ptr [rip + {back}]",
    ".size {pick}, . - {pick}",
    pick = sym pick,
    common = sym common,
    numbers = const NUMBERS,
    picked = sym PICKED,
    back = sym BACK,
);

extern "C" {
    fn common();
    fn pick();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_told_by_their_two_instructions() {
        // pkey_mprotect of glibc: the number has two bytes.
        let code = [0x55, 0xb8, 0x49, 0x01, 0, 0, 0x0f, 0x05, 0xc3];
        let mut found = Vec::new();
        places(&code, 0x149, |at| found.push(at));
        assert_eq!(found, [1]);
        places(&code, 0x49, |at| found.push(at));
        places(&code[..7], 0x149, |at| found.push(at));
        assert_eq!(found, [1]);
    }

    #[test]
    fn jumps_reach_what_they_can() {
        assert_eq!(jump(0x1000, 0x1005), Some([0xe9, 0, 0, 0, 0]));
        assert_eq!(jump(0x1000, 0x0ffb), Some([0xe9, 0xf6, 0xff, 0xff, 0xff]));
        assert_eq!(jump(0x1000, 0x1000 + (1 << 32)), None);
    }
}
