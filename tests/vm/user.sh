#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# user.sh [SUITE...]: the conformance suite over the user back end on the kernels
# of the suites, without the module, as root and as a user. VM_BACKEND=both: with
# the module, over both back ends at once. The names of cases in VM_CASES are
# beginnings; none are all cases.
set -u
. "$(dirname "$0")/../../ci/lib.sh"
. "$(dirname "$0")/common.sh"

vm_need
[ $# -gt 0 ] || set -- bookworm trixie sid
tests=$vm_top/build/tests
[ -x "$tests/conformance" ] || make -C "$vm_top" conformance >/dev/null 2>&1 || {
	echo "user.sh: no conformance suite here" >&2
	exit 77
}
# It brings its libraries and loader to where they are here.
files=("$tests/conformance:/tests/conformance" "$vm_top/build/lib/libxpmem.so.0:/lib/libxpmem.so.0")
while read -r file; do
	files+=("$file:$file")
done < <(ldd "$tests/conformance" | grep -oE '/[^ ]+' | grep -v "^$vm_top" | sort -u)
# What pthread_exit loads.
gcc=$(gcc -print-file-name=libgcc_s.so.1)
files+=("$gcc:/lib/libgcc_s.so.1")
backend=${VM_BACKEND:-user}
for user in root user; do
	# shellcheck disable=SC2086
	echo "$user XPMEM_BACKEND=$backend /tests/conformance $vm_case_time" ${VM_CASES:-}
done >"$SCRATCH/list"

module=none
[ "$backend" = user ] || module=
for suite; do
	status=0
	VM_MODULE=$module VM_SECONDS=${VM_SECONDS:-900} "$vm_top/tests/vm/run.sh" "$suite" "$SCRATCH/list" "${files[@]}" \
		>"$SCRATCH/out" 2>&1 || status=$?
	cat "$SCRATCH/out"
	vm_count "$SCRATCH/out"
	if [ $status = 0 ]; then ok "XPMEM_BACKEND=$backend, $suite"; else not_ok "XPMEM_BACKEND=$backend, $suite" "status $status"; fi
done
finish
