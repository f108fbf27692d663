#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# dkms.sh: `make install-module` in a bookworm system, with DKMS and without;
# then a guest that loads the module as that system's boot would, by its
# modules-load.d, with its udev.
set -u
. "$(dirname "$0")/../../ci/lib.sh"
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/tests.sh"

if ! (vm_need) 2>"$SCRATCH/need"; then
	skip "DKMS" "$(cat "$SCRATCH/need")"
	finish
fi
root=$("$vm_top/tests/vm/root.sh" dkms) || { not_ok "a bookworm system with dkms"; finish; }
exec 8>"$vm_cache/dkms.lock"
flock 8
release=$(ls "$root/usr/lib/modules")
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$vm_top/kernel/dkms.conf")
modules=$root/usr/lib/modules/$release
built=$modules/updates/dkms/xpmem.ko

in_root() { vm_chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin LC_ALL=C "$@"; }
in_tree() { in_root make --no-print-directory -C /src/xpmem KDIR="/lib/modules/$release/build" "$@"; }
# What an installation leaves, this run's or one's that was cut short.
clean() {
	[ ! -e "$root/usr/sbin/dkms.off" ] || mv "$root/usr/sbin/dkms.off" "$root/usr/sbin/dkms"
	in_root dkms remove "xpmem/$version" --all >/dev/null 2>&1
	rm -rf "$root/src/xpmem" "$root/src/stage" "$root"/usr/src/xpmem-* "$root/var/lib/dkms/xpmem" \
		"$root/usr/lib/udev/rules.d/90-xpmem.rules" "$root/usr/lib/modules-load.d/xpmem.conf"
	find "$modules" -name 'xpmem.ko*' -delete
	in_root depmod "$release"
}
clean
trap 'clean; rm -rf "$SCRATCH"' EXIT
mkdir -p "$root/src/xpmem"
(cd "$vm_top" && tar -c --exclude=./target --exclude=./build --exclude=./.git .) | tar -C "$root/src/xpmem" -xf -

staged() {
	in_tree install-module DESTDIR=/src/stage || return 1
	(cd "$root/src/stage" && find . -type f | sort) >"$SCRATCH/have"
	{
		echo ./usr/lib/modules-load.d/xpmem.conf
		echo ./usr/lib/udev/rules.d/90-xpmem.rules
		(cd "$vm_top/kernel" && ls Kbuild Makefile dkms.conf *.[ch]) | sed "s|^|./usr/src/xpmem-$version/|"
	} | sort | diff - "$SCRATCH/have"
}

# Installed: DKMS says so, the file is there, modprobe would find it, and the
# compiler had nothing to say.
installed() {
	in_root dkms status "xpmem/$version" -k "$release" | tee "$SCRATCH/status"
	grep -qx "xpmem/$version, $release, x86_64: installed" "$SCRATCH/status" || return 1
	[ -e "$built" ] && grep -q '^updates/dkms/xpmem.ko:' "$modules/modules.dep" || return 1
	[ "$(in_root modinfo -k "$release" -F version xpmem)" = "$version" ] || return 1
	! grep -iE 'warning|error' "$root/var/lib/dkms/xpmem/$version/$release/x86_64/log/make.log" |
		grep -vE 'Skipping BTF|compiler differs'
}
gone() { [ ! -e "$built" ] && ! grep -q xpmem "$modules/modules.dep"; }
remove() { in_root dkms remove "xpmem/$version" --all && gone; }

by_make() { in_tree install-module && installed; }
by_hand() {
	in_root dkms add "xpmem/$version" && in_root dkms build "xpmem/$version" -k "$release" &&
		in_root dkms install "xpmem/$version" -k "$release" && installed
}
# What Debian does when a kernel is installed.
by_kernel() {
	in_root dkms add "xpmem/$version" && in_root dkms autoinstall -k "$release" && installed
}
without_dkms() {
	mv "$root/usr/sbin/dkms" "$root/usr/sbin/dkms.off"
	in_tree install-module
	local status=$?
	mv "$root/usr/sbin/dkms.off" "$root/usr/sbin/dkms"
	[ $status = 0 ] && [ "$(in_root modinfo -k "$release" -F version xpmem)" = "$version" ] &&
		grep -q 'xpmem.ko:' "$modules/modules.dep"
}

export -f in_root in_tree staged installed gone remove by_make by_hand by_kernel without_dkms vm_chroot
export root release version modules built SCRATCH vm_top
step() { run_case "$1" 300 bash -c "$2"; }
step "install-module into a DESTDIR" staged
step "install-module, no DKMS here" without_dkms
find "$modules" -name 'xpmem.ko*' -delete
step "install-module by DKMS" by_make
step "dkms remove" remove
step "dkms add, build, install" by_hand
step "dkms remove again" remove
step "dkms autoinstall" by_kernel

# The guest: the installed module, and what of the system loads it.
cat >"$SCRATCH/boot" <<'E2'
#!/bin/sh
set -e
mode() { [ "$(stat -c '%F %a' /dev/xpmem)" = "character special file $1" ] || { echo "FAIL /dev/xpmem: $2: $(ls -l /dev/xpmem)"; exit 1; }; }
[ ! -e /dev/xpmem ]
/usr/lib/systemd/systemd-modules-load
mode 666 "as the driver made it"
chmod 600 /dev/xpmem
mode 600 "changed"
mkdir -p /run/udev
/usr/lib/systemd/systemd-udevd --daemon 2>/dev/null
/usr/bin/udevadm trigger --action=add --sysname-match=xpmem
/usr/bin/udevadm settle
mode 666 "by the udev rule"
/usr/bin/udevadm control --exit
su -s /bin/sh nobody -c /tests/abi | tee /tmp/abi
grep -q ' 0 failed' /tmp/abi
/usr/sbin/modprobe -r xpmem
[ ! -e /dev/xpmem ]
echo "1 passed, 0 failed"
E2
chmod 755 "$SCRATCH/boot"
echo "root /tests/boot" >"$SCRATCH/list"
vm_build_tests "$SCRATCH/tests"
files=("$SCRATCH/boot:/tests/boot" "$SCRATCH/tests/abi:/tests/abi")
programs="/usr/lib/systemd/systemd-modules-load /usr/lib/systemd/systemd-udevd /usr/bin/udevadm /usr/sbin/modprobe"
for file in $programs /usr/lib/modules-load.d/xpmem.conf /usr/lib/udev/rules.d/{50-udev-default,90-xpmem}.rules \
	"/lib/modules/$release"/modules.{dep,dep.bin,alias,alias.bin,symbols,symbols.bin,builtin,builtin.bin,builtin.alias.bin,builtin.modinfo,order,softdep,devname} \
	"/lib/modules/$release/updates/dkms/xpmem.ko" \
	$(for p in $programs; do in_root ldd "$p"; done 2>/dev/null | grep -oE '/[^ ]+' | sort -u); do
	# A link is followed as that system would.
	! to=$(in_root realpath -e "$file" 2>/dev/null) || files+=("$root$to:$file")
done
if VM_KERNEL=$root/boot/vmlinuz-$release VM_MODULE=none VM_SECONDS=${VM_SECONDS:-300} \
	"$vm_top/tests/vm/run.sh" bookworm "$SCRATCH/list" "${files[@]}" >"$SCRATCH/out" 2>&1 &&
	grep -qx '1 passed, 0 failed' "$SCRATCH/out"; then
	ok "a guest loads it by modules-load.d; udev's rule gives /dev/xpmem 0666"
else
	cat "$SCRATCH/out"
	not_ok "a guest loads it by modules-load.d; udev's rule gives /dev/xpmem 0666"
fi
finish
