// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether tasks had a processor, as /proc tells of any task.

#![forbid(unsafe_code)]

use super::procfs::{self, Numbers};
use super::{task, Sys};
use crate::fd;

/// What a task has had of processors since it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turns {
    /// Nanoseconds in which it ran.
    pub ran: u64,
    /// Nanoseconds in which it could have run and waited, up to its last turn: a wait
    /// that goes on is not in it.
    pub waited: u64,
    /// How often it has been given a processor.
    pub count: u64,
}

/// What task `tid` has had; `None` where that is not told.
pub fn turns(tid: i32) -> Option<Turns> {
    let mut text = [0u8; 96];
    let n = read(tid, b"/schedstat", &mut text).ok()?;
    turns_in(&text[..n])
}

fn turns_in(text: &[u8]) -> Option<Turns> {
    let mut words = text.split(|&b| matches!(b, b' ' | b'\n'));
    let mut number = || procfs::number(words.next()?, 10);
    let turns = Turns {
        ran: number()?,
        waited: number()?,
        count: number()?,
    };
    // A kernel that keeps no account says that it was none.
    (turns.count > 0).then_some(turns)
}

/// What a task does, as a letter of /proc/TID/stat; `None` where nothing is told of
/// it any more.
pub fn state(tid: i32) -> Sys<Option<u8>> {
    let mut text = [0u8; 512];
    let n = read(tid, b"/stat", &mut text)?;
    // `TID (name) STATE`, and the name may hold anything.
    let name_ends = text[..n].iter().rposition(|&b| b == b')');
    Ok(name_ends.and_then(|at| text[..n].get(at + 2).copied()))
}

/// The process id of a task's parent, if the task is called `name`.
pub fn parent_of(tid: i32, name: &[u8]) -> Option<i32> {
    let mut text = [0u8; 512];
    let n = read(tid, b"/stat", &mut text).ok()?;
    let text = &text[..n];
    let begins = text.iter().position(|&b| b == b'(')? + 1;
    let ends = text.iter().rposition(|&b| b == b')')?;
    let parent = procfs::field(text, 4).filter(|_| text.get(begins..ends) == Some(name))?;
    i32::try_from(parent).ok()
}

/// Calls `look` for the tasks of a process, the first `most` of them.
pub fn for_tasks_of(pid: i32, most: usize, look: &mut dyn FnMut(i32)) {
    let mut path = [0u8; 32];
    let path = procfs::proc_path(&mut path, pid, b"/task");
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    if let Ok(folder) = fd::open(path, flags, 0) {
        Numbers::from_start(folder.fd()).take(most).for_each(look);
    }
}

fn read(tid: i32, what: &[u8], into: &mut [u8]) -> Sys<usize> {
    let mut path = [0u8; 32];
    let path = procfs::proc_path(&mut path, tid, what);
    let file = fd::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
    Ok(task::read_text(file.fd(), into))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_three_numbers() {
        let turns = Turns {
            ran: 753_299,
            waited: 6_066_054,
            count: 3,
        };
        assert_eq!(turns_in(b"753299 6066054 3\n"), Some(turns));
        for none in [&b"0 0 0\n"[..], b"", b"1 2", b"1 2 x\n", b"-1 2 3\n"] {
            assert_eq!(turns_in(none), None);
        }
    }

    #[test]
    fn the_caller_runs_and_is_a_task_of_its_process() {
        let own = task::gettid();
        // Not every kernel keeps an account of turns.
        assert!(turns(own).is_none_or(|turns| turns.count > 0));
        assert_eq!(state(own), Ok(Some(b'R')));
        assert_eq!(parent_of(own, b""), None);
        let name = std::fs::read("/proc/thread-self/comm").expect("comm");
        assert_eq!(parent_of(own, name.trim_ascii_end()), Some(task::parent()));
        let mut found = false;
        for_tasks_of(task::own_pid(), usize::MAX, &mut |tid| found |= tid == own);
        assert!(found);
        assert_eq!(turns(i32::MAX), None);
    }
}
