#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# mpi.sh FOLDER: the main job for the guest: Open MPI 4.1.4 of this machine with
# the vader plugin of tests/clients, two ranks over the module, data checked.
# Adds to FOLDER/library.list and FOLDER/library.files; exit 77 where the
# plugin has not been built.
set -euo pipefail
. "$(dirname "$0")/common.sh"

out=$1 clients=${XPMEM_CLIENTS_BUILD:-$vm_top/build/clients}
plugins=$(dirname "$(find /usr/lib -name mca_pml_ob1.so 2>/dev/null | head -n 1)")
for file in "$clients/mca/mca_btl_vader.so" "$clients/pingpong" "$plugins/mca_pml_ob1.so" /usr/bin/mpirun \
	"$vm_top/build/lib/libxpmem.so.0"; do
	[ -e "$file" ] || { echo "main job: no $file (tests/clients/prepare.sh)"; exit 77; }
done
{
	echo "$clients/mca/mca_btl_vader.so:/mca/mca_btl_vader.so"
	echo "$clients/pingpong:/tests/pingpong"
	echo "$vm_top/build/lib/libxpmem.so.0:/tests/lib/libxpmem.so.0"
	echo "/usr/bin/mpirun:/usr/bin/mpirun"
	[ ! -e /usr/bin/orted ] || echo "/usr/bin/orted:/usr/bin/orted"
	for dir in /usr/share/openmpi /etc/openmpi /usr/share/pmix; do
		[ ! -d $dir ] || find $dir -type f -printf '%p:%p\n'
	done
	# What needs a fabric's libraries stays out: the job is shared memory.
	used=()
	for plugin in "$plugins"/*.so $(find /usr/lib -path '*pmix2/lib/pmix/*.so'); do
		case $plugin in *mca_btl_vader.so) continue ;; esac
		vm_closure "$plugin" | grep -qE 'libfabric|libuc[pst]|psm|ibverbs|rdmacm|cuda' && continue
		used+=("$plugin")
		echo "$plugin:$plugin"
	done
	vm_closure /usr/bin/mpirun "$clients/pingpong" "${used[@]}" "$(command -v env)" | sed 's/.*/&:&/'
} >>"$out/library.files"
cat >"$out/mpi-job" <<E2
#!/bin/sh
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm=isolated
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_btl_base_warn_component_unused=0 OMPI_MCA_oob_tcp_if_include=lo
export HOME=/tmp TMPDIR=/tmp LD_LIBRARY_PATH=/tests/lib XPMEM_BACKEND=kernel
before=\$(sed -n 's/^pages_mapped //p' /proc/xpmem/stats)
/usr/bin/mpirun -n 2 -x LD_LIBRARY_PATH -x XPMEM_BACKEND --mca mca_base_component_path /mca:$plugins \\
	--mca pml ob1 --mca btl self,vader --mca btl_vader_single_copy_mechanism xpmem \\
	/tests/pingpong -n 40 -s 1 || exit 1
after=\$(sed -n 's/^pages_mapped //p' /proc/xpmem/stats)
echo "main job: \$((after - before)) pages mapped by the module"
# A run that did not use the module is not the main job.
[ \$after -gt \$((before + 100)) ] || exit 1
echo "1 passed, 0 failed"
E2
chmod 755 "$out/mpi-job"
echo "$out/mpi-job:/tests/mpi-job" >>"$out/library.files"
echo "root /tests/mpi-job" >>"$out/library.list"
