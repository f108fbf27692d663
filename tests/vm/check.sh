#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The kernel module's whole check: check.sh [SUITE...]
set -u
. "$(dirname "$0")/../../ci/lib.sh"
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/tests.sh"

named=$#
suites=${*:-$vm_suites arm64}
if ! (vm_need) 2>"$SCRATCH/need"; then
	skip "guests" "$(cat "$SCRATCH/need")"
	finish
fi

vm_build_tests "$SCRATCH/tests"
vm_disks "$SCRATCH/tests"

cat >"$SCRATCH/list" <<'E2'
root /tests/abi
user /tests/abi
root /tests/coherence
user /tests/coherence
root /tests/pages
user /tests/pages
root /tests/sources
user /tests/sources
root /tests/surgery
user /tests/surgery
root /tests/owner
user /tests/owner
root /tests/wait
root /tests/hold
user /tests/hold
root /tests/attack
root /tests/outside
user /tests/attack
user /tests/outside
root /tests/refuse
user /tests/refuse
root /tests/limits
root /tests/life
user /tests/life
root /tests/churn 6
user /tests/churn 3
root /tests/fuzz 1 30000
user /tests/fuzz 2 10000
E2
# The library, and the main job in one guest.
"$vm_top/tests/vm/library.sh" "$SCRATCH" >"$SCRATCH/library.log" 2>&1 ||
	skip "the library over the module" "$(cat "$SCRATCH/library.log")"
mkdir "$SCRATCH/mpi"
"$vm_top/tests/vm/mpi.sh" "$SCRATCH/mpi" >"$SCRATCH/mpi.log" 2>&1 ||
	skip "the main job over the module" "$(cat "$SCRATCH/mpi.log")"
cat "$SCRATCH/library.list" >>"$SCRATCH/list"
mapfile -t library <"$SCRATCH/library.files"
vm_files+=(${library[@]+"${library[@]}"})

run_case "style (checkpatch, sparse, coccinelle where it is)" 900 "$vm_top/tests/vm/style.sh"
[ "$named" != 0 ] || run_case "headers decide, not the version" 900 "$vm_top/tests/vm/doctored.sh"
for suite in $suites; do
	run_case "$suite: the module builds without a warning" 900 "$vm_top/tests/vm/build.sh" "$suite"
	if [ "$suite" = arm64 ] && ! command -v qemu-system-aarch64 >/dev/null; then
		skip "arm64: guest" "no qemu-system-aarch64 (qemu-system-arm)"
		continue
	fi
	echo "--- $suite"
	status=0
	files=("${vm_files[@]}") memory=1024
	export VM_NUMA=
	cp "$SCRATCH/list" "$SCRATCH/list-$suite"
	# Debian 11's is older than the user back end knows.
	case $suite in
	bookworm) grep '^user /tests/both' "$SCRATCH/user.list" >>"$SCRATCH/list-$suite" 2>/dev/null ;;
	sid) grep '^user' "$SCRATCH/user.list" | grep -v 'nodes_$' >>"$SCRATCH/list-$suite" 2>/dev/null ;;
	trixie) grep -e '^root' -e 'nodes_$' "$SCRATCH/user.list" >>"$SCRATCH/list-$suite" 2>/dev/null ;;
	esac
	# One suite has disks, a cgroup that runs out of memory, and two memory nodes.
	if [ "$suite" = trixie ]; then
		printf '%s\n' "root /tests/disk ext4" "root /tests/disk xfs" "oom /tests/oom" "root /tests/numa" >>"$SCRATCH/list-trixie"
		VM_NUMA=1
	fi
	if [ "$suite" = trixie ] && [ -s "$SCRATCH/mpi/library.list" ]; then
		cat "$SCRATCH/mpi/library.list" >>"$SCRATCH/list-$suite"
		mapfile -t more <"$SCRATCH/mpi/library.files"
		files+=("${more[@]}")
		memory=1536
	elif [ "$suite" = arm64 ]; then
		# The module alone: the library and the rest are tested above.
		printf '%s\n' "root /tests/abi" "root /tests/coherence" "root /tests/pages" "root /tests/sources" "root /tests/surgery" "root /tests/owner" \
			"root /tests/attack" "root /tests/outside" "root /tests/refuse" "root /tests/fuzz 3 30000" \
			>"$SCRATCH/list-arm64"
		vm_build_tests "$SCRATCH/tests-arm64" arm64
		files=("${vm_files[@]}")
	fi
	VM_MEM=$memory VM_SECONDS=${VM_SECONDS:-900} "$vm_top/tests/vm/run.sh" "$suite" "$SCRATCH/list-$suite" \
		"${files[@]}" >"$SCRATCH/$suite.out" 2>&1 || status=$?
	cat "$SCRATCH/$suite.out"
	vm_count "$SCRATCH/$suite.out"
	if [ $status = 0 ]; then
		ok "$suite: guest"
	else
		# What the guest found wrong, and its end, in the 20 lines that the summary keeps.
		not_ok "$suite: guest" "status $status
$(grep -a -B 12 '^FAIL guest' "$SCRATCH/$suite.out" | cut -c 1-160 | tail -n 14)
$(tail -n 5 "$SCRATCH/$suite.out")"
	fi
done
[ "$named" != 0 ] || run_suite "DKMS" 1200 "$vm_top/tests/vm/dkms.sh"
finish
