// SPDX-License-Identifier: MIT OR Apache-2.0
//! The owner's side: how long an attacher is waited for that has not answered.
//!
//! What counts is the time in which it could have run. A machine with much to do
//! leaves a service, or a thread that this has to stop, without a processor for
//! seconds, and who is hung up on loses what devices write (see
//! [`withdraw`](crate::user::service::withdraw)). So a time in which a task of the
//! attacher waited for a processor is not counted. The kernel tells of it in /proc; where
//! it does not, all time counts.
//!
//! An attacher can have tasks that wait for a processor whenever it likes. So the
//! wait has an end that looks at no task.

#![forbid(unsafe_code)]

use super::{Peers, Side, CONNECTIONS};
use crate::fd::Fd;
use crate::user::sys::sched::{self, Turns};
use crate::user::sys::{net, task};

/// So many times its limit an attacher is waited for at most.
const MOST: u64 = 10;

/// Nanoseconds between two looks at an attacher. A time up to the first one counts.
const BETWEEN_LOOKS: u64 = 40_000_000;

/// So many threads of an attacher's program are looked at.
const THREADS: usize = 32;

/// An attacher that is waited for. All zero is one that has not been looked at.
#[derive(Clone, Copy)]
pub struct Lateness {
    /// Nanoseconds of the wait up to the last look.
    looked: u64,
    /// Nanoseconds of them that do not count.
    excused: u64,
    /// Whether the last look has seen anything, and what.
    is_known: bool,
    seen: Seen,
}

/// What a look has seen.
#[derive(Clone, Copy)]
struct Seen {
    /// Nanoseconds in which its tasks have waited for a processor, all together.
    waited: u64,
    /// Of each task what it has had, as a bit of a filter: which one it is, and how
    /// often and how long it has run.
    tasks: [u64; 4],
}

impl Lateness {
    pub const NEW: Self = Self {
        looked: 0,
        excused: 0,
        is_known: false,
        seen: Seen::NOTHING,
    };

    /// Whether somebody has been waited for too long, if that is to be decided now:
    /// `spent` is how long it was, `limit` how long it may be, and `look` answers how
    /// the tasks fare that it depends on, if that is known.
    fn is_over(
        &mut self,
        spent: u64,
        limit: u64,
        look: impl FnOnce(&Seen) -> Option<(Seen, bool)>,
    ) -> bool {
        let next = self.looked + BETWEEN_LOOKS.min(limit);
        if spent < next {
            return false;
        }
        let since = spent - self.looked;
        self.looked = spent;
        let now = look(&self.seen);
        if let (Some((now, starves)), true) = (&now, self.is_known) {
            let waited = now.waited.saturating_sub(self.seen.waited);
            self.excused += if *starves { since } else { waited.min(since) };
        }
        self.is_known = now.is_some();
        self.seen = now.map_or(Seen::NOTHING, |(now, _)| now);
        spent - self.excused > limit
    }
}

impl Seen {
    const NOTHING: Self = Self {
        waited: 0,
        tasks: [0; 4],
    };

    /// Takes note of what a task has had; whether that is what `before` has seen.
    fn note(&mut self, tid: i32, turns: Turns, before: &Self) -> bool {
        self.waited = self.waited.saturating_add(turns.waited);
        let mut hash = tid as u64;
        for word in [turns.ran, turns.count] {
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 32;
        }
        let (word, bit) = (hash as usize >> 6 & 3, 1 << (hash & 63));
        self.tasks[word] |= bit;
        before.tasks[word] & bit != 0
    }
}

/// Looks at service `pid` of an attacher and at the threads of its program: what they
/// have had of processors, and whether one has waited for one since the look `before`.
/// `None`: it is not known, or the service stands or has ended.
fn look(pid: i32, before: &Seen) -> Option<(Seen, bool)> {
    if pid <= 0 {
        return None;
    }
    let state = sched::state(pid).ok()??;
    if matches!(state, b'T' | b't' | b'Z' | b'X') {
        return None;
    }
    let mut now = Seen::NOTHING;
    // While it runs, or is woken, it has had no more than at the last look: so it
    // starves if nothing has changed, and it is runnable.
    let mut starves = now.note(pid, sched::turns(pid)?, before) && state == b'R';
    if let Some(program) = sched::parent_of(pid, task::SERVICE.to_bytes()) {
        sched::for_tasks_of(program, THREADS, &mut |tid| {
            if let Some(turns) = sched::turns(tid) {
                let is_same = now.note(tid, turns, before);
                starves |= is_same && sched::state(tid) == Ok(Some(b'R'));
            }
        });
    }
    Some((now, starves))
}

impl Peers {
    /// Whether attacher `i` is to be hung up on, whose answer to a recall has been
    /// waited for since `spent` nanoseconds.
    pub fn is_late_to_answer(&mut self, i: usize, spent: u64) -> bool {
        let c = &mut self.connections[i];
        is_late((c.fd, c.pid), spent, c.limit, &mut c.answering)
    }

    /// Somebody waits until peers are [quiet](Self::is_quiet): attachers that do not acknowledge
    /// are waited for no longer than that. Whether some still are.
    pub fn await_acknowledgements(&mut self) -> bool {
        let mut some = false;
        for i in 0..CONNECTIONS {
            let c = &mut self.connections[i];
            if c.side != Side::Owner || c.unnoted == 0 {
                continue;
            }
            let spent = c.patience.spent();
            if is_late((c.fd, c.pid), spent, c.limit, &mut c.acknowledging) {
                self.cut(i);
            } else {
                some = true;
            }
        }
        some
    }
}

fn is_late((fd, pid): (Fd, i32), spent: u64, limit: u64, lateness: &mut Lateness) -> bool {
    if spent > limit.saturating_mul(MOST) {
        return true;
    }
    // What has been said is heard first.
    lateness.is_over(spent, limit, |before| look(pid, before)) && !net::has_input(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::patience::LIMIT;

    /// How long somebody is waited for whom looks find so, each after 50 ms.
    fn waited_for(limit: u64, mut found: impl FnMut(u64) -> Option<(Seen, bool)>) -> u64 {
        const STEP: u64 = 50_000_000;
        let mut lateness = Lateness::NEW;
        let mut spent = 0;
        while spent <= MOST * limit && !lateness.is_over(spent, limit, |_| found(spent)) {
            spent += STEP.min(limit);
        }
        spent
    }

    fn seen(waited: u64, starves: bool) -> Option<(Seen, bool)> {
        let seen = Seen {
            waited,
            ..Seen::NOTHING
        };
        Some((seen, starves))
    }

    #[test]
    fn time_without_a_processor_does_not_count() {
        let until = |time: u64| move |spent: u64| seen(0, spent < time);
        for limit in [LIMIT, LIMIT / 4, LIMIT / 1024] {
            let normal = waited_for(limit, |_| seen(0, false));
            assert!(normal > limit && normal < 2 * limit + BETWEEN_LOOKS);
            assert_eq!(
                waited_for(limit, |_| None),
                normal,
                "as where nothing is known"
            );
            let late = waited_for(limit, until(3 * limit));
            assert!(late >= 3 * limit && late <= 3 * limit + normal, "{late}");
            assert!(waited_for(limit, |_| seen(0, true)) > MOST * limit);
            // A wait that has ended is told in one lump, or bit by bit.
            let lump = waited_for(limit, |spent| {
                seen(if spent > limit { limit } else { 0 }, false)
            });
            assert!(lump >= normal && lump <= normal + 2 * BETWEEN_LOOKS);
            assert!(waited_for(limit, |spent| seen(spent, false)) > MOST * limit);
            let half = waited_for(limit, |spent| seen(spent / 2, false));
            assert!(half >= normal && half < MOST * limit, "{half}");
        }
    }

    #[test]
    fn what_is_known_no_more_is_not_compared() {
        // It is told again later, as much as there was before.
        let gaps = |spent: u64| {
            if spent / 100_000_000 % 2 == 0 {
                None
            } else {
                seen(spent, false)
            }
        };
        assert!(waited_for(LIMIT, gaps) > LIMIT);
    }

    #[test]
    fn a_task_that_has_had_nothing_since_is_found() {
        let turns = |ran, count| Turns {
            ran,
            waited: 7,
            count,
        };
        let (mut before, mut now) = (Seen::NOTHING, Seen::NOTHING);
        for tid in 1..=8 {
            assert!(!before.note(tid, turns(1_000, 3), &Seen::NOTHING));
        }
        for tid in 1..=8 {
            assert!(now.note(tid, turns(1_000, 3), &before));
        }
        assert_eq!((now.waited, now.tasks), (56, before.tasks));
        let mut others = Seen::NOTHING;
        let same = (1..=100).filter(|&tid| others.note(tid, turns(1_001, 4), &before));
        assert!(same.count() < 20);
    }
}
