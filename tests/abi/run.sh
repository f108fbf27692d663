#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# What the shared object is, as the ELF file says: never mind the linker's flags.
. "$(dirname "$0")/../../ci/lib.sh"
cd "$TOP" || exit 1
export LIB=$TOP/build/lib/libxpmem.so.0 INCLUDE=$TOP/include

wanted() { grep -v '^#' tests/abi/symbols.txt; }
symbols() {
    diff <(wanted) <(nm -D --defined-only "$LIB" | awk '{ print $3 }' | LC_ALL=C sort)
}
strong() {
    ! nm -D --defined-only "$LIB" | grep -v ' T '
}
unversioned() {
    ! readelf -W --dyn-syms "$LIB" | grep -E ' (xpmem|hwloc)_[a-z_]*@' &&
        ! readelf -W -V "$LIB" | grep 'Version definition section'
}
soname() {
    readelf -d "$LIB" | grep -F 'soname: [libxpmem.so.0]'
}
needed() {
    local extra
    extra=$(readelf -d "$LIB" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
        grep -vxE 'libc\.so\.6|ld-linux-.*\.so\.[0-9]+')
    [ -z "$extra" ] || { echo "needs $extra"; return 1; }
}
nodelete() {
    readelf -d "$LIB" | grep -E 'FLAGS_1.*NODELETE'
}
text_relocations() {
    ! readelf -d "$LIB" | grep -q TEXTREL
}
size() {
    local bytes
    strip -o "$1/stripped.so" "$LIB" && bytes=$(stat -c %s "$1/stripped.so") &&
        echo "$bytes bytes" && [ "$bytes" -lt 650000 ]
}
archive() {
    local name missing=0
    # Not nm: its plugins take the archive for one of LLVM's.
    readelf -sW "$TOP/build/lib/libxpmem.a" 2>/dev/null |
        awk '$4 == "FUNC" && $5 == "GLOBAL" && $7 != "UND" { print $8 }' | sort -u >"$1/archive"
    while read -r name; do
        grep -qx "$name" "$1/archive" || { echo "no $name"; missing=1; }
    done < <(wanted)
    return $missing
}
compiles() { # COMPILER FLAGS... ; every header by itself and all together
    local header all=""
    # shellcheck disable=SC2043 # One header so far.
    for header in "$INCLUDE"/xpmem.h; do
        echo "#include \"$header\"" | "$@" -fsyntax-only -I"$INCLUDE" - || return 1
        all+="#include \"$header\""$'\n'"#include \"$header\""$'\n'
    done
    printf '%s\nint f(void);\nint f(void) { struct xpmem_addr a; a.apid = 0; a.offset = 0; %s %s; }\n' "$all" \
        'return (int)sizeof(a) - 16 + (int)((long)xpmem_attach(a, XPMEM_MAXADDR_SIZE, 0)' \
        '+ xpmem_make(0, 1, XPMEM_PERMIT_MODE, 0) + xpmem_get(1, XPMEM_RDWR | XPMEM_RDONLY, 1, 0) + XPMEM_ERRNO_NOPROC)' |
        "$@" -fsyntax-only -I"$INCLUDE" -
}
# Between dlopen's entry and its return: the dynamic linker's own calls only.
quiet_load() {
    local other
    cc -O1 -o "$1/load" tests/abi/load.c tests/lib/proc.c -ldl || return 1
    strace -f -o "$1/trace" "$1/load" "$LIB" || return 1
    sed -n '/"mark"/,/"mark"/p' "$1/trace" | sed -e 1d -e '$d' -e 's/^[0-9]* *//' >"$1/between"
    [ -s "$1/between" ] || { echo "nothing was traced"; return 1; }
    other=$(grep -vE '^(openat|read|pread64|newfstatat|fstat|mmap|mprotect|munmap|close|brk|readlink|getcwd)\(' "$1/between")
    [ -z "$other" ] || { echo "$other"; return 1; }
    # Whatever is mapped is the file, or the rest of its .bss.
    ! grep mmap "$1/between" | grep -v MAP_FIXED | grep MAP_ANONYMOUS
}
layout() {
    cat >"$1/layout.c" <<'C'
#include <stddef.h>
#include "xpmem.h"
#define IS(x) _Static_assert(x, #x)
IS(sizeof(struct xpmem_addr) == 16);
IS(offsetof(struct xpmem_addr, apid) == 0 && offsetof(struct xpmem_addr, offset) == 8);
IS(sizeof(xpmem_segid_t) == 8 && sizeof(xpmem_apid_t) == 8 && (xpmem_segid_t)-1 < 0);
IS(XPMEM_RDONLY == 1 && XPMEM_RDWR == 2 && XPMEM_PERMIT_MODE == 1 && XPMEM_ERRNO_NOPROC == 2004);
IS(XPMEM_MAXADDR_SIZE == (size_t)-1);
int (*v)(void) = xpmem_version, (*r)(xpmem_segid_t) = xpmem_remove, (*l)(xpmem_apid_t) = xpmem_release;
xpmem_segid_t (*m)(void *, size_t, int, void *) = xpmem_make;
xpmem_apid_t (*g)(xpmem_segid_t, int, int, void *) = xpmem_get;
void *(*a)(struct xpmem_addr, size_t, void *) = xpmem_attach;
int (*d)(void *) = xpmem_detach;
C
    cc -std=c11 -Wall -Werror -I"$INCLUDE" -c -o /dev/null "$1/layout.c"
}
export -f wanted symbols strong unversioned soname needed nodelete text_relocations size archive compiles quiet_load layout

run_case "exports exactly the ABI's symbols" 30 bash -c symbols
run_case "all of them strong functions" 30 bash -c strong
run_case "unversioned" 30 bash -c unversioned
run_case "SONAME libxpmem.so.0" 30 bash -c soname
run_case "needs libc alone" 30 bash -c needed
run_case "never unloaded" 30 bash -c nodelete
run_case "no text relocations" 30 bash -c text_relocations
run_case "stripped, below 650,000 bytes" 30 bash -c "size '$SCRATCH'"
run_case "the static library has them too" 60 bash -c "archive '$SCRATCH'"
run_case "header: types and prototypes" 30 bash -c "layout '$SCRATCH'"
run_case "header in C89" 30 bash -c 'compiles gcc -x c -std=c89 -pedantic -Wall -Wextra -Werror'
run_case "header in C17" 30 bash -c 'compiles gcc -x c -std=c17 -pedantic -Wall -Wextra -Werror'
if command -v g++ >/dev/null; then
    run_case "header in C++98" 30 bash -c 'compiles g++ -x c++ -std=c++98 -Wall -Wextra -Werror'
    run_case "header in C++20" 30 bash -c 'compiles g++ -x c++ -std=c++20 -pedantic -Wall -Wextra -Werror'
else
    skip "header in C++" "no g++"
fi
if command -v strace >/dev/null; then
    run_case "loading does nothing" 60 bash -c "quiet_load '$SCRATCH'"
else
    skip "loading does nothing" "no strace"
fi
finish
