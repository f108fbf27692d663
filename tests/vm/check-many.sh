#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# check-many.sh [SUITE...]: what races most, in guests of eight processors. They are
# threads of QEMU, so it takes as long as the machine has few. Default: trixie.
set -u
. "$(dirname "$0")/../../ci/lib.sh"
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/tests.sh"

vm_need
vm_build_tests "$SCRATCH/tests"
printf 'root /tests/%s\n' life "churn 6" coherence pages sources surgery wait hold attack outside "fuzz 1 10000" >"$SCRATCH/list"
echo "user /tests/fuzz 2 10000" >>"$SCRATCH/list"
[ $# != 0 ] || set -- trixie
for suite; do
	VM_SMP=8 VM_MEM=1024 vm_guest "$suite" "$SCRATCH/list" "${vm_files[@]}"
done
finish
