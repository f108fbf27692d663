// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names that segments have with the kernel module.
//!
//! Where a program exports its memory both ways, the program, and whomever it
//! tells, knows the module's segid. In the folder a link of that name says which
//! segment of a service it is, after the name of the service's socket. Peers that
//! share by services look it up there.

#![forbid(unsafe_code)]

use super::rendezvous::{hex, DIGITS};
use crate::user::sys::dir;
use crate::user::sys::Sys;
use core::ffi::CStr;

/// Digits of an id.
const ID: usize = 16;
/// What a link says, terminated.
type Text = [u8; DIGITS + ID + 1];

/// Writes an id in hexadecimal.
fn write(id: i64, to: &mut [u8]) {
    let mut rest = id;
    for place in to[..ID].iter_mut().rev() {
        *place = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
    }
}

/// Reads what [`write()`] has written.
fn read(text: &[u8]) -> Option<i64> {
    let digit = |b: &u8| char::from(*b).to_digit(16).map(i64::from);
    text.iter().try_fold(0, |sum, b| Some(sum << 4 | digit(b)?))
}

/// Calls `body` with the name of the link for the module's segid.
fn with_link<T>(segid: i64, body: impl FnOnce(&CStr) -> T) -> T {
    let mut text = [0; ID + 1];
    write(segid, &mut text);
    body(CStr::from_bytes_until_nul(&text).unwrap_or(c""))
}

/// Has the module's segid `name` lead to `segid`, of the process `token`.
pub fn note(token: u64, segid: i64, name: i64) -> Sys<()> {
    let mut text: Text = [0; DIGITS + ID + 1];
    text[..DIGITS].copy_from_slice(&hex(token, b"")[..DIGITS]);
    write(segid, &mut text[DIGITS..]);
    let text = CStr::from_bytes_until_nul(&text).unwrap_or(c"");
    with_link(name, |link| dir::note(link, text))
}

/// The segment that a command is about; `by_module`: `id` is the module's segid.
pub fn segid(id: i64, by_module: bool) -> i64 {
    if !by_module {
        return id;
    }
    let mut text: Text = [0; DIGITS + ID + 1];
    match with_link(id, |link| dir::noted(link, &mut text)) {
        Ok(n) if n == DIGITS + ID => read(&text[DIGITS..n]).unwrap_or(0),
        _ => 0,
    }
}

/// As [`segid`], and removes the module's name of it.
pub fn take_segid(id: i64, by_module: bool) -> i64 {
    let segid = segid(id, by_module);
    if by_module {
        let _ = with_link(id, dir::unlink);
    }
    segid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_the_round_trip() {
        for id in [1, 0x0123_4567_89ab_cdef, i64::MAX] {
            let link = with_link(id, |name| name.to_owned());
            assert_eq!(link.to_bytes().len(), ID);
            assert_eq!(read(link.to_bytes()), Some(id));
        }
        assert_eq!(read(b"0123456789abcdeg"), None);
    }
}
