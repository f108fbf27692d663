#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# library.sh FOLDER: what the guests run of the library: the conformance suite
# over the module, linked statically and dynamically, from C and from Rust.
# Writes FOLDER/library.list and FOLDER/library.files, and FOLDER/user.list for
# the user back end, alone and beside the module; exit 77 when not built.
set -euo pipefail
. "$(dirname "$0")/common.sh"

out=$1 tests=$vm_top/build/tests
: >"$out/library.list"
: >"$out/library.files"
: >"$out/user.list"
[ -x "$tests/conformance-static" ] || make -C "$vm_top" conformance >/dev/null 2>&1 || {
	echo "no conformance suite here"
	exit 77
}
gcc -O2 -Wall -Werror -static -pthread -o "$out/both" "$vm_top/tests/vm/both.c" "$vm_top/build/lib/libxpmem.a" 2>"$out/both.log" ||
	{ cat "$out/both.log"; exit 1; }
echo "$out/both:/tests/both" >>"$out/library.files"
# Of a static program no calls are met.
gcc -O2 -Wall -Werror -pthread -o "$out/both-calls" "$vm_top/tests/vm/both.c" -L"$vm_top/build/lib" -lxpmem 2>"$out/both.log" ||
	{ cat "$out/both.log"; exit 1; }
# From C as root and from Rust as a user: every case with either right and either
# interface, in half the time of all four.
echo "$tests/conformance-static:/tests/conformance-static" >>"$out/library.files"
echo "root XPMEM_BACKEND=kernel /tests/conformance-static $vm_case_time" >>"$out/library.list"
# The dynamic ones bring their libraries and loader to where they are here.
if [ -x "$tests/conformance-rust" ]; then
	echo "$tests/conformance-rust:/tests/conformance-rust" >>"$out/library.files"
	echo "$tests/libconformance-cases.so:/tests/libconformance-cases.so" >>"$out/library.files"
	{
		ldd "$tests/conformance-rust"
		ldd "$tests/libconformance-cases.so"
		# What ends a thread loads it by itself.
		realpath "$(gcc -print-file-name=libgcc_s.so.1)"
	} | grep -oE '/[^ ]+' | grep -v "^$vm_top" | sort -u | sed 's/.*/&:&/' >>"$out/library.files"
	echo "user XPMEM_CASES=/tests/libconformance-cases.so XPMEM_BACKEND=kernel /tests/conformance-rust $vm_case_time" >>"$out/library.list"
	# Over the user back end, what depends on the kernel most: all of it is
	# tests/vm/user.sh, and takes long without a processor that knows guests.
	over_user="XPMEM_CASES=/tests/libconformance-cases.so XPMEM_BACKEND=user /tests/conformance-rust $vm_case_time"
	{
		echo "user $over_user call_munmap call_mmap_fixed call_mremap_away call_dontneed_libc call_dontneed_raw call_shm" \
			"call_mprotect call_remap_file source_shared source_sysv source_mixed source_pinned pinned_ protect_ owner_forks mutex futex waits_are unmap_and_map written"
		over_both="XPMEM_CASES=/tests/libconformance-cases.so XPMEM_BACKEND=both /tests/conformance-rust $vm_case_time"
		echo "$out/both-calls:/tests/both-calls" >>"$out/library.files"
		echo "$vm_top/build/lib/libxpmem.so.0:/tests/lib/libxpmem.so.0" >>"$out/library.files"
		for user in root user; do
			echo "$user LD_LIBRARY_PATH=/tests/lib /tests/both-calls calls"
			echo "$user $over_both attachment_registered mutex_and futex direct_io vm_readv get_ remove_ release_ detach_"
			echo "$user /tests/both"
		done
		echo "root $over_user call_munmap call_shm source_sysv source_shared owner_forks protect_"
		# For the suite with two memory nodes.
		for user in root user; do
			echo "$user $over_user nodes_"
		done
	} >"$out/user.list"
fi
