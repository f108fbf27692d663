// SPDX-License-Identifier: MIT OR Apache-2.0
//! Anchors of other copies of this library in the same program.

#![forbid(unsafe_code)]

use crate::fd::{Fd, OwnedFd};
use crate::user::sys::procfs::{self, Numbers};
use crate::user::sys::{task, Sys};
use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, Ordering};

/// How the thread is called: another copy of the library knows it by that.
const NAME: &CStr = c"xpmem-anchor";

/// The anchor of this copy that was started last. It may be about to end.
static LAST: AtomicU32 = AtomicU32::new(0);

/// An anchor of another copy of the library in this program, with an id below
/// `limit`; `own` is not asked.
pub fn another(own: i32, limit: u32) -> Option<i32> {
    first_named(threads().ok()?.fd(), own, limit)
}

/// The folder of this process's threads.
fn threads() -> Sys<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    crate::fd::open(c"/proc/self/task", flags, 0)
}

/// Whether this process has a thread with this id.
pub fn is_thread(tid: i32) -> bool {
    threads().is_ok_and(|tasks| Numbers::from_start(tasks.fd()).any(|found| found == tid))
}

/// As [`another`], of the threads in an open directory.
pub fn first_named(tasks: Fd, own: i32, limit: u32) -> Option<i32> {
    let last = LAST.load(Ordering::Relaxed) as i32;
    Numbers::from_start(tasks)
        .filter(|&tid| tid != own && tid != last && (tid as u32) < limit)
        .find(|&tid| {
            let mut path = [0u8; 32];
            let path = procfs::proc_path(&mut path, tid, b"/comm");
            let Ok(fd) = crate::fd::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0) else {
                return false;
            };
            let mut name = [0u8; 16];
            let len = task::read_text(fd.fd(), &mut name);
            name[..len].trim_ascii_end() == NAME.to_bytes()
        })
}

/// The calling thread is an anchor of this copy; answers its id, and that of the one before
/// it, or 0.
pub fn begin() -> (u32, u32) {
    task::set_name(NAME);
    let tid = task::gettid() as u32;
    (tid, LAST.swap(tid, Ordering::Relaxed))
}

/// The calling thread is an anchor no more. The next one's service may look for
/// others before this thread is gone.
pub fn end() {
    task::set_name(c"xpmem-ended");
}
