// SPDX-License-Identifier: MIT OR Apache-2.0
//! `xpmem topology`: hwloc topologies in shared memory.

#![forbid(unsafe_code)]

mod drawing;
mod text;

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use xpmem::error::Error;
use xpmem::hwloc::range::hole;
use xpmem::hwloc::tool::file::File;
use xpmem::hwloc::tool::machine::Machine;

#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Write this machine's topology, for others to adopt
    ///
    /// Prints the address and the length that hwloc_shmem_topology_adopt() needs.
    /// Needs libhwloc.so.15.
    Write {
        /// File to write, made if it is not there
        file: PathBuf,
        /// Address for adopters; one that is free here unless given
        #[arg(long, value_parser = number)]
        address: Option<usize>,
        /// Choose an address that is free in this process too (may be repeated)
        #[arg(long = "pid", conflicts_with = "address")]
        pids: Vec<u32>,
        /// Another machine than this one, as hwloc's synthetic descriptions say
        #[arg(long, value_name = "DESCRIPTION")]
        synthetic: Option<String>,
    },

    /// Show what a file holds, as text or as a drawing
    Show {
        /// File that hwloc or we wrote
        file: PathBuf,
        /// Where in the file the topology begins (lstopo writes at 4096)
        #[arg(long, default_value = "0", value_parser = number)]
        offset: usize,
        /// Draw into an SVG file
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },

    /// Check a file as an adopter would
    ///
    /// The exit status is 0 for a whole and consistent topology, and 1 otherwise.
    Check {
        /// File to check
        file: PathBuf,
        /// Where in the file the topology begins (lstopo writes at 4096)
        #[arg(long, default_value = "0", value_parser = number)]
        offset: usize,
    },

    /// Find addresses that are free in several processes
    Hole {
        /// A process (may be repeated)
        #[arg(long = "pid", required = true)]
        pids: Vec<u32>,
        /// Bytes
        #[arg(long, value_parser = number)]
        length: usize,
    },
}

/// A number, decimal or hexadecimal.
fn number(text: &str) -> Result<usize, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => usize::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|e| e.to_string())
}

fn why(error: Error) -> String {
    if error == Error::Unsupported {
        return "there is no libhwloc.so.15 here".to_string();
    }
    std::io::Error::from_raw_os_error(error.errno()).to_string()
}

fn open(file: &Path, offset: usize) -> Result<File, String> {
    File::open(file, offset as u64).map_err(|e| format!("{}: {e}", file.display()))
}

pub fn run(options: &Options) -> Result<ExitCode, String> {
    match &options.command {
        Command::Write {
            file,
            address,
            pids,
            synthetic,
        } => write(file, *address, pids, synthetic.as_deref()),
        Command::Show { file, offset, svg } => show(file, *offset, svg.as_deref()),
        Command::Check { file, offset } => {
            let checked = open(file, *offset)?;
            say!("{}: {}", file.display(), text::summary(&checked));
            Ok(ExitCode::SUCCESS)
        }
        Command::Hole { pids, length } => {
            let addr = hole::find(pids, *length).map_err(why)?;
            say!("{addr:#x}");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn write(
    path: &Path,
    address: Option<usize>,
    pids: &[u32],
    synthetic: Option<&str>,
) -> Result<ExitCode, String> {
    let synthetic = match synthetic {
        Some(text) => Some(CString::new(text).map_err(|e| e.to_string())?),
        None => None,
    };
    let machine = Machine::load(synthetic.as_deref()).map_err(why)?;
    let length = machine.length().map_err(why)?;
    let address = match address {
        Some(address) => address,
        None => hole::find(pids, length).map_err(why)?,
    };
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    machine
        .write(file.as_raw_fd(), address, length)
        .map_err(|e| format!("{}: {}", path.display(), why(e)))?;
    say!("address {address:#x} length {length}");
    Ok(ExitCode::SUCCESS)
}

/// Room for objects nested as deeply as a file may have them.
const STACK: usize = 512 << 20;

fn show(file: &Path, offset: usize, svg: Option<&Path>) -> Result<ExitCode, String> {
    let checked = open(file, offset)?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let shown = thread.spawn_scoped(scope, || print(&checked, svg));
        let shown = shown.map_err(|e| e.to_string())?.join();
        shown.unwrap_or_else(|_| Err("the drawing failed".to_string()))
    })
}

fn print(checked: &File, svg: Option<&Path>) -> Result<ExitCode, String> {
    let root = checked.root().ok_or("no objects")?;
    match svg {
        None => crate::print_text(format_args!(
            "{}\n{}",
            text::summary(checked),
            text::tree(&root)
        ))?,
        Some(path) => std::fs::write(path, drawing::draw(&root))
            .map_err(|e| format!("{}: {e}", path.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}
