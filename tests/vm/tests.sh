# SPDX-License-Identifier: MIT OR Apache-2.0
# Builds the guest's test programs, static, into $1; sets vm_files to what to
# copy and prints the guest's list of commands.
vm_build_tests() {
	local out=$1 t
	mkdir -p "$out"
	for t in abi coherence surgery life churn fuzz bench; do
		gcc -O2 -Wall -Werror -static -pthread -o "$out/$t" "$vm_top/tests/vm/$t.c"
	done
	vm_files=()
	for t in abi coherence surgery life churn fuzz bench; do
		vm_files+=("$out/$t:/tests/$t")
	done
}

# The library's own conformance suite over the module, if it has been built:
# its programs are dynamic, so the libraries they name come along.
vm_add_library() {
	local top=$vm_top bin lib
	[ -e "$top/build/lib/libxpmem.so.0" ] || return 0
	vm_files+=("$top/build/lib/libxpmem.so.0:/lib/libxpmem.so.0")
	for bin in "$@"; do
		[ -e "$bin" ] || continue
		vm_files+=("$bin:/tests/$(basename "$bin")")
		while read -r lib; do
			vm_files+=("$lib:$lib")
		done < <(ldd "$bin" | grep -oE '/[^ ]+' | grep -v "$top")
	done
}
