# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# Shared by the scripts here: where things are, and which suite has which kernel.

vm_top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
vm_cache=${XPMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xpmem}/vm
vm_suites="bullseye bookworm trixie sid"

# A guest has little processor, and its clock may run ten times too fast: how long a case
# may take there. Beside two busy loops recall_both_ways takes 170 s, and ends.
# shellcheck disable=SC2034
vm_case_time="--timeout 600"

# A root younger than this is not refreshed from the suite's index.
vm_days=${XPMEM_VM_DAYS:-7}

vm_die() { echo "$0: $*" >&2; exit 1; }

# Tools the scripts need, each with the package that has it.
vm_need() {
	local missing=
	for tool in mmdebstrap:mmdebstrap depmod:kmod qemu-system-x86_64:qemu-system-x86 \
		cpio:cpio busybox:busybox-static gcc:gcc; do
		command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool#*:}"
	done
	[ -z "$missing" ] && return
	echo "missing packages:$missing (apt-get install --no-install-recommends$missing)" >&2
	exit 77
}

vm_mirror=${XPMEM_DEBIAN_MIRROR:-http://deb.debian.org}

vm_sources() {
	echo "deb $vm_mirror/debian $1 main"
	[ "$1" = sid ] || echo "deb $vm_mirror/debian-security $1-security main"
}

# Run a command inside a root, with /proc there (objtool reads it) and nothing
# left mounted after; as root or in a user namespace.
vm_chroot() {
	local root=$1 map=; shift
	[ "$(id -u)" = 0 ] || map=--map-root-user
	unshare $map --mount --pid --fork --mount-proc="$root/proc" chroot "$root" "$@"
}

# vm_cargo_root ROOT: the network, and a place for cargo, in a root that is compiled in.
vm_cargo_root() {
	mkdir -p "$1/src/cargo" "$1/etc/ssl/certs"
	cp /etc/resolv.conf "$1/etc/resolv.conf"
	# The machine's own certificates, for one that reaches its registries through a proxy.
	cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"
}

# vm_cargo ROOT FOLDER COMMAND: in that folder of the root; a warning is a failure.
vm_cargo() {
	vm_chroot "$1" /usr/bin/env -i PATH=/usr/bin LC_ALL=C HOME=/src CARGO_HOME=/src/cargo CC=gcc \
		CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt RUSTFLAGS=-Dwarnings \
		CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=gcc \
		CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
		sh -ec "cd $2; $3"
}

# vm_count FILE: adds the accounts of the programs that a guest has run to ours.
vm_count() {
	local line
	while read -r line; do
		# shellcheck disable=SC2086
		set -- ${line//[!0-9]/ }
		PASSED=$((PASSED + $1)) FAILED=$((FAILED + $2)) SKIPPED=$((SKIPPED + ${3:-0}))
	done < <(grep -E '^[0-9]+ passed, [0-9]+ failed' "$1")
}

# vm_closure FILE...: the libraries of this machine that programs or libraries need,
# without ours.
vm_closure() {
	ldd "$@" 2>/dev/null | grep -oE '=> /[^ ]+|^[[:space:]]+/[^ ]+' | grep -oE '/[^ ]+' |
		grep -v libxpmem | sort -u
}
