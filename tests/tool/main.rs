// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command-line tool, as a user calls it.

use serde_json::Value;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{symlink, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

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
    loop {
        match command.output() {
            // A child of another test's thread has the file still open that this one wrote.
            Err(why) if why.kind() == ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(10));
            }
            output => return output.expect("the tool starts"),
        }
    }
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
    let used = xpmem::facilities::ALL.iter().map(|facility| facility.name);
    for name in used.chain(["file-size-limit", "cma"]) {
        let facility = facility(&info, name);
        assert!(facility["found"].is_boolean(), "{facility}");
        assert!(
            !facility["why"].as_str().unwrap_or_default().is_empty(),
            "{facility}"
        );
        let detail = facility["detail"].as_str().unwrap_or_default();
        assert!(!detail.contains("not tried"), "{facility}");
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

/// What `xpmem info` says with `folder` as XPMEM_DIR: its exit status, and
/// whether a line of its log names the folder.
fn info_in(folder: &Folder) -> (Option<i32>, bool) {
    let (info, out) = info_json(
        tool()
            .args(["info", "--json"])
            .env("XPMEM_BACKEND", "user")
            .env("XPMEM_DIR", folder.path()),
    );
    let name = folder.path().to_str().expect("a path");
    let named = |line: &Value| line.as_str().is_some_and(|line| line.contains(name));
    let log = info["backend"]["log"].as_array().expect("a list");
    (out.status.code(), log.iter().any(named))
}

#[test]
fn info_says_why_a_folder_is_not_used() {
    let folder = Folder::new("open-to-all");
    let anybody = fs::Permissions::from_mode(0o777);
    fs::set_permissions(folder.path(), anybody).expect("a mode");
    assert_eq!(info_in(&folder), (Some(1), true));
}

#[test]
fn a_folder_that_is_taken_has_a_second_place() {
    let folder = Folder::new("squatted");
    // SAFETY: no preconditions.
    let uid = unsafe { libc::geteuid() };
    fs::write(folder.path().join(format!("xpmem-{uid}")), "").expect("a file");
    assert_eq!(info_in(&folder).0, Some(0));
}

#[test]
fn info_shows_the_environment() {
    let folder = Folder::new("environment");
    let (info, _) = info_json(
        tool()
            .args(["info", "--json"])
            .env("XPMEM_DIR", folder.path()),
    );
    let shown = info["environment"].as_object().expect("an object");
    let known: Vec<&str> = xpmem::environment::ALL
        .iter()
        .filter(|variable| variable.audience == xpmem::environment::Audience::Users)
        .map(|variable| variable.name.to_str().expect("a name"))
        .collect();
    assert_eq!(shown.keys().collect::<Vec<_>>(), known);
    assert_eq!(shown["XPMEM_DIR"], folder.path().to_str().expect("a path"));
    assert!(shown["XPMEM_BACKEND"].is_null(), "{info}");
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

/// Has the kernel answer EPERM to one system call, as a container's profile does.
fn refuse(command: &mut Command, call: libc::c_long) -> &mut Command {
    let statement = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            call as u32,
        ),
        statement(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let mut filter = filter;
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: `program` and the filter it points to live until prctl, which copies them, is back.
        let outcome = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program)
        };
        match outcome {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls and nothing else.
    unsafe { command.pre_exec(install) }
}

#[test]
fn info_says_what_is_refused() {
    for (call, name) in [
        (libc::SYS_userfaultfd, "uffd-user-mode"),
        (libc::SYS_ptrace, "ptrace-own-threads"),
        (libc::SYS_memfd_create, "memfd-sparse"),
    ] {
        let mut command = tool();
        command.args(["info", "--json"]);
        let (info, out) = info_json(refuse(&mut command, call).env("XPMEM_BACKEND", "user"));
        let refused = facility(&info, name);
        assert_eq!(refused["found"], false, "{info}");
        let detail = refused["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("not permitted"), "{detail}");
        assert!(info["backend"]["serves"].is_null(), "{info}");
        let reason = info["backend"]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(name), "{reason}");
        assert_eq!(out.status.code(), Some(1), "{info}");

        // The demo says so too, and neither hangs nor crashes.
        let mut command = tool();
        command.args(["demo", "--size", "4"]);
        let out = output(refuse(&mut command, call).env("XPMEM_BACKEND", "user"));
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert!(text(&out.stderr).starts_with("xpmem: "), "{out:?}");
    }
    // What only does better with it is no reason to fail.
    let mut command = tool();
    command.args(["info", "--json"]);
    let (info, _) = info_json(refuse(&mut command, libc::SYS_process_vm_readv));
    assert_eq!(facility(&info, "cma")["found"], false, "{info}");
}

#[test]
fn a_full_disk_is_an_error_and_not_a_crash() {
    for words in [&["info"][..], &["info", "--json"], &["demo", "--size", "4"]] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("/dev/full");
        let out = output(tool().args(words).stdout(full));
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        // The demo may have ended before, for want of a back end.
        let shown = text(&out.stderr);
        assert!(shown.starts_with("xpmem: "), "{shown}");
        assert!(!shown.contains("panicked"), "{shown}");
    }
}

#[test]
fn usage_errors_exit_2_and_help() {
    for (words, told) in [
        (&["inof"][..], "'info'"),
        (&["topologi", "check"], "'topology'"),
        (&["info", "--jsno"], "'--json'"),
        (&["demo", "--size", "1"], "4..=4096"),
        (&["demo", "--size", "much"], "'much'"),
        (&["run", "--backend", "usr", "true"], "'user'"),
        (&["run", "--stat", "true"], "'--stats'"),
        (&["topology", "wirte"], "'write'"),
        (&[], "Usage: xpmem"),
        (&["run"], "<COMMAND>"),
    ] {
        let out = output(tool().args(words));
        let shown = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{words:?}: {shown}");
        assert!(shown.contains(told), "{words:?}: {shown}");
        assert!(out.stdout.is_empty(), "{words:?}");
    }
}

/// Words that look like an errno.
fn errnos(text: &str) -> std::collections::BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_')
        .filter(|word| word.len() > 3 && word.starts_with('E') || word.ends_with("_NOPROC"))
        .collect()
}

#[test]
fn the_manual_pages_have_every_function_of_the_header_and_its_errnos() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = fs::read_to_string(top.join("include/xpmem.h")).expect("the header");
    let pages: Vec<String> = ["make", "get", "attach"]
        .map(|name| format!("man/xpmem_{name}.3"))
        .iter()
        .map(|page| fs::read_to_string(top.join(page)).expect("a page"))
        .collect();
    let mut functions = 0;
    for part in header.split("/**").skip(1) {
        let Some((comment, rest)) = part.split_once("*/") else {
            continue;
        };
        let Some(name) = rest.split('(').next().and_then(|declared| {
            let name = declared.trim().rsplit([' ', '*']).next()?;
            (name.starts_with("xpmem_") && rest.contains('(') && !declared.contains(';'))
                .then_some(name)
        }) else {
            continue;
        };
        functions += 1;
        let page = pages
            .iter()
            .find(|page| page.contains(&format!("\n.Nm {name}")))
            .unwrap_or_else(|| panic!("no page for {name}"));
        assert!(page.contains(&format!("\n.Fn {name} ")), "{name}");
        for errno in errnos(comment) {
            assert!(page.contains(errno), "{name}: {errno}");
        }
    }
    assert_eq!(functions, 9);
}

/// The words after two dashes, or the commands, that a text has.
fn long_options(text: &str) -> std::collections::BTreeSet<String> {
    text.split(|c: char| c.is_whitespace() || "[]=,'`".contains(c))
        .filter_map(|word| word.strip_prefix("--"))
        .filter(|word| !word.is_empty() && *word != "help" && *word != "version")
        .map(str::to_string)
        .collect()
}

#[test]
fn the_manual_page_has_every_command_and_option() {
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/xpmem.1")).expect("the page");
    let help = |words: &[&str]| text(&output(tool().args(words).arg("--help")).stdout);
    for command in ["info", "demo", "run", "topology"] {
        assert!(help(&[]).contains(command));
        assert!(
            page.contains(&format!(".Cm {command}\n")) || page.contains(&format!(".Cm {command} "))
        );
    }
    for words in [
        &["info"][..],
        &["demo"],
        &["run"],
        &["topology", "write"],
        &["topology", "show"],
        &["topology", "check"],
        &["topology", "hole"],
    ] {
        for option in long_options(&help(words)) {
            assert!(
                page.contains(&format!("Fl -{option}")),
                "{words:?} --{option}"
            );
        }
    }
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
    if info["backend"]["serves"] == "user" {
        let line = "8 MiB of it are in the shared memory file now";
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
fn run_keeps_what_was_set_and_says_itself_once() {
    let folder = Folder::with_library("once");
    let library = folder.path().join("libxpmem.so.0");
    let mut command = tool();
    command.args(["run", "--no-preload", "--library"]);
    command.arg(folder.path()).arg(TOOL);
    command.args(["run", "--no-preload", "--library"]);
    command.arg(folder.path()).arg("/usr/bin/env");
    let shown = text(&output(command.env("LD_LIBRARY_PATH", "/a::/b")).stdout);
    let wanted = format!("LD_LIBRARY_PATH={}:/a::/b", folder.path().display());
    assert!(shown.lines().any(|line| line == wanted), "{shown}");

    // A preloaded library of the user's own stays, behind ours.
    let mut command = tool();
    command.args(["run", "--library"]).arg(folder.path());
    command.arg("/usr/bin/env");
    let before = format!("/nonexistent/other.so:{}", library.display());
    let shown = text(&output(command.env("LD_PRELOAD", before)).stdout);
    let wanted = format!("LD_PRELOAD={}:/nonexistent/other.so", library.display());
    assert!(shown.lines().any(|line| line == wanted), "{shown}");
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
