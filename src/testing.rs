// SPDX-License-Identifier: MIT OR Apache-2.0
//! Switches with which a test has the library leave something out, to show that
//! the test notices. Only a build with the feature `fault-injection` has any.

#![forbid(unsafe_code)]

use crate::environment::{self, Variable};

fn is_set(switch: &Variable) -> bool {
    cfg!(feature = "fault-injection") && environment::get(switch).is_some()
}

/// Whether revocation has been switched off.
pub fn revocation_is_off() -> bool {
    is_set(&environment::TEST_NO_REVOKE)
}

/// Whether pages that were moved aside for nothing are to be copied back, as if
/// the kernel would not move them.
pub fn moving_back_is_refused() -> bool {
    is_set(&environment::TEST_NO_MOVE_BACK)
}

/// Whether what is written to memory while it is copied is to be lost.
pub fn first_copies_count() -> bool {
    is_set(&environment::TEST_FIRST_COPY)
}

/// Whether attachers are not asked to let go, as if none of them answered.
pub fn nobody_lets_go() -> bool {
    is_set(&environment::TEST_BY_FORCE)
}

/// Whether children are to have what is shared, too.
pub fn children_inherit() -> bool {
    is_set(&environment::TEST_INHERIT)
}

/// Whether a promotion that fails is not to be undone.
pub fn nothing_is_undone() -> bool {
    is_set(&environment::TEST_NO_UNDO)
}

/// Whether the back end is to do with what Linux 6.1 has.
pub fn plays_old_kernel() -> bool {
    is_set(&environment::TEST_OLD_KERNEL)
}

/// Whether the machine is taken for one with more memory nodes than one.
pub fn plays_several_nodes() -> bool {
    is_set(&environment::TEST_NODES)
}

/// How many places a table of `size` has: fewer where a test is to come to its end.
#[inline]
pub fn places(size: usize) -> usize {
    #[cfg(feature = "fault-injection")]
    if let Some(text) = environment::get(&environment::TEST_PLACES) {
        let few = text.to_str().ok().and_then(|text| text.parse().ok());
        return few.map_or(size, |few: usize| few.min(size));
    }
    size
}

/// Whether the alarm of whoever traces rings in the midst of it.
pub fn rings_at_once() -> bool {
    is_set(&environment::TEST_ALARM)
}

/// Whether some time is to pass where a child of a fork has been given a part of its memory.
pub fn forks_last() -> bool {
    is_set(&environment::TEST_SLOW_FORK)
}

/// Whether the thread that held a service is to be there for a while when that has ended.
pub fn ends_slowly() -> bool {
    is_set(&environment::TEST_SLOW_END)
}

/// The next number of a sequence that looks random, for tests of tables against a
/// model of them. Its upper half is the better one.
#[cfg(test)]
pub fn next_random(seed: &mut u64) -> u64 {
    *seed = seed
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    *seed
}
