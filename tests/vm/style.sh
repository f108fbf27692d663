#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# checkpatch --strict, sparse, and where spatch is installed the kernel's
# coccinelle scripts over kernel/, as trixie's kernel packages have them.
set -euo pipefail
. "$(dirname "$0")/common.sh"

tools=$("$vm_top/tests/vm/root.sh" trixie linux-source-6.12)
scripts=$tools/tree/scripts
if [ ! -e "$tools/tree/.complete" ]; then
	mkdir -p "$tools/tree"
	tar -C "$tools/tree" --strip-components=1 -xf "$tools"/usr/src/linux-source-*.tar.xz \
		--wildcards '*/scripts/checkpatch.pl' '*/scripts/spelling.txt' \
		'*/scripts/const_structs.checkpatch' '*/scripts/coccinelle'
	touch "$tools/tree/.complete"
fi
status=0
# LINUX_VERSION_CODE: an out-of-tree module has one file that looks at it.
for file in "$vm_top"/kernel/*.[ch]; do
	ignore=FILE_PATH_CHANGES
	[ "$(basename "$file")" = compat.h ] && ignore=$ignore,LINUX_VERSION_CODE,CONSTANT_COMPARISON
	perl "$scripts/checkpatch.pl" --no-tree --strict --terse --no-summary --ignore "$ignore" --file "$file" || status=1
done

# sparse is in the suite's root, as its compiler is.
"$vm_top/tests/vm/build.sh" trixie C=2 CHECK=/usr/bin/sparse >/dev/null

# What `make coccicheck MODE=report` runs. A script that only patches has nothing
# to say, and one or two need a compiler of OCaml.
if command -v spatch >/dev/null; then
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
	report() {
		# shellcheck disable=SC2046
		spatch -D report --no-show-diff --very-quiet --cocci-file "$1" \
			$(sed -n 's|^// *Options: *||p' "$1") "${@:2}" 2>"$out/log"
	}
	# It finds what is there to find.
	printf 'void f(void *p)\n{\n\tif (p)\n\t\tkfree(p);\n}\n' >"$out/bad.c"
	report "$scripts/coccinelle/free/ifnullfree.cocci" "$out/bad.c" | grep -q WARNING ||
		{ echo "coccinelle finds nothing"; status=1; }
	ran=0
	while read -r cocci; do
		grep -q '^virtual.*report' "$cocci" || continue
		if report "$cocci" --dir "$vm_top/kernel" >>"$out/found"; then
			ran=$((ran + 1))
		elif ! grep -q 'No OCaml compiler' "$out/log"; then
			cat "$out/log"
			status=1
		fi
	done < <(find "$scripts/coccinelle" -name '*.cocci' | sort)
	[ $ran -gt 50 ] || { echo "only $ran coccinelle scripts"; status=1; }
	[ ! -s "$out/found" ] || { cat "$out/found"; status=1; }
fi
exit $status
