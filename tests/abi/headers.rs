// SPDX-License-Identifier: MIT OR Apache-2.0
//! The committed headers are what cbindgen makes of the code today.
//!
//! With `--write` (make headers) they are written instead of compared.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

fn check(config: &str, header: &str, write: bool) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The exports are defined by a macro; cbindgen has rustc expand it, which
    // takes an unstable flag.
    std::env::set_var("RUSTC_BOOTSTRAP", "1");
    std::env::set_var("CARGO_EXPAND_TARGET_DIR", root.join("target/expand"));
    let config = cbindgen::Config::from_file(root.join(config)).expect("configuration");
    let bindings = cbindgen::Builder::new()
        .with_crate(root)
        .with_config(config)
        .generate()
        .expect("cbindgen");
    let mut wanted = Vec::new();
    bindings.write(&mut wanted);
    // cbindgen ends its C++ guards with comments that C89 does not know.
    let wanted = String::from_utf8(wanted)
        .expect("UTF-8")
        .replace("#endif // __cplusplus", "#endif")
        .replace("#endif  // __cplusplus", "#endif")
        .replace("}  // extern \"C\"", "}")
        .replace("} // extern \"C\"", "}");
    let path = root.join("include").join(header);
    if write {
        fs::write(&path, wanted).expect("write");
        return true;
    }
    let same = fs::read_to_string(&path).is_ok_and(|found| found == wanted);
    if !same {
        eprintln!(
            "{} has drifted from the code; run `make headers`",
            path.display()
        );
    }
    same
}

fn main() -> ExitCode {
    let write = std::env::args().any(|argument| argument == "--write");
    let mut same = check("cbindgen.toml", "xpmem.h", write);
    // The other header comes with its own configuration.
    if Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("cbindgen-hwloc.toml")
        .exists()
    {
        same &= check("cbindgen-hwloc.toml", "hwloc_shmem.h", write);
    }
    if same {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
