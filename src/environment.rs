// SPDX-License-Identifier: MIT OR Apache-2.0
//! The environment variables of the library: one list.
//!
//! Nothing reads a variable that is not in it. README, the man pages and
//! `xpmem info` tell of those for users, and tests hold them to that.

use core::ffi::CStr;

/// Whom a variable is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    Users,
    /// Has an effect only in a library with the feature `fault-injection`.
    Tests,
}

/// One variable.
#[derive(Debug)]
pub struct Variable {
    pub name: &'static CStr,
    pub audience: Audience,
}

macro_rules! variables {
    ($($(#[$doc:meta])* $audience:ident $constant:ident = $name:literal;)*) => {
        $($(#[$doc])* pub static $constant: Variable = Variable {
            name: $name,
            audience: Audience::$audience,
        };)*

        /// Every variable that the library reads.
        pub static ALL: &[&Variable] = &[$(&$constant),*];
    };
}

variables! {
    /// Which back end serves: `auto`, `kernel`, `user`, `both` or `off`.
    Users BACKEND = c"XPMEM_BACKEND";
    /// A list of `1` (errors and decisions) and `stats` (counters at exit).
    Users DEBUG = c"XPMEM_DEBUG";
    /// The file that those lines are appended to.
    Users DEBUG_FILE = c"XPMEM_DEBUG_FILE";
    /// The folder where the processes of the user back end find each other.
    Users DIR = c"XPMEM_DIR";
    /// What new memory is shared from the start: `off`, `learned`, or all of at least
    /// so many bytes.
    Users BORN = c"XPMEM_BORN";
    /// How long what is in the way of sharing is waited for, in seconds.
    Users WAIT = c"XPMEM_WAIT";
    /// Revocation does nothing: tests must notice.
    Tests TEST_NO_REVOKE = c"XPMEM_TEST_NO_REVOKE";
    /// Pages that were moved aside are copied back, as if they would not move.
    Tests TEST_NO_MOVE_BACK = c"XPMEM_TEST_NO_MOVE_BACK";
    /// Attachers are not asked to let go: what they have is copied and taken.
    Tests TEST_BY_FORCE = c"XPMEM_TEST_BY_FORCE";
    /// Children have what is shared, as their parent does: tests must notice.
    Tests TEST_INHERIT = c"XPMEM_TEST_INHERIT";
    /// A promotion that fails is not undone: tests must notice.
    Tests TEST_NO_UNDO = c"XPMEM_TEST_NO_UNDO";
    /// What is written to memory while it is copied is lost: tests must notice.
    Tests TEST_FIRST_COPY = c"XPMEM_TEST_FIRST_COPY";
    /// The library does with what Linux 6.1 has.
    Tests TEST_OLD_KERNEL = c"XPMEM_TEST_OLD_KERNEL";
    /// A machine with one memory node is taken for one with several.
    Tests TEST_NODES = c"XPMEM_TEST_NODES";
    /// The alarm of whoever traces rings in each stop.
    Tests TEST_ALARM = c"XPMEM_TEST_ALARM";
    /// A fork stands for a while at each part of what its child is given.
    Tests TEST_SLOW_FORK = c"XPMEM_TEST_SLOW_FORK";
    /// The thread that held a service which has ended is there for a while after it.
    Tests TEST_SLOW_END = c"XPMEM_TEST_SLOW_END";
    /// How many ranges may be promoted before the service is thrifty with them.
    Tests TEST_RANGES = c"XPMEM_TEST_RANGES";
    /// How many places the tables of the service have that a test cannot fill else.
    Tests TEST_PLACES = c"XPMEM_TEST_PLACES";
    /// A file that tells which of the service's system calls fail.
    Tests TEST_FAULTS = c"XPMEM_TEST_FAULTS";
}

/// The value of a variable; none in a program that runs with more privilege
/// than its caller has.
pub fn get(variable: &Variable) -> Option<&'static CStr> {
    // SAFETY: getauxval only looks up a number.
    let privileged = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    if privileged {
        return None;
    }
    // SAFETY: the name is a C string. The answer stays valid until somebody
    // changes the environment; every caller is done with it within its call.
    let value = unsafe { libc::getenv(variable.name.as_ptr()) };
    if value.is_null() {
        None
    } else {
        // SAFETY: getenv returns a C string.
        Some(unsafe { CStr::from_ptr(value) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn names(audience: Audience) -> BTreeSet<&'static str> {
        ALL.iter()
            .filter(|v| v.audience == audience)
            .map(|v| v.name.to_str().expect("a name"))
            .collect()
    }

    /// What stands between `before` and `after` in each line that has both.
    fn between<'a>(text: &'a str, before: &str, after: char) -> BTreeSet<&'a str> {
        text.lines()
            .filter_map(|line| line.strip_prefix(before)?.split(after).next())
            .filter(|name| name.starts_with("XPMEM_"))
            .collect()
    }

    #[test]
    fn the_readme_has_a_row_for_each() {
        let rows = between(include_str!("../README.md"), "| `", '`');
        assert_eq!(rows, names(Audience::Users));
    }

    #[test]
    fn the_manual_pages_have_a_paragraph_for_each() {
        for page in [
            include_str!("../man/xpmem.1"),
            include_str!("../man/xpmem.7"),
        ] {
            let told = between(page, ".It Ev ", '\n');
            assert_eq!(told, names(Audience::Users));
        }
    }

    #[test]
    fn the_switches_for_tests_are_documented() {
        let document = include_str!("../docs/facilities.md");
        for name in names(Audience::Tests) {
            assert!(document.contains(&format!("`{name}=")), "{name}");
        }
    }
}
