# SPDX-License-Identifier: MIT OR Apache-2.0
# Builds the guest's test programs, static, into $1; sets vm_files to what to
# copy and prints the guest's list of commands.
vm_build_tests() {
	local out=$1 t
	mkdir -p "$out"
	for t in abi coherence surgery life churn fuzz failslab bench; do
		gcc -O2 -Wall -Werror -static -pthread -o "$out/$t" "$vm_top/tests/vm/$t.c"
	done
	vm_files=()
	for t in abi coherence surgery life churn fuzz failslab bench; do
		vm_files+=("$out/$t:/tests/$t")
	done
}

