// SPDX-License-Identifier: MIT OR Apache-2.0
//! Link arguments of the shared object, and nothing else.

fn main() {
    // Programs ask the dynamic linker for `libxpmem.so.0`: that name is the ABI.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libxpmem.so.0");
    // MPI plugins dlclose() the library in MPI_Finalize while its service runs.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
