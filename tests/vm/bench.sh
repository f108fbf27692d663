#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Guest instructions of each operation on trixie's kernel (-icount: repeatable),
# then how faults of two threads scale (wall time, two vCPUs).
set -euo pipefail
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/tests.sh"
vm_need
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
vm_build_tests "$work/tests"
echo "root /tests/bench" >"$work/list"
# A plain CPU: with "max" the timer interrupt of this clock costs millions.
VM_CPU=qemu64 VM_ICOUNT=1 VM_SECONDS=600 "$vm_top/tests/vm/run.sh" trixie "$work/list" "${vm_files[@]}"
echo "root /tests/bench scaling" >"$work/list"
VM_SECONDS=600 "$vm_top/tests/vm/run.sh" trixie "$work/list" "${vm_files[@]}"
