#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# root.sh SUITE [PACKAGE...]: a folder with the suite's current cloud kernel,
# its headers and the compiler that built it; its path on stdout. Packages are
# unpacked, not configured: that takes seconds. Kept in the cache.
#
# Three more: "arm64", trixie's kernel for that architecture with tools for this
# one; "arm64-rust", a Rust compiler for it that runs here; and "dkms", a bookworm
# system with dkms and a kernel properly installed.
set -euo pipefail
. "$(dirname "$0")/common.sh"

name=$1; shift
extra=$(IFS=,; echo "$*")
root=$vm_cache/root-$name${extra:+-with-${extra//,/-}}

suite=$name variant=extract
tools=bash,dash,coreutils,findutils,grep,sed,gawk,diffutils,tar,gzip,perl,python3,kmod
include=linux-image-cloud-amd64,linux-headers-cloud-amd64,make,libc6-dev,$tools,sparse
options=()
case $name in
arm64)
	suite=trixie
	options=(--architectures=amd64,arm64 --extract-hook="$vm_top/tests/vm/arm64-hook.sh")
	include=gcc-aarch64-linux-gnu,libc6-dev-arm64-cross,pahole,make,libc6-dev,$tools
	;;
arm64-rust)
	suite=trixie
	options=(--architectures=amd64,arm64 --extract-hook="$vm_top/tests/vm/arm64-std-hook.sh")
	include=rustc,cargo,gcc,libc6-dev,gcc-aarch64-linux-gnu,libc6-dev-arm64-cross,$tools
	;;
dkms)
	suite=bookworm variant=minbase
	include=linux-image-cloud-amd64,linux-headers-cloud-amd64,dkms,make,kmod,udev,systemd
	;;
esac
[ -z "$extra" ] || include=$extra
if [ $variant = extract ]; then
	options+=(--setup-hook='cd "$1" && mkdir -p usr/bin usr/sbin usr/lib usr/lib64 && ln -s usr/bin usr/sbin usr/lib usr/lib64 .')
fi

mkdir -p "$vm_cache"
exec 9>"$root.lock"
flock 9
if [ "$(cat "$root/.complete" 2>/dev/null)" = "$include" ] && [ -n "$(find "$root/.complete" -mtime -"$vm_days")" ]; then
	echo "$root"
	exit
fi
mode=root
[ "$(id -u)" = 0 ] || mode=unshare
[ -e "$root/.complete" ] || rm -rf "$root"
if [ -d "$root" ]; then old=$root.old; rm -rf "$old"; mv "$root" "$old"; else old=; fi
# sid's Release file may be old on a mirror; its signature is still checked.
apt=(--mode="$mode" --variant="$variant" --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Retries "5"')
mapfile -t sources < <(vm_sources "$suite")
# Of a suite at its end the package that names the newest kernel may be gone from
# a mirror, though what it names is there: what would be installed with it.
packages=$include
if [ "$name" = bullseye ] && [ -z "$extra" ]; then
	newest=$(mmdebstrap --simulate --verbose "${apt[@]}" --include="$include" "$suite" "$root.trial" "${sources[@]}" 2>&1 |
		grep -oE '^Inst linux-(image|headers)-[0-9.]+-[0-9]+-cloud-amd64' | cut -d' ' -f2 | sort -u | paste -sd,) || true
	rm -rf "$root.trial"
	[ -z "$newest" ] || packages=$newest,${include#linux-image-cloud-amd64,linux-headers-cloud-amd64,}
fi
if mmdebstrap --quiet "${apt[@]}" ${options[@]+"${options[@]}"} \
	--include="$packages" "$suite" "$root" "${sources[@]}" >&2 2>"$root.log"; then
	[ $variant != extract ] || ln -sf gawk "$root/usr/bin/awk"
	mkdir -p "$root/src" "$root/proc" "$root/dev"
	for release in "$root"/usr/lib/modules/*; do
		[ ! -d "$release" ] || depmod -b "$root" "${release##*/}"
	done
	echo "$include" >"$root/.complete"
	[ -z "$old" ] || rm -rf "$old"
elif [ -n "$old" ]; then
	# No network: what is here will do.
	echo "root.sh: cannot refresh $name, using what is cached" >&2
	rm -rf "$root"
	mv "$old" "$root"
	touch "$root/.complete"
else
	tail -n 20 "$root.log" >&2
	exit 1
fi
echo "$root"
