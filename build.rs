// SPDX-License-Identifier: MIT OR Apache-2.0
//! Link arguments of the shared object, and nothing else.

use std::path::Path;
use std::process::Command;

fn main() {
    // Programs ask the dynamic linker for `libxpmem.so.0`: that name is the ABI.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libxpmem.so.0");
    // MPI plugins dlclose() the library in MPI_Finalize while its service runs.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
    own_unwinder();
}

/// Rust's std refers to the unwinder for its backtraces. Taken from the static
/// archive, the library needs libc alone at run time; without that archive it
/// needs libgcc_s.so.1 too.
fn own_unwinder() {
    println!("cargo:rerun-if-env-changed=CC");
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let native = std::env::var("HOST") == std::env::var("TARGET");
    let Ok(output) = Command::new(cc)
        .arg("-print-file-name=libgcc_eh.a")
        .output()
    else {
        return;
    };
    let answer = String::from_utf8_lossy(&output.stdout);
    let archive = Path::new(answer.trim());
    // A compiler that has none answers the bare name.
    if native && archive.is_absolute() && archive.exists() {
        if let Some(folder) = archive.parent() {
            println!("cargo:rustc-link-search=native={}", folder.display());
            println!("cargo:rustc-link-lib=static:-bundle=gcc_eh");
        }
    }
}
