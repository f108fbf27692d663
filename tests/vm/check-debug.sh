#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# check-debug.sh [SUITE...]: the tests on kernels with KASAN, PROVE_LOCKING,
# DEBUG_ATOMIC_SLEEP, DEBUG_VM, kmemleak: any report fails. No case has a limit:
# the clock of such a guest runs up to ten times too fast, and run.sh ends what is
# silent. The sweep that fails each allocation in turn; the fuzzer with fewer calls
# than elsewhere, since 5,000 take four minutes (XPMEM_FUZZ_CALLS); two memory nodes; and
# a device with memory of its own, which no kernel of Debian's has.
# Default: trixie and sid, 6.12 and 7.2.
set -u
. "$(dirname "$0")/../../ci/lib.sh"
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/tests.sh"

vm_build_tests "$SCRATCH/tests"
cat >"$SCRATCH/list" <<E2
root /tests/checkers
root T_SECONDS=0 /tests/abi
root T_SECONDS=0 /tests/surgery
root T_SECONDS=0 /tests/coherence
root T_SECONDS=0 /tests/pages
root T_SECONDS=0 /tests/sources
root T_SECONDS=0 /tests/owner
root T_SECONDS=0 /tests/wait
root T_SECONDS=0 /tests/hold
root T_SECONDS=0 /tests/attack
root T_SECONDS=0 /tests/outside
root T_SECONDS=0 /tests/refuse
root T_SECONDS=0 /tests/limits
root T_SECONDS=0 /tests/life
root T_SECONDS=0 /tests/churn 6
root T_SECONDS=0 /tests/fuzz 1 ${XPMEM_FUZZ_CALLS:-10000}
root T_SECONDS=0 /tests/failslab
root T_SECONDS=0 /tests/numa
root insmod /tests/test_hmm.ko && T_SECONDS=0 /tests/device
root /tests/checkers
E2
# The checkers are there, and lockdep has not given up.
cat >"$SCRATCH/checkers" <<'E2'
#!/bin/sh
set -e
grep -m 1 ' kasan_report$' /proc/kallsyms
grep -E '^ debug_locks: +1$' /proc/lockdep_stats
[ -e /sys/kernel/debug/kmemleak ] && [ -d /sys/kernel/debug/failslab ] && [ -e /proc/self/fail-nth ]
echo "1 passed, 0 failed"
E2
# Where the kernel would make a BUG of sharing, the module must not load.
cat >"$SCRATCH/refuse" <<'E2'
#!/bin/sh
insmod /tests/xpmem.ko 2>&1 | tee /tmp/insmod
grep -q 'Operation not supported' /tmp/insmod && [ ! -e /dev/xpmem ] && dmesg | grep 'xpmem: .*page_table_check=on' &&
	echo "1 passed, 0 failed" || { echo "FAIL: loaded with page_table_check=on"; exit 1; }
E2
chmod 755 "$SCRATCH/refuse" "$SCRATCH/checkers"
echo "root /tests/refuse" >"$SCRATCH/refuse.list"

[ $# != 0 ] || set -- trixie sid
for suite; do
	status=0
	build=$("$vm_top/tests/vm/debug-kernel.sh" "$suite") || status=$?
	case $status in
	0) ;;
	77) skip "$suite" "no debug kernel"; continue ;;
	*) not_ok "$suite: debug kernel"; continue ;;
	esac
	rm -rf "$SCRATCH/module"
	mkdir "$SCRATCH/module"
	cp "$vm_top"/kernel/{Kbuild,Makefile,*.[ch]} "$SCRATCH/module/"
	if ! make -C "$SCRATCH/module" KDIR="$build" >"$SCRATCH/build.log" 2>&1; then
		cat "$SCRATCH/build.log"
		not_ok "$suite: module for the debug kernel"
		continue
	fi
	export VM_KERNEL=$build/arch/x86/boot/bzImage VM_MEM=2048
	VM_MODULE=none VM_APPEND=page_table_check=on VM_SECONDS=900 vm_guest "$suite" "$SCRATCH/refuse.list" \
		"$SCRATCH/refuse:/tests/refuse" "$SCRATCH/module/xpmem.ko:/tests/xpmem.ko"
	VM_NUMA=1 VM_MODULE=$SCRATCH/module/xpmem.ko VM_SECONDS=${VM_SECONDS:-3600} vm_guest "$suite" "$SCRATCH/list" \
		"$SCRATCH/checkers:/tests/checkers" "$build/lib/test_hmm.ko:/tests/test_hmm.ko" "${vm_files[@]}"
done
finish
