// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `xpmem` command-line tool: what this machine can do (`info`), a live
//! show of it (`demo`), and a command run over our library (`run`).

use clap::{Parser, Subcommand};
use std::fmt::Arguments as Text;
use std::io::{self, Write};
use std::process::ExitCode;

/// `println!` for a tool: a full disk is an error to report, not a panic.
macro_rules! say {
    ($($word:tt)*) => { crate::print_text(format_args!("{}\n", format_args!($($word)*)))? };
}

mod demo;
mod info;
mod probe;
mod run;
mod sys;
mod topology;

/// Load and store directly in another process's memory.
#[derive(Parser)]
#[command(
    name = "xpmem",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show which kernel facilities are here and which back end would serve
    ///
    /// Each facility is tried, not guessed from a version number, in a child
    /// process where trying it could disturb the tool. The exit status is 0
    /// when a back end would serve and 1 when none would.
    Info(info::Options),

    /// Two processes share memory: written both ways, timed, revoked
    ///
    /// An owner exports its memory and a second, ordinary process attaches it.
    /// Shows first-touch and warm figures beside process_vm_readv (CMA) and a
    /// memcpy within one process, and what the attached side sees when the owner
    /// replaces and then unmaps the memory.
    Demo(demo::Options),

    /// Run a command that finds this libxpmem.so.0 before any other
    ///
    /// Sets LD_LIBRARY_PATH and LD_PRELOAD and replaces itself by the command.
    /// The exit status is the command's; 127 when the command is not found, 126
    /// when it cannot be run.
    Run(run::Options),

    /// hwloc topologies in shared memory: write, show, check, find an address
    Topology(topology::Options),

    /// The second process of `demo`
    #[command(hide = true)]
    DemoPeer,
}

/// Writes to standard output, to the end.
fn print_text(text: Text) -> Result<(), String> {
    let mut out = io::stdout().lock();
    out.write_fmt(text)
        .and_then(|()| out.flush())
        .map_err(|error| format!("standard output: {error}"))
}

fn main() -> ExitCode {
    // A closed pipe ends a command-line tool quietly, as it does cat or ls.
    sys::default_sigpipe();
    let outcome = match Arguments::parse().command {
        Command::Info(options) => info::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Run(options) => run::run(&options),
        Command::Topology(options) => topology::run(&options),
        Command::DemoPeer => demo::peer(),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("xpmem: {message}");
        ExitCode::FAILURE
    })
}
