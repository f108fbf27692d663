#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# arm64-library.sh [CASE...]: the library cross-compiled for arm64 with trixie's
# compiler (1.85, the oldest that will do), and the conformance suite over both
# back ends in an arm64 guest: linked statically as root and as a user, and over
# the user back end dynamically, too, where libc's calls are met.
# Eight minutes; packages and crates come from their registries the first time.
set -u
. "$(dirname "$0")/../../ci/lib.sh"
. "$(dirname "$0")/common.sh"

vm_need
command -v qemu-system-aarch64 >/dev/null || { echo "missing packages: qemu-system-arm" >&2; exit 77; }
root=$("$vm_top/tests/vm/root.sh" arm64-rust) || { echo "arm64-library.sh: no root to build in" >&2; exit 77; }

# One at a time, and the crates stay there for the next.
exec 8>"$vm_cache/build-arm64-library.lock"
flock 8
rm -rf "$root/src/xpmem"
mkdir -p "$root/src/xpmem"
(cd "$vm_top" && tar -c --exclude=./target --exclude=./build --exclude=./.git .) | tar -C "$root/src/xpmem" -xf -
vm_cargo_root "$root"

in_root() {
	vm_cargo "$root" /src/xpmem "$*"
}
target=aarch64-unknown-linux-gnu
library() {
	in_root cargo rustc --release --locked --no-default-features --lib --crate-type cdylib,staticlib \
		--target $target --target-dir /src/target
}
programs() {
	in_root aarch64-linux-gnu-gcc -O1 -g -std=gnu11 -Wall -Wextra -Werror -pthread -DCONFORMANCE_STATIC -static \
		-o /src/conformance-static "tests/conformance/*.c" /src/target/$target/release/libxpmem.a
	in_root aarch64-linux-gnu-gcc -O1 -g -std=gnu11 -Wall -Wextra -Werror -pthread -o /src/conformance \
		"tests/conformance/*.c" /src/target/$target/release/libxpmem.so
}
build() { # NAME COMMAND
	"$2" >"$SCRATCH/log" 2>&1 </dev/null && { ok "$1"; return; }
	cat "$SCRATCH/log"
	not_ok "$1"
	finish
}
build "the library builds without a warning" library
build "the conformance suite builds" programs
cp "$root/src/conformance-static" "$root/src/conformance" "$SCRATCH"
files=("$SCRATCH/conformance-static:/tests/conformance-static" "$SCRATCH/conformance:/tests/conformance"
	"$root/src/target/$target/release/libxpmem.so:/lib/libxpmem.so.0")
for file in ld-linux-aarch64.so.1 libc.so.6 libgcc_s.so.1; do
	files+=("$root/usr/aarch64-linux-gnu/lib/$file:/lib/$file")
done

for backend in user kernel; do
	for user in root user; do
		echo "$user XPMEM_BACKEND=$backend /tests/conformance-static $vm_case_time $*"
	done
done >"$SCRATCH/list"
for user in root user; do
	echo "$user XPMEM_BACKEND=user /tests/conformance $vm_case_time $*"
done >>"$SCRATCH/list"
status=0
VM_SECONDS=${VM_SECONDS:-1800} "$vm_top/tests/vm/run.sh" arm64 "$SCRATCH/list" \
	"${files[@]}" >"$SCRATCH/out" 2>&1 || status=$?
cat "$SCRATCH/out"
vm_count "$SCRATCH/out"
if [ $status = 0 ]; then ok "arm64: guest"; else not_ok "arm64: guest" "status $status"; fi
finish
