// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command-line tool, as a user calls it.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TOOL: &str = env!("CARGO_BIN_EXE_xpmem");

fn tool() -> Command {
    let mut command = Command::new(TOOL);
    for name in [
        "XPMEM_BACKEND",
        "XPMEM_DEBUG",
        "XPMEM_DEBUG_FILE",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
    ] {
        command.env_remove(name);
    }
    command
}

fn output(command: &mut Command) -> Output {
    command.output().expect("the tool starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder of this test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("xpmem-tool-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path.canonicalize().expect("it is there"))
    }

    fn with_library(name: &str) -> Self {
        let folder = Self::new(name);
        fs::write(folder.0.join("libxpmem.so.0"), "").expect("a file");
        folder
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn info_json(command: &mut Command) -> (Value, Output) {
    let output = output(command);
    let value = serde_json::from_slice(&output.stdout).expect("info --json prints JSON");
    (value, output)
}

fn facility<'a>(info: &'a Value, name: &str) -> &'a Value {
    info["facilities"]
        .as_array()
        .expect("a list of facilities")
        .iter()
        .find(|facility| facility["name"] == name)
        .unwrap_or_else(|| panic!("no facility {name} in {info}"))
}

#[test]
fn info_names_every_facility_with_its_reason() {
    let (info, _) = info_json(tool().args(["info", "--json"]));
    for name in [
        "dev-xpmem",
        "uffd-user-mode",
        "uffd-event-unmap",
        "uffd-poison",
        "uffd-wp-async",
        "uffd-move",
        "pagemap-scan",
        "procmap-query",
        "ptrace-own-threads",
        "memfd-sparse",
        "file-size-limit",
        "cma",
    ] {
        let facility = facility(&info, name);
        assert!(facility["found"].is_boolean(), "{facility}");
        assert!(
            !facility["why"].as_str().unwrap_or_default().is_empty(),
            "{facility}"
        );
    }
    let text = text(&output(tool().arg("info")).stdout);
    for facility in info["facilities"].as_array().expect("a list") {
        assert!(
            text.contains(facility["name"].as_str().expect("a name")),
            "{facility} in {text}"
        );
    }
}

#[test]
fn info_says_which_back_end_and_exits_by_it() {
    let (info, out) = info_json(tool().args(["info", "--json"]));
    assert_eq!(
        out.status.success(),
        info["backend"]["serves"].is_string(),
        "{info}"
    );
    let (info, out) = info_json(tool().args(["info", "--json"]).env("XPMEM_BACKEND", "off"));
    assert_eq!(out.status.code(), Some(1));
    assert!(info["backend"]["serves"].is_null(), "{info}");
    assert_eq!(info["backend"]["asked"], "off");
}

#[test]
fn info_tries_and_does_not_guess() {
    let shell = |limit: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limit} exec \"$0\" info --json"), TOOL]);
        info_json(&mut command).0
    };
    let free = shell("");
    let limited = shell("ulimit -f 1000;");
    assert_eq!(
        facility(&limited, "file-size-limit")["found"],
        false,
        "{limited}"
    );
    assert_eq!(
        facility(&limited, "memfd-sparse")["found"],
        false,
        "{limited}"
    );
    assert_eq!(facility(&free, "memfd-sparse")["found"], true, "{free}");
}

#[test]
fn demo_shows_it_where_a_back_end_serves() {
    let (info, _) = info_json(tool().args(["info", "--json"]));
    let out = output(tool().args(["demo", "--size", "8"]));
    let shown = text(&out.stdout) + &text(&out.stderr);
    if info["backend"]["serves"].is_null() {
        assert_eq!(out.status.code(), Some(1), "{shown}");
        assert!(shown.contains("no back end serves"), "{shown}");
        return;
    }
    assert!(out.status.success(), "{shown}");
    for line in [
        "sees every byte that the peer wrote",
        "sees every byte that the owner wrote after it",
        "no stale byte",
        "was ended by SIGBUS, as it must be",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
}

#[test]
fn run_puts_our_library_first() {
    let folder = Folder::with_library("first");
    let mut command = tool();
    command.args([
        "run",
        "--no-preload",
        "--backend",
        "user",
        "--stats",
        "--library",
    ]);
    command.arg(folder.path()).args(["--", "/usr/bin/env"]);
    command
        .env("LD_LIBRARY_PATH", "/elsewhere")
        .env("XPMEM_DEBUG", "1");
    let shown = text(&output(&mut command).stdout);
    let lines: Vec<&str> = shown.lines().collect();
    let library_path = format!("LD_LIBRARY_PATH={}:/elsewhere", folder.path().display());
    assert!(lines.contains(&library_path.as_str()), "{shown}");
    assert!(lines.contains(&"XPMEM_BACKEND=user"), "{shown}");
    assert!(lines.contains(&"XPMEM_DEBUG=stats,1"), "{shown}");
    assert!(!shown.contains("LD_PRELOAD"), "{shown}");

    let mut command = tool();
    command.args(["run", "--library"]).arg(folder.path());
    command.args(["/usr/bin/env", "-i", "--", "true"]);
    assert!(output(&mut command).status.success());
    let mut command = tool();
    command
        .args(["run", "--library"])
        .arg(folder.path())
        .arg("/usr/bin/env");
    let shown = text(&output(&mut command).stdout);
    let preload = format!("LD_PRELOAD={}/libxpmem.so.0", folder.path().display());
    assert!(shown.lines().any(|line| line == preload), "{shown}");
}

#[test]
fn run_finds_the_library_beside_the_tool_and_in_lib() {
    for (name, place) in [("beside", "bin"), ("lib", "lib"), ("lib64", "lib64")] {
        let folder = Folder::new(name);
        let bin = folder.path().join("bin");
        let lib = folder.path().join(place);
        fs::create_dir_all(&bin).expect("a folder");
        fs::create_dir_all(&lib).expect("a folder");
        fs::copy(TOOL, bin.join("xpmem")).expect("a copy of the tool");
        let run = || {
            let mut command = Command::new(bin.join("xpmem"));
            command
                .env_remove("LD_PRELOAD")
                .env_remove("LD_LIBRARY_PATH");
            output(command.args(["run", "--no-preload", "/usr/bin/env"]))
        };
        let before = run();
        assert!(!before.status.success());
        assert!(
            text(&before.stderr).contains("no libxpmem.so.0 beside"),
            "{before:?}"
        );
        fs::write(lib.join("libxpmem.so.0"), "").expect("a file");
        let after = text(&run().stdout);
        let line = format!("LD_LIBRARY_PATH={}", lib.display());
        assert!(after.lines().any(|shown| shown == line), "{after}");
    }
}

#[test]
fn run_exits_as_a_shell_would() {
    let folder = Folder::with_library("status");
    let status = |words: &[&str]| {
        let mut command = tool();
        command
            .args(["run", "--no-preload", "--library"])
            .arg(folder.path())
            .args(words);
        output(&mut command).status.code()
    };
    assert_eq!(status(&["sh", "-c", "exit 42"]), Some(42));
    assert_eq!(status(&["/nonexistent/command"]), Some(127));
    let plain = folder.path().join("plain");
    fs::write(&plain, "not a program").expect("a file");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).expect("its mode");
    assert_eq!(status(&[plain.to_str().expect("ASCII")]), Some(126));
    assert_eq!(output(tool().arg("run")).status.code(), Some(2));
    assert_eq!(
        output(tool().args(["run", "--backend", "other", "true"]))
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn run_refuses_a_folder_that_the_linker_cannot_be_told() {
    let folder = Folder::with_library("plain");
    let blank = folder.path().join("with blank");
    symlink(folder.path(), &blank).expect("a link");
    // A link is fine: the folder behind it has an ordinary name.
    let mut command = tool();
    command
        .args(["run", "--no-preload", "--library"])
        .arg(&blank)
        .arg("true");
    assert!(output(&mut command).status.success());
    let inner = folder.path().join("really blank");
    fs::create_dir(&inner).expect("a folder");
    fs::write(inner.join("libxpmem.so.0"), "").expect("a file");
    let mut command = tool();
    command.args(["run", "--library"]).arg(&inner).arg("true");
    let out = output(&mut command);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("blank"), "{out:?}");
}
