// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many peers there may be, and how much of each. All limits are in
//! docs/limits.md.

#![forbid(unsafe_code)]

/// Most connections at a time, both directions together, and how many of them
/// attachers may have: what the program attaches itself is not taken by others.
pub const CONNECTIONS: usize = 5120;
pub const ATTACHERS: usize = 4096;

/// How many questions an attacher may have under way on one connection.
pub const WINDOW: usize = 32;

/// Most connections that a process may have here at a time: an attacher needs
/// one, and has one. Before Linux 6.9 the processes that this PID namespace does not
/// show cannot be told apart.
pub const OF_ONE_PEER: usize = 16;
pub const OF_UNSEEN_PEERS: usize = ATTACHERS / 2;

/// Up to this size an attachment's pages are shared when it is made: a page
/// that is there cannot fail a system call.
pub const EAGER: usize = 256 * 1024;

/// The largest chunk that one request for pages shares. The larger it is the longer the owner stands still (benches/README.md).
pub const CHUNK_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/limits.md");

    /// `4096` as `4,096`.
    fn with_comma(n: usize) -> String {
        match n {
            0..1000 => n.to_string(),
            _ => format!("{},{:03}", n / 1000, n % 1000),
        }
    }

    #[test]
    fn the_document_has_these_numbers() {
        for (row, number) in [
            ("| connections of attachers", ATTACHERS),
            ("| connections, to owners, too", CONNECTIONS),
            ("| questions under way", WINDOW),
            ("| connections that one process has", OF_ONE_PEER),
            (
                "| connections of processes that the owner's",
                OF_UNSEEN_PEERS,
            ),
        ] {
            let line = DOCUMENT.lines().find(|line| line.starts_with(row));
            let cell = line.and_then(|line| line.split(" | ").nth(1));
            assert_eq!(cell, Some(with_comma(number).as_str()), "{row}");
        }
    }
}
