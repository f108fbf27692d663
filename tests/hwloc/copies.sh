#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/hwloc/copies.sh LIBXPMEM: several copies of hwloc in one process, each
# with its own layout, functions and destroy, and hwloc inside of the program.
set -u
lib=$1
here=$(cd "$(dirname "$0")" && pwd)
cache=${XPMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xpmem}/hwloc
export HWLOC_PLUGINS_PATH=/nonexistent HWLOC_HIDE_ERRORS=2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
try() { # try NAME COMMAND...
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL $name: status $?: $out"
    fi
}
own=$(ldconfig -p | awk '/libhwloc\.so\.15 / { print $NF; exit }')
[ -n "$own" ] || own=$(cc -print-file-name=libhwloc.so.15)
# copy FROM LETTER: a copy under another name, file and soname, as in a wheel.
copy() {
    sed "s/libhwloc\.so\.15/libtopo$2.so.15/g" "$1" >"$work/libtopo$2.so.15" &&
        cc -O1 -w -shared -fPIC -DMODULE -o "$work/module$2.so" "$here/copies.c" \
            "$work/libtopo$2.so.15" -Wl,-rpath,"$work" -ldl
}
cc -O1 -w -DHOST -o "$work/host" "$here/copies.c" -ldl || exit 1
copy "$own" A && copy "$own" B || exit 1
modules=(libtopoA "$work/moduleA.so" libtopoB "$work/moduleB.so")
# Another layout beside ours: its own functions serve it.
if [ -e "$cache/pci32/done" ]; then
    copy "$(find "$cache/pci32" -name 'libhwloc.so.15' | head -n 1)" C &&
        modules+=(libtopoC "$work/moduleC.so")
fi
try "modules with a copy each" env LD_PRELOAD="$lib" "$work/host" "${modules[@]}"
try "and one's file for the other" env COPIES_CROSS=1 LD_PRELOAD="$lib" "$work/host" "${modules[@]:0:4}"
try "modules without us" "$work/host" libtopoA "$work/moduleA.so"

# Seen by the whole process: as the linker has it, all use this one then.
cc -O1 -w -o "$work/program" "$here/copies.c" "$work/libtopoA.so.15" -Wl,-rpath,"$work" -ldl
try "a program with a copy of another name" env LD_PRELOAD="$lib" "$work/program" libtopoA 0
try "and another preloaded" env LD_PRELOAD="$lib $work/libtopoB.so.15" "$work/program" libtopoB 0

# Functions with a prefix, as PMIx and Open MPI embed hwloc.
if [ -e "$cache/prefixed/done" ]; then
    sed 's/libhwloc\.so\.15/libopal.so\x00\x00\x00\x00/g' "$cache/prefixed/libhwloc.so.15" >"$work/libopal.so"
    nm -D --defined-only "$work/libopal.so" |
        awk '$3 ~ /^opal_hwloc_/ && $3 !~ /shmem/ { print "#define", substr($3, 6), $3 }' >"$work/names.h"
    cc -O1 -w -include "$work/names.h" -o "$work/prefixed" "$here/copies.c" "$work/libopal.so" \
        "$lib" -Wl,-rpath,"$work" -ldl &&
        try "written with a prefix" env LD_LIBRARY_PATH="$(dirname "$lib")" "$work/prefixed" libopal 0
    try "a prefixed copy beside" env LD_PRELOAD="$lib $work/libopal.so" "$work/program" libtopoA 0
fi
# Inside of the program it serves itself, wherever we stand: what destroys a
# topology is in one part of it with what shares one.
archive=$(cc -print-file-name=libhwloc.a)
system="-lm -lpthread -ldl $(ldconfig -p | awk '/libudev\.so\.1 / { print $NF; exit }')"
if [ -e "$archive" ]; then
    for link in "$archive $lib" "$lib $archive" "-rdynamic $lib $archive"; do
        # shellcheck disable=SC2086
        if cc -O1 -w -o "$work/static" "$here/copies.c" $link $system 2>"$work/log"; then
            rm -f "$work/debug"
            try "libhwloc.a: $link" env LD_LIBRARY_PATH="$(dirname "$lib")" LD_PRELOAD="$lib" \
                XPMEM_DEBUG=1 XPMEM_DEBUG_FILE="$work/debug" "$work/static" static 0
            try "not by us" test ! -e "$work/debug"
        else
            echo "no program with this libhwloc.a: $(tail -n 1 "$work/log")"
        fi
    done
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
