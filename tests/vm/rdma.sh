#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# rdma.sh: memory that an InfiniBand device has and a peer too, over the user back
# end, in a guest of Debian's full kernel with soft RoCE (rdma_rxe).
set -u
. "$(dirname "$0")/../../ci/lib.sh"
. "$(dirname "$0")/common.sh"

vm_need
tests=$vm_top/build/tests
[ -x "$tests/conformance" ] || make -C "$vm_top" conformance >/dev/null 2>&1 || exit 77
root=$("$vm_top/tests/vm/root.sh" trixie linux-image-amd64 libibverbs1 ibverbs-providers iproute2 kmod) || exit 77
release=$(ls "$root/usr/lib/modules")
mkdir "$SCRATCH/modules"
files=()
n=10
while read -r ko; do
	name=$n-$(basename "$ko" .xz)
	xz -dc "$ko" >"$SCRATCH/modules/$name"
	files+=("$SCRATCH/modules/$name:/modules/$name")
	n=$((n + 1))
done < <(for m in crc32_generic rdma_rxe dummy; do modprobe -d "$root" -S "$release" --show-depends $m; done |
	awk '$1 == "insmod" && !seen[$2]++ { print $2 }')
# All from the root: its libc is the newer one.
libraries() {
	vm_chroot "$root" /lib64/ld-linux-x86-64.so.2 --list "$1" | grep -oE '/[^ ]+' | sort -u
}
lib=/usr/lib/x86_64-linux-gnu
mkdir -p "$root/tests"
cp "$tests/conformance" "$root/tests/"
while read -r file; do
	[ ! -e "$root$file" ] || files+=("$root$file:$file")
done < <(for f in /usr/bin/rdma $lib/libibverbs.so.1 $lib/libibverbs/librxe-rdmav34.so; do
	libraries "$f"
	echo "$f"
done | sort -u)
files+=("$root$lib/libm.so.6:$lib/libm.so.6" "$root$lib/libgcc_s.so.1:$lib/libgcc_s.so.1"
	"$root/etc/libibverbs.d/rxe.driver:/etc/libibverbs.d/rxe.driver"
	"$tests/conformance:/tests/conformance" "$vm_top/build/lib/libxpmem.so.0:$lib/libxpmem.so.0")
cat >"$SCRATCH/prepare" <<'E2'
#!/bin/busybox sh
ip addr add 192.0.2.1/24 dev dummy0 && ip link set dummy0 up || exit 1
LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu /usr/bin/rdma link add rxe0 type rxe netdev dummy0 || exit 1
for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/infiniband/uverbs0 ] && break; sleep 1; done
chmod 666 /dev/infiniband/uverbs0
LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu /usr/bin/rdma link
E2
files+=("$SCRATCH/prepare:/tests/prepare")
for user in root user; do
	echo "$user ulimit -l unlimited 2>/dev/null; LD_LIBRARY_PATH=$lib XPMEM_BACKEND=user /tests/conformance --timeout 120 rdma_ registered_first pinned_"
done >"$SCRATCH/cases"
{ echo "root sh /tests/prepare"; cat "$SCRATCH/cases"; } >"$SCRATCH/list"
status=0
VM_KERNEL=$root/boot/vmlinuz-$release VM_MODULE=none "$vm_top/tests/vm/run.sh" trixie "$SCRATCH/list" "${files[@]}" \
	>"$SCRATCH/out" 2>&1 || status=$?
cat "$SCRATCH/out"
# A device that was not there would only be skipped.
[ "$(grep -c '^ok: rdma_' "$SCRATCH/out")" = 4 ] || status=1
if [ $status = 0 ]; then ok "InfiniBand and a peer"; else not_ok "InfiniBand and a peer" "status $status"; fi
finish
