#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# build.sh SUITE [VAR=VALUE...]: builds the module for the suite's kernel with
# the suite's own compiler; answers the path of xpmem.ko. A warning is a failure.
# The suite "arm64" is trixie's kernel for that architecture, cross-compiled.
set -euo pipefail
. "$(dirname "$0")/common.sh"

suite=$1; shift
root=$("$vm_top/tests/vm/root.sh" "$suite")
out=$vm_cache/build-$suite
exec 9>"$out.lock"
flock 9
rm -rf "$root/src"
mkdir -p "$out" "$root/src"
cp "$vm_top"/kernel/{Kbuild,Makefile,*.[ch]} "$root/src/"

headers=${VM_HEADERS:-$(cd "$root/usr/src" && ls -d linux-headers-*-cloud-*)}
if [ "$suite" = arm64 ]; then
	tuple=aarch64-linux-gnu
	set -- ARCH=arm64 CROSS_COMPILE=$tuple- "$@"
else
	tuple=x86_64-linux-gnu
fi
# shellcheck disable=SC2010 # Names of the compiler, which are letters and digits.
cc=$(cd "$root/usr/bin" && ls | grep -E "^$tuple-gcc-[0-9]+$" | tail -n 1)
vm_chroot "$root" /usr/bin/env -i PATH=/usr/bin LC_ALL=C \
	make -C /src KDIR=/usr/src/"$headers" CC="$cc" HOSTCC="$cc" "$@" modules >"$out/log" 2>&1 ||
	{ cat "$out/log" >&2; vm_die "$suite: the module does not build"; }
# Skipping BTF is the build root's lack of a vmlinux, not the module's doing.
if grep -iE 'warning|error' "$out/log" | grep -vE 'Skipping BTF|compiler differs' >&2; then
	vm_die "$suite: the build is not clean"
fi
# Whoever copies the last one meanwhile gets the whole of it.
cp "$root/src/xpmem.ko" "$out/xpmem.ko.new"
mv "$out/xpmem.ko.new" "$out/xpmem.ko"
echo "$out/xpmem.ko"
