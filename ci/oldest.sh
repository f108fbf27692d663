#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Does everything compile with the oldest Rust that is promised (1.85, Debian
# 13's), and the library for arm64 with it, without a warning? `cargo check` in a
# root of Debian 13, which tests/vm/root.sh makes and keeps in the cache.
# Exit 77: there is no such root and none can be made.
set -u
. "$(dirname "$0")/../tests/vm/common.sh"

command -v mmdebstrap >/dev/null || { echo "mmdebstrap is not installed"; exit 77; }
root=$("$vm_top/tests/vm/root.sh" arm64-rust) || { echo "no root of Debian 13"; exit 77; }
# One at a time; what has been compiled of the crates stays there for the next.
exec 8>"$vm_cache/check-oldest.lock"
flock 8
vm_cargo_root "$root"
mkdir -p "$root/src/oldest"
find "$root/src/oldest" -mindepth 1 -delete
(cd "$vm_top" && tar -c Cargo.toml Cargo.lock build.rs README.md docs man include src tests cbindgen*.toml) |
    tar -C "$root/src/oldest" -xf -

check() {
    vm_cargo "$root" /src/oldest "exec cargo check --quiet --locked --target-dir /src/oldest-target $*"
}
# No crate in the cache and no network: nothing can be said.
vm_cargo "$root" /src/oldest "cargo fetch --quiet --locked" || { echo "the crates cannot be had"; exit 77; }
check --all-targets && check --lib --no-default-features --target aarch64-unknown-linux-gnu
