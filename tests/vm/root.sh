#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# root.sh SUITE [PACKAGE...]: a folder with the suite's current cloud kernel,
# its headers and the compiler that built it; its path on stdout. Packages are
# unpacked, not configured: that takes seconds. Kept in the cache.
set -euo pipefail
. "$(dirname "$0")/common.sh"

suite=$1; shift
extra=$(IFS=,; echo "$*")
root=$vm_cache/root-$suite${extra:+-with-${extra//,/-}}
mkdir -p "$vm_cache"
exec 9>"$root.lock"
flock 9
if [ -e "$root/.complete" ] && { [ -n "$extra" ] || [ -e "$root/usr/bin/sparse" ]; } && [ -n "$(find "$root/.complete" -mtime -"$vm_days")" ]; then
	echo "$root"
	exit
fi

if [ -n "$extra" ]; then
	include=$extra
else
	include=linux-image-cloud-amd64,linux-headers-cloud-amd64,make,libc6-dev
	include=$include,bash,dash,coreutils,findutils,grep,sed,gawk,diffutils,tar,gzip,perl,python3,kmod,sparse
fi
mode=root
[ "$(id -u)" = 0 ] || mode=unshare
if [ -d "$root" ]; then old=$root.old; rm -rf "$old"; mv "$root" "$old"; else old=; fi
# sid's Release file may be old on a mirror; its signature is still checked.
if mapfile -t sources < <(vm_sources "$suite") && mmdebstrap --quiet --mode=$mode --variant=extract \
	--aptopt='Acquire::Check-Valid-Until "false"' \
	--aptopt='Acquire::Retries "5"' \
	--setup-hook='cd "$1" && mkdir -p usr/bin usr/sbin usr/lib usr/lib64 && ln -s usr/bin usr/sbin usr/lib usr/lib64 .' \
	--include="$include" "$suite" "$root" "${sources[@]}" >&2 2>"$root.log"; then
	ln -sf gawk "$root/usr/bin/awk"
	mkdir -p "$root/src" "$root/proc" "$root/dev"
	for release in "$root"/usr/lib/modules/*; do
		[ ! -d "$release" ] || depmod -b "$root" "${release##*/}"
	done
	touch "$root/.complete"
	[ -z "$old" ] || rm -rf "$old"
elif [ -n "$old" ]; then
	# No network: what is here will do.
	echo "root.sh: cannot refresh $suite, using what is cached" >&2
	rm -rf "$root"
	mv "$old" "$root"
	touch "$root/.complete"
else
	tail -n 20 "$root.log" >&2
	exit 1
fi
echo "$root"
