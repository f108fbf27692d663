#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# doctored.sh: kernels that lie about their version, as those of enterprise
# distributions do: the module must come out as for what they have. And one that
# has too little: the build must say what. "doctored.sh all": of all suites.
set -euo pipefail
. "$(dirname "$0")/common.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# doctor SUITE MAJOR MINOR: the code of the module for the suite's headers, and
# for the same headers that say MAJOR.MINOR.
doctor() {
	local suite=$1 root code=$(($2 << 16 | $3 << 8)) headers file
	"$vm_top/tests/vm/build.sh" "$suite" >/dev/null
	root=$("$vm_top/tests/vm/root.sh" "$suite")
	objcopy -O binary -j .text "$vm_cache/build-$suite/xpmem.ko" "$work/true"
	headers=$(cd "$root/usr/src" && ls -d linux-headers-*-cloud-*)
	rm -rf "$root/usr/src/doctored"
	cp -a "$root/usr/src/$headers" "$root/usr/src/doctored"
	sed -i "s|/usr/src/$headers\b|/usr/src/doctored|" "$root"/usr/src/doctored/{Makefile,.kernelvariables}
	file=$root/usr/src/doctored/include/generated/uapi/linux/version.h
	sed -i "s/^\(#define LINUX_VERSION_CODE\) .*/\1 $code/; s/^\(#define LINUX_VERSION_MAJOR\) .*/\1 $2/; s/^\(#define LINUX_VERSION_PATCHLEVEL\) .*/\1 $3/" "$file"
	grep -q "LINUX_VERSION_CODE $code" "$file"
	VM_HEADERS=doctored "$vm_top/tests/vm/build.sh" "$suite" >/dev/null
	objcopy -O binary -j .text "$vm_cache/build-$suite/xpmem.ko" "$work/doctored"
	rm -rf "$root/usr/src/doctored" "$vm_cache/build-$suite/xpmem.ko"
	[ -s "$work/true" ] && cmp "$work/true" "$work/doctored"
	echo "$suite, saying $2.$3: the same module ($(stat -c %s "$work/true") bytes)"
}
doctor trixie 5 14
doctor bullseye 6 12
[ $# = 0 ] || { doctor sid 5 14; doctor bookworm 4 18; }

# A kernel whose headers lack something: said by name, before anything is built.
lacks() {
	mkdir -p "$work/tree/include/linux"
	printf '%s\n' mmu_interval_notifier_insert_locked hmm_pfn_to_map_order mmap_read_trylock |
		tee "$work/tree/include/linux"/{mm,mmu_notifier,hmm,mmap_lock}.h >/dev/null
	sed -i "/$2/d" "$work/tree/include/linux/$1"
	if make -f "$vm_top/kernel/Kbuild" srctree="$work/tree" >"$work/said" 2>&1; then
		vm_die "built without $3"
	fi
	grep -F "xpmem: this kernel has no $3" "$work/said"
}
lacks mmu_notifier.h mmu_interval mmu_interval_notifier
lacks hmm.h hmm_pfn 'hmm_range_fault() as of 5.9'
lacks mmap_lock.h mmap_read 'mmap_read_trylock()'

# No other file compares versions, nor does this one.
if grep -nE 'LINUX_VERSION_CODE|KERNEL_VERSION|linux/version\.h|RHEL_RELEASE' "$vm_top"/kernel/*.[ch] "$vm_top/kernel/Kbuild"; then
	vm_die "a version is compared"
fi
