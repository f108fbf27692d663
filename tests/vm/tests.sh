# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# vm_build_tests FOLDER [arm64]: builds the guest's test programs, static, into
# the folder, and sets vm_files to what run.sh shall copy.
vm_build_tests() {
	local out=$1 t root flags="-O2 -Wall -Werror -static -pthread"
	mkdir -p "$out"
	vm_files=()
	for t in abi coherence surgery owner wait refuse limits life churn fuzz failslab bench; do
		if [ "${2:-}" = arm64 ]; then
			root=$("$vm_top/tests/vm/root.sh" arm64)
			mkdir -p "$root/tests"
			cp "$vm_top/tests/vm/$t.c" "$vm_top/tests/vm/t.h" "$root/tests/"
			vm_chroot "$root" /usr/bin/aarch64-linux-gnu-gcc $flags -o "/tests/$t" "/tests/$t.c"
			cp "$root/tests/$t" "$out/$t"
		else
			gcc $flags -o "$out/$t" "$vm_top/tests/vm/$t.c"
		fi
		vm_files+=("$out/$t:/tests/$t")
	done
}
