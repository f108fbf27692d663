#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# run.sh SUITE LIST [FILE...]: boots the suite's kernel under QEMU (TCG) with
# the module and the files, runs the lines of LIST ("root COMMAND" or "user
# COMMAND"), and succeeds only when the guest wrote its token in time.
#
# FILE is SOURCE:TARGET; a folder becomes a folder.
# The suite "arm64" is another machine: FILE must be of that architecture.
#   VM_SMP=2 VM_MEM=2048 VM_SECONDS=900 VM_ICOUNT= VM_KERNEL= VM_MODULE=
#   VM_SECONDS: a guest that has printed nothing for so long is taken for stuck;
#   one that goes on slowly, on a machine that has other things to do, is not.
#   VM_NUMA=1: two nodes, each with half of the memory and one processor
set -euo pipefail
. "$(dirname "$0")/common.sh"

suite=$1 list=$2; shift 2
work=$(mktemp -d)
qemu=
trap '[ -z "$qemu" ] || kill "$qemu" 2>/dev/null; rm -rf "$work"' EXIT
initrd=$work/initrd
mkdir -p "$initrd"/{bin,sbin,etc,modules,tests,lib}

if [ -n "${VM_KERNEL:-}" ]; then
	kernel=$VM_KERNEL
else
	root=$("$vm_top/tests/vm/root.sh" "$suite")
	release=$(ls "$root/usr/lib/modules")
	kernel=$root/boot/vmlinuz-$release
	[ -e "$kernel" ] || kernel=$root/usr/lib/modules/$release/vmlinuz
	n=0
	# Swap for the guest: zram, with whatever it compresses by. File systems.
	while read -r ko; do
		case $ko in
		*.xz) xz -dc "$root/${ko#"$root"}" ;;
		*.zst) zstd -dcq "$root/${ko#"$root"}" ;;
		*) cat "$root/${ko#"$root"}" ;;
		esac >"$initrd/modules/$(printf %02d $n)-$(basename "$ko" | sed 's/\.ko.*//').ko"
		n=$((n + 1))
	done < <(for m in lzo-rle lz4 zram fuse xfs; do
		modprobe -d "$root" -S "$release" --show-depends $m 2>/dev/null || true
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }')
fi
module=${VM_MODULE:-}
[ -n "$module" ] || module=$("$vm_top/tests/vm/build.sh" "$suite")
[ "$module" = none ] || cp "$module" "$initrd/xpmem.ko"

if [ "$suite" = arm64 ]; then
	cp "$root/busybox-arm64" "$initrd/bin/busybox"
else
	cp "$(command -v busybox)" "$initrd/bin/busybox"
fi
cp "$vm_top/tests/vm/guest-init" "$initrd/init"
chmod 755 "$initrd/init"
printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/sh\n' >"$initrd/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$initrd/etc/group"
echo "127.0.0.1 localhost guest" >"$initrd/etc/hosts"
cp "$list" "$initrd/tests/list"
token=/dev/ttyS1
[ "$suite" != arm64 ] || token=/dev/ttyS0
echo "export VM_SUITE=$suite VM_ICOUNT=${VM_ICOUNT:-} VM_TOKEN=$token" >"$initrd/tests/env"
for file; do
	mkdir -p "$initrd/$(dirname "${file#*:}")"
	cp -aL "${file%%:*}" "$initrd/${file#*:}"
done
(cd "$initrd" && find . | cpio --quiet -o -H newc) >"$work/initrd.cpio"

smp=${VM_SMP:-2}
# A node has sockets of its own, or the kernel warns.
[ -z "${VM_NUMA:-}" ] || smp=$smp,sockets=$smp
accel=(-accel tcg,thread=multi -smp "$smp")
[ -z "${VM_ICOUNT:-}" ] || accel=(-accel tcg,thread=single -icount shift=0,sleep=off -smp 1)
if [ -n "${VM_NUMA:-}" ]; then
	half=$((${VM_MEM:-2048} / 2))M
	accel+=(-object "memory-backend-ram,id=m0,size=$half" -object "memory-backend-ram,id=m1,size=$half"
		-numa node,nodeid=0,memdev=m0,cpus=0 -numa node,nodeid=1,memdev=m1,cpus=1)
fi
# no_timer_check: on a busy machine the first timer interrupts may come late.
# tsc=reliable: nor may the watch over the clocks find that they differ. The kernel
# would then change its own code, and the emulator may run an int3 that is no more.
# A processor of the guest that has not run for long is no stall of its kernel's: the
# machine had other things to do. What stalls for minutes is one.
patience="rcupdate.rcu_cpu_stall_timeout=300 watchdog_thresh=60 sysctl.kernel.hung_task_timeout_secs=480"
# The guest prints what it does; the token goes where no kernel message can.
if [ "$suite" = arm64 ]; then
	# With memory tags: the kernel then asks of every entry whether it needs them.
	machine=(qemu-system-aarch64 -machine virt,mte=on -cpu "${VM_CPU:-max,pauth-impdef=on}")
	console=ttyAMA0 timer=
	serial=(-serial "file:$work/console" -chardev "file,id=token,path=$work/token" -device pci-serial,chardev=token)
else
	machine=(qemu-system-x86_64 -machine q35 -cpu "${VM_CPU:-max,la57=off}")
	console=ttyS0 timer="no_timer_check tsc=reliable"
	serial=(-serial "file:$work/console" -serial "file:$work/token")
fi
boot() {
	: >"$work/console"
	: >"$work/token"
	"${machine[@]}" "${accel[@]}" -m "${VM_MEM:-2048}" \
		-kernel "$kernel" -initrd "$work/initrd.cpio" \
		-append "console=$console quiet loglevel=1 panic=-1 hung_task_panic=0 secretmem.enable=1 $timer $patience ${VM_APPEND:-}" \
		-display none -monitor "${VM_MONITOR:-none}" -no-reboot -nodefaults "${serial[@]}" &
	qemu=$!
	local shown=0 size end=$((SECONDS + ${VM_SECONDS:-900}))
	while :; do
		local runs=1
		kill -0 "$qemu" 2>/dev/null || runs=0
		size=$(stat -c %s "$work/console")
		if [ "$size" -gt "$shown" ]; then
			head -c "$size" "$work/console" | tail -c +$((shown + 1)) | tr -d '\r'
			shown=$size
			end=$((SECONDS + ${VM_SECONDS:-900}))
		fi
		[ $runs = 1 ] || break
		[ $SECONDS -lt $end ] || { echo "$suite: stuck: nothing printed for ${VM_SECONDS:-900} s"; break; }
		sleep 0.5
	done
	kill "$qemu" 2>/dev/null || true
	wait "$qemu" 2>/dev/null || true
	qemu=
}
boot
# The emulator's: an int3 of the kernel's own, which had been patched away.
if grep -q 'Oops: int3\|^\[.*\] int3: 0000' "$work/console" && ! grep -q 'RIP.*\[xpmem\]' "$work/console"; then
	echo "$suite: the emulator has run code of the kernel that was changed: booted again"
	boot
fi
if grep -q xpmem-vm-success "$work/token"; then
	echo "$suite: guest succeeded"
else
	echo "$suite: guest FAILED (no token)"
	exit 1
fi
