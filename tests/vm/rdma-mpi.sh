#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# rdma-mpi.sh: Open MPI over UCX with an InfiniBand device and our library at once
# (transports rc and xpmem), in a guest of Debian's full kernel with soft RoCE.
set -u
. "$(dirname "$0")/../../ci/lib.sh"
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/rdma-common.sh"

clients=${XPMEM_CLIENTS_BUILD:-$vm_top/build/clients}
lib=/usr/lib/x86_64-linux-gnu
plugins=$(dirname "$(find /usr/lib -name mca_pml_ucx.so 2>/dev/null | head -n 1)")
for file in "$clients/libuct_xpmem.so.0" "$clients/pingpong" "$plugins/mca_pml_ucx.so" $lib/ucx/libuct_ib.so.0 \
	$lib/libibverbs/librxe-rdmav34.so /usr/bin/mpirun; do
	[ -e "$file" ] || { echo "no $file (tests/clients/prepare.sh)"; exit 77; }
done
rdma_guest "$SCRATCH"
files=("${rdma_files[@]}")
while read -r file; do
	files+=("$file:$file")
done < <({
	find /usr/share/openmpi /etc/openmpi /usr/share/pmix /etc/libibverbs.d/rxe.driver -type f 2>/dev/null
	used=()
	for plugin in "$plugins"/*.so $(find /usr/lib -path '*pmix2/lib/pmix/*.so'); do
		case $plugin in *_ofi.so | *psm* | *openib* | *cuda*) continue ;; esac
		used+=("$plugin")
	done
	programs=(/usr/bin/mpirun /usr/bin/orted /usr/bin/env)
	others=("$lib/ucx/libuct_ib.so.0" "$lib/libibverbs/librxe-rdmav34.so" "$lib/libnss_files.so.2")
	printf '%s\n' "${used[@]}" "${programs[@]}" "${others[@]}"
	vm_closure "${used[@]}" "${programs[@]}" "${others[@]}" "$clients/pingpong"
} | sort -u)
files+=("$clients/libuct_xpmem.so.0:/tests/libuct_xpmem.so.0" "$clients/pingpong:/tests/pingpong"
	"$vm_top/build/lib/libxpmem.so.0:/tests/libxpmem.so.0")
files+=("$vm_top/tests/vm/rdma-job:/tests/job")
printf '%s\n' "root sh /tests/prepare" "root sh /tests/job" "root ulimit -l unlimited; exec su -s /bin/sh nobody -c 'sh /tests/job'" >"$SCRATCH/list"
status=0
rdma_run "$SCRATCH" "${files[@]}" || status=$?
[ "$(grep -c '^2 passed, 0 failed' "$SCRATCH/out")" = 2 ] || status=1
if [ $status = 0 ]; then ok "rc and xpmem at once"; else not_ok "rc and xpmem at once" "status $status"; fi
finish
