#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# rdma.sh: memory that an InfiniBand device has and a peer too, over the user back
# end, in a guest of Debian's full kernel with soft RoCE (rdma_rxe).
set -u
. "$(dirname "$0")/../../ci/lib.sh"
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/rdma-common.sh"

tests=$vm_top/build/tests
[ -x "$tests/conformance" ] || make -C "$vm_top" conformance >/dev/null 2>&1 || exit 77
rdma_guest "$SCRATCH"
lib=/usr/lib/x86_64-linux-gnu
# All from the root: its libc is the newer one.
files=("${rdma_files[@]}")
while read -r file; do
	[ ! -e "$rdma_root$file" ] || files+=("$rdma_root$file:$file")
done < <(for f in $lib/libibverbs.so.1 $lib/libibverbs/librxe-rdmav34.so; do
	rdma_libraries "$f"
done | sort -u)
files+=("$rdma_root$lib/libm.so.6:$lib/libm.so.6" "$rdma_root$lib/libgcc_s.so.1:$lib/libgcc_s.so.1"
	"$rdma_root/etc/libibverbs.d/rxe.driver:/etc/libibverbs.d/rxe.driver"
	"$tests/conformance:/tests/conformance" "$vm_top/build/lib/libxpmem.so.0:$lib/libxpmem.so.0")
for user in root user; do
	echo "$user ulimit -l unlimited 2>/dev/null; LD_LIBRARY_PATH=$lib XPMEM_BACKEND=user /tests/conformance $vm_case_time rdma_ registered_first pinned_"
done >"$SCRATCH/cases"
{ echo "root sh /tests/prepare"; cat "$SCRATCH/cases"; } >"$SCRATCH/list"
status=0
rdma_run "$SCRATCH" "${files[@]}" || status=$?
# A device that was not there would only be skipped.
[ "$(grep -c '^ok: rdma_' "$SCRATCH/out")" = 4 ] || status=1
if [ $status = 0 ]; then ok "InfiniBand and a peer"; else not_ok "InfiniBand and a peer" "status $status"; fi
finish
