#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# check-debug.sh [SUITE...]: the tests on kernels with KASAN, PROVE_LOCKING,
# DEBUG_ATOMIC_SLEEP, DEBUG_VM, kmemleak: any report fails. Then the sweep that
# fails each allocation in turn. Default: trixie.
set -u
. "$(dirname "$0")/../../ci/lib.sh"
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/tests.sh"

vm_build_tests "$SCRATCH/tests"
cat >"$SCRATCH/list" <<E2
root /tests/abi
root /tests/surgery
root /tests/coherence
root /tests/life
root /tests/churn 6
root /tests/fuzz 1 ${XPMEM_FUZZ_CALLS:-100000}
root /tests/failslab
E2
for suite in ${*:-trixie}; do
	build=$("$vm_top/tests/vm/debug-kernel.sh" "$suite") || { skip "$suite" "no debug kernel"; continue; }
	rm -rf "$SCRATCH/module"
	mkdir "$SCRATCH/module"
	cp "$vm_top"/kernel/{Kbuild,Makefile,*.[ch]} "$SCRATCH/module/"
	if ! make -C "$SCRATCH/module" KDIR="$build" >"$SCRATCH/build.log" 2>&1; then
		cat "$SCRATCH/build.log"
		not_ok "$suite: module for the debug kernel"
		continue
	fi
	status=0
	VM_KERNEL=$build/arch/x86/boot/bzImage VM_MODULE=$SCRATCH/module/xpmem.ko VM_MEM=2048 \
		VM_SECONDS=${VM_SECONDS:-3600} "$vm_top/tests/vm/run.sh" "$suite" "$SCRATCH/list" \
		"${vm_files[@]}" 2>&1 | tee "$SCRATCH/out" || status=1
	while read -r line; do
		# shellcheck disable=SC2086
		set -- ${line//[!0-9]/ }
		PASSED=$((PASSED + $1)) FAILED=$((FAILED + $2)) SKIPPED=$((SKIPPED + ${3:-0}))
	done < <(grep -E '^[0-9]+ passed, [0-9]+ failed' "$SCRATCH/out")
	if [ $status = 0 ] && grep -q 'guest succeeded' "$SCRATCH/out"; then ok "$suite: guest"; else not_ok "$suite: guest"; fi
done
finish
