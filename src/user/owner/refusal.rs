// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why memory is not shared, and what can be done about it.

#![forbid(unsafe_code)]

use crate::errno::Errno;
use crate::user::program::stop::Unstoppable;

/// Why memory is not shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Nothing is mapped there, or nobody may touch it.
    Hole,
    /// The segment is no more.
    Gone,
    /// Not now; try again.
    Later,
    /// A device, the kernel's own pages, or this library's.
    Special,
    /// Pages of another size.
    HugePages,
    /// A shared mapping that cannot be moved.
    SharedFile,
    /// A shared anonymous mapping that another process may have mapped too.
    Relatives,
    /// A shared anonymous mapping that the program has at two places.
    Twice,
    /// The lowest pages of the main stack.
    StackBottom,
    /// Somebody else traces the program.
    Traced,
    /// A device writes to a page of it.
    Pinned,
    /// A device may write to it, which cannot be told.
    Kept,
    /// The program has forbidden every change of it, for good (mseal).
    Sealed,
    /// The kernel said no.
    Os(Errno),
}

impl Refusal {
    /// Of an error that means that the program has just changed what is mapped.
    pub fn of_changed(errno: Errno) -> Self {
        match errno {
            Errno::ENOMEM | Errno::EFAULT | Errno::EINVAL | Errno::EAGAIN => Refusal::Later,
            errno => Refusal::Os(errno),
        }
    }

    /// Whether it is likely to pass, and is waited for.
    pub fn passes(self) -> bool {
        matches!(
            self,
            Refusal::Pinned | Refusal::Traced | Refusal::Os(Errno::ENOMEM | Errno::EAGAIN)
        )
    }

    /// Whether a small attach fails for it. What another process has, too, may
    /// become the owner's alone before it is touched.
    pub fn fails_an_attach(self) -> bool {
        !matches!(
            self,
            Refusal::Relatives | Refusal::SharedFile | Refusal::Special
        )
    }

    /// What is in the way, for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Hole => "nothing is there",
            Refusal::Gone => "the segment is no more",
            Refusal::Later => "a thread of the owner does not stop",
            Refusal::Special => "it is of a device, of the kernel or of this library",
            Refusal::HugePages => "its pages are of another size",
            Refusal::SharedFile => "its file can be neither watched nor opened",
            Refusal::Relatives => "another process has it, too, by fork",
            Refusal::Twice => "the program has it at two places",
            Refusal::StackBottom => "the main stack grows there",
            Refusal::Traced => "a thread of the owner cannot be traced",
            Refusal::Pinned => "a device has pinned it",
            Refusal::Kept => "it was registered with a device when it could not be shared",
            Refusal::Sealed => "it is sealed",
            Refusal::Os(Errno::ENOMEM) => "there is no memory, or no mapping more",
            Refusal::Os(Errno::EBUSY) => "another userfaultfd watches it",
            Refusal::Os(_) => "the kernel refuses",
        }
    }

    /// What can be done about it, for the log.
    pub fn remedy(self) -> &'static str {
        match self {
            Refusal::Later => "see what it sleeps in",
            Refusal::Relatives => "share it before the fork",
            Refusal::Traced => "let debuggers go, and leave PR_SET_DUMPABLE as it is",
            Refusal::Pinned | Refusal::Kept => "share it before it is registered with a device",
            Refusal::Sealed => "share it before mseal",
            Refusal::Os(Errno::ENOMEM) => "raise vm.max_map_count or the limit of memory",
            Refusal::Os(Errno::EBUSY) => "unregister it there",
            _ => "share other memory",
        }
    }

    /// Of an error of a call that puts something else in place of memory.
    pub fn of_refused_change(errno: Errno) -> Self {
        match errno {
            Errno::EPERM => Refusal::Sealed,
            errno => Refusal::Os(errno),
        }
    }
}

impl From<Unstoppable> for Refusal {
    fn from(why: Unstoppable) -> Self {
        match why {
            Unstoppable::Busy => Refusal::Later,
            Unstoppable::Forbidden => Refusal::Traced,
            Unstoppable::Ended => Refusal::Gone,
        }
    }
}
