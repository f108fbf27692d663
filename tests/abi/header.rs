// SPDX-License-Identifier: MIT OR Apache-2.0
//! The committed headers are what cbindgen makes of the code today.
//!
//! `XPMEM_HEADERS=write` (make headers) writes them instead of comparing.

use std::fs;
use std::path::Path;

fn check(config: &str, header: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The exports are defined by a macro; cbindgen has rustc expand it, which
    // takes an unstable flag.
    std::env::set_var("RUSTC_BOOTSTRAP", "1");
    std::env::set_var(
        "CARGO_EXPAND_TARGET_DIR",
        Path::new(env!("CARGO_TARGET_TMPDIR")),
    );
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
    if std::env::var_os("XPMEM_HEADERS").is_some_and(|how| how == "write") {
        fs::write(&path, wanted).expect("write");
        return;
    }
    let found = fs::read_to_string(&path).expect("the committed header");
    assert!(
        found == wanted,
        "{} has drifted; run `make headers`",
        path.display()
    );
}

#[test]
fn xpmem_h() {
    check("cbindgen.toml", "xpmem.h");
}
