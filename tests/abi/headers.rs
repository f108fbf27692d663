// SPDX-License-Identifier: MIT OR Apache-2.0
//! The committed headers are what cbindgen makes of the code today.
//!
//! One source file of `capi` is one header. With `--write` (make headers) they
//! are written instead of compared.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// A source file of `capi`, its configuration of cbindgen, and its header.
const HEADERS: [(&str, &str, &str); 2] = [
    ("src/capi/xpmem.rs", "cbindgen.toml", "include/xpmem.h"),
    (
        "src/capi/hwloc.rs",
        "cbindgen-hwloc.toml",
        "include/hwloc_shmem.h",
    ),
];

/// What `export!` makes of its functions, as far as a header shows it: cbindgen
/// expands no macros without an unstable compiler.
fn expanded(source: &str) -> String {
    let mut text = String::new();
    for line in source.replace("export! {", "mod exports {").lines() {
        let comment = line.trim_start().starts_with("//");
        let clause = line.find(", or ").filter(|_| !comment);
        match clause.and_then(|at| Some((at, at + line[at..].find(';')?))) {
            // `-> type, or value;` goes before the body.
            Some((start, end)) => {
                text.push_str(&line[..start]);
                text.push_str(&line[end + 1..]);
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text.replace(
        "\n    fn ",
        "\n    #[no_mangle]\n    pub unsafe extern \"C\" fn ",
    )
}

fn header(root: &Path, source: &str, config: &str) -> String {
    let text = fs::read_to_string(root.join(source)).expect("source");
    let copy = std::env::temp_dir().join(format!("xpmem-header-{}.rs", std::process::id()));
    fs::write(&copy, expanded(&text)).expect("temporary copy");
    let config = cbindgen::Config::from_file(root.join(config)).expect("configuration");
    let bindings = cbindgen::Builder::new()
        .with_src(&copy)
        .with_config(config)
        .generate();
    let _ = fs::remove_file(&copy);
    let mut header = Vec::new();
    bindings.expect("cbindgen").write(&mut header);
    // cbindgen ends its C++ guards with comments that C89 does not know.
    String::from_utf8(header)
        .expect("UTF-8")
        .replace("#endif // __cplusplus", "#endif")
        .replace("#endif  // __cplusplus", "#endif")
        .replace("}  // extern \"C\"", "}")
        .replace("} // extern \"C\"", "}")
}

fn main() -> ExitCode {
    let write = std::env::args().any(|argument| argument == "--write");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut drifted = false;
    for (source, config, name) in HEADERS {
        if !root.join(config).exists() {
            continue;
        }
        let wanted = header(root, source, config);
        let path = root.join(name);
        if write {
            fs::write(&path, wanted).expect("write");
        } else if !fs::read_to_string(&path).is_ok_and(|found| found == wanted) {
            eprintln!("{name} has drifted from {source}; run `make headers`");
            drifted = true;
        }
    }
    if drifted {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
