// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a thread of the program can ask the service for, and how that fits a slot.

#![forbid(unsafe_code)]

use crate::user::span::{Span, TOP};

/// The most words that a command is, with its number.
pub const WORDS: usize = 6;

/// Answer to [`Command::ForkBegin`]: another thread is in a fork, come again.
pub const ANOTHER_FORKS: u64 = 1;

/// Answer to [`Command::Remap`]: the kernel can do this one by itself.
pub const NOT_NEEDED: u64 = u64::MAX >> 1;

/// Words that are written, or read, one after the other.
struct Words {
    words: [u64; WORDS],
    at: usize,
}

impl Words {
    fn put(&mut self, word: u64) {
        self.words[self.at] = word;
        self.at += 1;
    }

    fn take(&mut self) -> u64 {
        self.at += 1;
        self.words[self.at - 1]
    }
}

/// What can be part of a command.
trait Part {
    fn put(self, words: &mut Words);
    fn take(words: &mut Words) -> Self;
}

macro_rules! numbers {
    ($($number:ty)*) => {
        $(impl Part for $number {
            fn put(self, words: &mut Words) {
                words.put(self as u64);
            }

            fn take(words: &mut Words) -> Self {
                words.take() as $number
            }
        })*
    };
}
numbers! { usize u32 i32 i64 }

impl Part for bool {
    fn put(self, words: &mut Words) {
        words.put(self.into());
    }

    fn take(words: &mut Words) -> Self {
        words.take() != 0
    }
}

impl Part for Span {
    fn put(self, words: &mut Words) {
        self.start().put(words);
        self.end().put(words);
    }

    fn take(words: &mut Words) -> Self {
        let (start, end) = (usize::take(words), usize::take(words));
        Span::new(start, end)
    }
}

/// Defines the commands, and their way through a slot.
macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $number:literal { $($part:ident: $kind:ty),* })*) => {
        /// What a thread asks the service for.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Command {
            $($(#[$doc])* $name { $($part: $kind),* },)*
        }

        impl Command {
            /// The words of a slot.
            pub fn words(self) -> [u64; WORDS] {
                let mut words = Words { words: [0; WORDS], at: 0 };
                match self {
                    $(Command::$name { $($part),* } => {
                        words.put($number);
                        $($part.put(&mut words);)*
                    })*
                }
                words.words
            }

            /// The command with these words; `None` where there is none.
            pub fn from_words(words: [u64; WORDS]) -> Option<Self> {
                let mut words = Words { words, at: 0 };
                Some(match words.take() {
                    $($number => Command::$name { $($part: Part::take(&mut words)),* },)*
                    _ => return None,
                })
            }
        }
    };
}

commands! {
    /// Exports memory -> segid. `module`: the segid that the module has given it, or 0.
    Make = 1 { start: usize, size: usize, mode: u32, module: i64 }
    /// Ends a segment. `by_module`: `segid` is the module's.
    Remove = 2 { segid: i64, by_module: bool }
    /// Asks for access -> apid.
    Get = 3 { segid: i64, flags: i32, by_module: bool }
    /// Gives access back.
    Release = 4 { apid: i64 }
    /// Attaches -> address; `vaddr` 0: anywhere.
    Attach = 5 { apid: i64, offset: i64, size: usize, vaddr: usize }
    /// Unmaps the attachment at `addr`.
    Detach = 6 { addr: usize }
    /// Is about to be unmapped.
    Retire = 7 { span: Span }
    /// Is about to be protected, or replaced, by the program.
    Withdraw = 8 { span: Span }
    /// Must be private memory for what the program is about to do.
    Demote = 9 { span: Span }
    /// A setting changes -> 1 if that is all done.
    Advise = 10 { span: Span, advice: i32 }
    /// The content is to be dropped -> 1 if that is all done.
    Discard = 11 { span: Span, advice: i32 }
    /// mremap(2) -> address, or [`NOT_NEEDED`].
    Remap = 12 { old: usize, old_len: usize, new_len: usize, flags: i32, target: usize }
    /// The SysV segment at `addr` is about to be detached.
    RecallSegment = 13 { addr: usize }
    /// Pages of a file are about to change their places; EINVAL where they are not
    /// the program's file any more.
    Rearrange = 14 { span: Span }
    /// Is about to fork. `alone`: nobody tells of its end.
    ForkBegin = 15 { tid: i32, alone: bool }
    /// The fork is over, in the parent.
    ForkEnd = 16 {}
    /// A thread's rights have changed.
    Rights = 17 { tid: i32 }
    /// Is about to be pinned by a device -> how far that may begin.
    Pin = 18 { span: Span }
    /// Has just been mapped, and is to be shared from the start.
    Bear = 19 { span: Span }
    /// Some of it is pinned by a device as it is.
    Pinned = 20 { span: Span }
}

impl Command {
    /// The addresses that it is about; empty where it is about none, and all above
    /// where only the service knows how many.
    pub fn span(self) -> Span {
        match self {
            Command::Retire { span }
            | Command::Withdraw { span }
            | Command::Demote { span }
            | Command::Advise { span, .. }
            | Command::Discard { span, .. }
            | Command::Rearrange { span }
            | Command::Pin { span }
            | Command::Pinned { span }
            | Command::Bear { span } => span,
            // From no length so much is mapped once more.
            Command::Remap {
                old,
                old_len: 0,
                new_len,
                ..
            } => Span::of(old, new_len),
            Command::Remap { old, old_len, .. } => Span::of(old, old_len),
            Command::RecallSegment { addr } => Span::new(addr, TOP),
            _ => Span::EMPTY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_survive_the_slot_and_garbage_does_not_pass() {
        let span = Span::new(0x1000, 0x3000);
        let (apid, offset, size) = (7, -4096, usize::MAX);
        for command in [
            Command::Attach {
                apid,
                offset,
                size,
                vaddr: 1,
            },
            Command::Get {
                segid: i64::MAX,
                flags: -1,
                by_module: true,
            },
            Command::Remap {
                old: 1,
                old_len: 2,
                new_len: 3,
                flags: 4,
                target: 5,
            },
            Command::Advise { span, advice: -1 },
            Command::Pin { span },
            Command::ForkEnd {},
        ] {
            assert_eq!(Command::from_words(command.words()), Some(command));
        }
        for number in [0, 21, u64::MAX] {
            assert_eq!(Command::from_words([number, 0, 0, 0, 0, 0]), None);
        }
        assert_eq!(Command::Pin { span }.span(), span);
    }
}
