#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# debug-kernel.sh SUITE: builds a small kernel with every checker from the
# suite's linux-source package; answers its build folder. Takes ten minutes to
# half an hour of one core; kept in the cache.
set -euo pipefail
. "$(dirname "$0")/common.sh"

suite=$1
case $suite in
trixie) source=linux-source-6.12 ;;
sid) source=linux-source-7.2 ;;
*) vm_die "no debug kernel for $suite" ;;
esac
for tool in flex bison bc make gcc xz; do
	command -v $tool >/dev/null || { echo "missing: $tool (apt-get install flex bison bc make gcc libelf-dev libssl-dev xz-utils)" >&2; exit 77; }
done
build=$vm_cache/debug-$suite
config=$vm_top/tests/vm/debug.config
mkdir -p "$vm_cache"
exec 9>"$build.lock"
flock 9
root=$("$vm_top/tests/vm/root.sh" "$suite" "$source")
# Unpacked again for another source. Another configuration is built on what stands: make
# knows what depends on it. What was interrupted goes on, if its tree is whole.
stamp=$(cd "$root/usr/src" && stat -c '%s %Y' "$source.tar.xz"; cksum <"$config")
if [ "$(cat "$build/.stamp" 2>/dev/null)" != "$stamp" ]; then
	if [ "$(head -n 1 "$build/.stamp" 2>/dev/null)" != "${stamp%%$'\n'*}" ]; then
		rm -rf "$build"
		mkdir -p "$build"
		tar -C "$build" --strip-components=1 -xf "$root/usr/src/$source.tar.xz"
	fi
	rm -f "$build/.stamp" "$build/.complete"
	{
		make -C "$build" tinyconfig
		(cd "$build" && scripts/kconfig/merge_config.sh -m .config "$config")
		make -C "$build" olddefconfig
	} >"$build.log" 2>&1 || { tail -n 30 "$build.log" >&2; exit 1; }
	# An option that another one shuts out is dropped without a word.
	lost=$(grep -E '^CONFIG_[A-Z0-9_]+=[ym]$' "$config" | grep -vxFf "$build/.config" || true)
	[ -z "$lost" ] || vm_die "$suite: not in the configuration:" $lost
	echo "$stamp" >"$build/.stamp"
fi
if [ ! -e "$build/.complete" ]; then
	nice make -C "$build" -j"${VM_JOBS:-2}" bzImage modules_prepare modules >"$build.log" 2>&1 ||
		{ tail -n 30 "$build.log" >&2; exit 1; }
	touch "$build/.complete"
fi
echo "$build"
