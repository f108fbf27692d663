# shellcheck shell=bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# A guest of Debian's full kernel with an InfiniBand device, rxe0, over soft RoCE:
#
#   rdma_guest FOLDER            sets rdma_root, rdma_kernel and rdma_files; exit 77 where it cannot
#   rdma_run FOLDER FILE...      boots it with FOLDER/list, and leaves what it printed in FOLDER/out
#   rdma_libraries FILE          what a program or library of rdma_root needs, and itself
#
# The list of such a guest begins with "root sh /tests/prepare".

rdma_libraries() {
	vm_chroot "$rdma_root" /lib64/ld-linux-x86-64.so.2 --list "$1" | grep -oE '/[^ ]+'
	echo "$1"
}

rdma_run() {
	local folder=$1 status=0
	shift
	VM_KERNEL=$rdma_kernel VM_MODULE=none "$vm_top/tests/vm/run.sh" trixie "$folder/list" "$@" \
		>"$folder/out" 2>&1 || status=$?
	cat "$folder/out"
	return $status
}

rdma_guest() {
	local folder=$1 release ko name n=10 file lib=/usr/lib/x86_64-linux-gnu
	vm_need
	rdma_root=$("$vm_top/tests/vm/root.sh" trixie linux-image-amd64 libibverbs1 ibverbs-providers iproute2 kmod) || exit 77
	release=$(ls "$rdma_root/usr/lib/modules")
	rdma_kernel=$rdma_root/boot/vmlinuz-$release
	mkdir "$folder/modules"
	rdma_files=()
	while read -r ko; do
		name=$n-$(basename "$ko" .xz)
		xz -dc "$ko" >"$folder/modules/$name"
		rdma_files+=("$folder/modules/$name:/modules/$name")
		n=$((n + 1))
	done < <(for m in crc32_generic rdma_rxe dummy; do
		modprobe -d "$rdma_root" -S "$release" --show-depends $m
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }')
	# The program that makes the device has its own libc, apart from all else.
	while read -r file; do
		rdma_files+=("$rdma_root$file:/rdma$file")
	done < <({
		rdma_libraries /usr/bin/rdma
		echo /lib64/ld-linux-x86-64.so.2
	} | sort -u)
	cat >"$folder/prepare" <<E2
#!/bin/busybox sh
rdma() { /rdma/lib64/ld-linux-x86-64.so.2 --library-path /rdma/lib/x86_64-linux-gnu:/rdma$lib /rdma/usr/bin/rdma "\$@"; }
ip addr add 192.0.2.1/24 dev dummy0 && ip link set dummy0 up || exit 1
rdma link add rxe0 type rxe netdev dummy0 || exit 1
for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/infiniband/uverbs0 ] && break; sleep 1; done
chmod 666 /dev/infiniband/uverbs0
rdma link
E2
	rdma_files+=("$folder/prepare:/tests/prepare")
}
