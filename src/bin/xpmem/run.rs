// SPDX-License-Identifier: MIT OR Apache-2.0
//! `xpmem run`: a command that sees our library.

#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const LIBRARY: &str = "libxpmem.so.0";

#[derive(clap::Args)]
pub struct Options {
    /// Leave LD_PRELOAD alone; the library then does not see the command's own
    /// munmap, mremap and the like, and relies on the kernel's events
    #[arg(long)]
    no_preload: bool,

    /// Back end for the command (sets XPMEM_BACKEND)
    #[arg(long, value_name = "NAME", value_parser = ["auto", "kernel", "user", "both", "off"])]
    backend: Option<String>,

    /// Have each process print one line of counters when it ends (adds to XPMEM_DEBUG)
    #[arg(long)]
    stats: bool,

    /// Folder that holds libxpmem.so.0 [default: found from where this tool is]
    #[arg(long, value_name = "FOLDER")]
    library: Option<PathBuf>,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub fn run(options: &Options) -> Result<ExitCode, String> {
    let folder = match &options.library {
        Some(folder) => {
            let folder = folder
                .canonicalize()
                .map_err(|error| format!("{}: {error}", folder.display()))?;
            if !folder.join(LIBRARY).is_file() {
                return Err(format!("no {LIBRARY} in {}", folder.display()));
            }
            folder
        }
        None => find_library()?,
    };
    // A colon or a blank ends a name in these lists, and there is no way to quote one.
    let text = folder.to_string_lossy();
    if text.contains([':', ';', ' ']) {
        return Err(format!(
            "{text}: the dynamic linker cannot be given a folder whose name has ':', ';' or a blank"
        ));
    }

    let mut command = Command::new(&options.command[0]);
    command.args(&options.command[1..]);
    command.env(
        "LD_LIBRARY_PATH",
        with_first(folder.as_os_str(), "LD_LIBRARY_PATH"),
    );
    if !options.no_preload {
        let library = folder.join(LIBRARY);
        command.env("LD_PRELOAD", with_first(library.as_os_str(), "LD_PRELOAD"));
    }
    if let Some(backend) = &options.backend {
        command.env("XPMEM_BACKEND", backend);
    }
    if options.stats {
        let mut debug = OsString::from("stats");
        if let Some(old) = std::env::var_os("XPMEM_DEBUG").filter(|old| !old.is_empty()) {
            debug.push(",");
            debug.push(old);
        }
        command.env("XPMEM_DEBUG", debug);
    }
    let error = command.exec();
    eprintln!("xpmem: {}: {error}", options.command[0].to_string_lossy());
    Ok(ExitCode::from(match error.kind() {
        std::io::ErrorKind::NotFound => 127,
        _ => 126,
    }))
}

/// The value of an environment list with `first` in front, and only there: a
/// command that is run so twice sees it once.
fn with_first(first: &OsStr, variable: &str) -> OsString {
    let mut list = first.to_os_string();
    let Some(old) = std::env::var_os(variable).filter(|old| !old.is_empty()) else {
        return list;
    };
    // An empty word between two colons is the current folder, and stays.
    for word in old.as_bytes().split(|&byte| byte == b':') {
        if word != first.as_bytes() {
            list.push(":");
            list.push(OsStr::from_bytes(word));
        }
    }
    list
}

/// The folder of the library that belongs to this tool: beside it, in the
/// installed layout (`bin` next to `lib`), or in the build tree.
fn find_library() -> Result<PathBuf, String> {
    let tool = std::env::current_exe().map_err(|error| format!("where is this tool? {error}"))?;
    let beside = tool.parent().unwrap_or(Path::new("/"));
    let multiarch = format!("../lib/{}-linux-gnu", std::env::consts::ARCH);
    let places = [
        ".",
        "../lib",
        "../lib64",
        &multiarch,
        "../../build/lib",
        "../../../build/lib",
    ];
    places
        .iter()
        .map(|place| beside.join(place))
        .find(|folder| folder.join(LIBRARY).is_file())
        .and_then(|folder| folder.canonicalize().ok())
        .ok_or_else(|| {
            format!(
                "no {LIBRARY} beside {} nor in ../lib, ../lib64, {multiarch}, ../../build/lib; name its folder with --library",
                tool.display()
            )
        })
}
