// SPDX-License-Identifier: MIT OR Apache-2.0
//! `xpmem demo`: an owner and a second process, both ordinary.
//!
//! The owner starts the peer as a program of its own (not a fork that would
//! inherit the memory) and talks to it in lines of text over pipes. Nothing
//! but ids, orders and figures goes through them: the data goes through the
//! attachment.

#![forbid(unsafe_code)]

mod peer;

use crate::sys::{self, Mapping, Memory};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use xpmem::{api, uapi};

pub use peer::peer;

const MIB: usize = 1 << 20;
const WARM_SIZES: [usize; 4] = [4 << 10, 64 << 10, MIB, 4 * MIB];
const WARM_ROUNDS: usize = 40;

#[derive(clap::Args)]
pub struct Options {
    /// Memory to share, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(4..=4096))]
    size: u32,
}

/// A value that names its place and the round it was written in.
fn stamp(round: u64, index: usize) -> u64 {
    (index as u64 ^ round << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn write_all(memory: &Memory, round: u64) {
    for index in 0..memory.len() / 8 {
        memory.write_word(index, stamp(round, index));
    }
}

/// The first word that is not what `round` wrote.
fn first_wrong(memory: &Memory, round: u64) -> Option<usize> {
    (0..memory.len() / 8).find(|&index| memory.read_word(index) != stamp(round, index))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The second process, as the owner sees it.
struct Peer {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start() -> Result<Self, String> {
        let tool = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut process = Command::new(tool)
            .arg("demo-peer")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("starting the second process: {error}"))?;
        let (Some(orders), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("the second process has no pipes".to_string());
        };
        Ok(Self {
            process,
            orders,
            answers: BufReader::new(answers),
        })
    }

    /// Gives an order and waits for its answer, a line that begins with "ok".
    fn ask(&mut self, order: &str) -> Result<String, String> {
        let mut line = String::new();
        writeln!(self.orders, "{order}")
            .and_then(|()| self.answers.read_line(&mut line))
            .map_err(|error| format!("the second process ({order}): {error}"))?;
        match line.trim_end().strip_prefix("ok") {
            Some(answer) => Ok(answer.trim().to_string()),
            None if line.is_empty() => Err(format!("the second process ended during `{order}`")),
            None => Err(format!(
                "the second process, `{order}`: {}",
                line.trim_end()
            )),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Also on an early return: no process is left behind.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn run(options: &Options) -> Result<ExitCode, String> {
    let size = options.size as usize * MIB;
    let os = |error: io::Error| error.to_string();
    let back_end = api::back_end()
        .map_err(|error| format!("no back end serves (see `xpmem info`): {error}"))?;
    say!(
        "owner: process {}, uid {}, back end {}",
        std::process::id(),
        sys::effective_uid(),
        back_end
    );

    let mut memory = Mapping::anonymous(size).map_err(os)?;
    let started = Instant::now();
    write_all(&memory, 1);
    let own_first_touch = started.elapsed();
    let segid = api::make(0, uapi::MAXADDR_SIZE, uapi::PERMIT_MODE, 0o600)
        .map_err(|error| format!("xpmem_make: {error}"))?;
    say!(
        "owner: exported its address space; {} MiB of it filled",
        options.size
    );

    let mut peer = Peer::start()?;
    let attached = peer.ask(&format!("attach {segid} {} {size}", memory.address()))?;
    say!("peer:  process {}, {attached}", peer.process.id());

    let first = peer.ask("first 1")?;
    say!(
        "peer:  {first}; the owner's own first touch of it took {:.1} ms",
        milliseconds(own_first_touch)
    );
    if let Some(moved) = in_memory_file(&memory) {
        say!(
            "owner: {} MiB of it are in the shared memory file now, at the same addresses",
            moved / MIB
        );
    }
    peer.ask("write 2")?;
    if let Some(index) = first_wrong(&memory, 2) {
        return Err(format!(
            "the owner does not see what the peer wrote, from byte {}",
            index * 8
        ));
    }
    say!("owner: sees every byte that the peer wrote");
    write_all(&memory, 3);
    peer.ask("check 3")?;
    say!("peer:  sees every byte that the owner wrote after it");

    say!("\nreading from the peer, best of {WARM_ROUNDS} (GB/s):");
    say!(
        "  {:>9}  {:>12}  {:>12}  {:>12}  {:>9}",
        "size",
        "attached",
        "own memory",
        "CMA",
        "vs CMA"
    );
    for size in WARM_SIZES {
        say!("  {}", peer.ask(&format!("warm {size}"))?);
    }

    say!("\nowner: unmaps the memory and maps fresh memory at the same address");
    memory.replace().map_err(os)?;
    write_all(&memory, 4);
    peer.ask("check 4")?;
    say!("peer:  reads the fresh memory through the attachment it had: no call, no stale byte");
    memory.unmap();
    say!("owner: unmaps the memory for good");
    let end = touch_of_nothing(&mut peer)?;
    say!("peer:  {end}");
    drop(peer);
    api::remove(segid).map_err(|error| format!("xpmem_remove: {error}"))?;
    Ok(ExitCode::SUCCESS)
}

/// How much of the memory the user back end has moved into its file; `None` where
/// it does not serve. (Or where a path is mapped that is no UTF-8, which
/// proc-maps cannot read.)
fn in_memory_file(memory: &Memory) -> Option<usize> {
    let (start, end) = (memory.address(), memory.address() + memory.len());
    let maps = proc_maps::get_process_maps(std::process::id() as proc_maps::Pid).ok()?;
    let moved = maps
        .iter()
        .filter(|map| {
            map.filename()
                .is_some_and(|name| name.starts_with("/memfd:xpmem (deleted)"))
        })
        .map(|map| {
            let map = map.start().max(start)..(map.start() + map.size()).min(end);
            map.end.saturating_sub(map.start)
        })
        .sum();
    (moved > 0).then_some(moved)
}

/// The peer's last order: touch what is no more. It must end it, by SIGBUS.
fn touch_of_nothing(peer: &mut Peer) -> Result<String, String> {
    let answer = peer.ask("touch");
    if let Ok(value) = answer {
        return Err(format!(
            "the peer read {value} from memory that its owner unmapped"
        ));
    }
    let status = peer.process.wait().map_err(|error| error.to_string())?;
    match status.signal() {
        Some(libc::SIGBUS) => Ok("touched it and was ended by SIGBUS, as it must be".to_string()),
        _ => Err(format!(
            "the peer touched unmapped memory and {status}, not SIGBUS"
        )),
    }
}
