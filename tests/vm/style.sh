#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# checkpatch --strict and sparse over kernel/, with the scripts and headers of
# trixie's kernel packages.
set -euo pipefail
. "$(dirname "$0")/common.sh"

root=$("$vm_top/tests/vm/root.sh" trixie)
checkpatch=$(find "$root/usr/src" -name checkpatch.pl | head -n 1)
if [ -z "$checkpatch" ]; then
	tools=$("$vm_top/tests/vm/root.sh" trixie linux-source-6.12)
	if [ ! -e "$tools/checkpatch/scripts/checkpatch.pl" ]; then
		mkdir -p "$tools/checkpatch"
		tar -C "$tools/checkpatch" --strip-components=1 -xf "$tools"/usr/src/linux-source-*.tar.xz \
			--wildcards '*/scripts/checkpatch.pl' '*/scripts/spelling.txt' \
			'*/scripts/const_structs.checkpatch'
	fi
	checkpatch=$tools/checkpatch/scripts/checkpatch.pl
fi
status=0
# LINUX_VERSION_CODE: an out-of-tree module has one file that looks at it.
for file in "$vm_top"/kernel/*.[ch]; do
	ignore=FILE_PATH_CHANGES
	[ "$(basename "$file")" = compat.h ] && ignore=$ignore,LINUX_VERSION_CODE,CONSTANT_COMPARISON
	perl "$checkpatch" --no-tree --strict --terse --no-summary --ignore "$ignore" --file "$file" || status=1
done

# sparse is in the suite's root, as its compiler is.
"$vm_top/tests/vm/build.sh" trixie C=2 CHECK=/usr/bin/sparse >/dev/null
exit $status
