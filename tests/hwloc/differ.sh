#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/hwloc/differ.sh DIFFER LIBXPMEM MACHINES SEED: random machines, stock
# beside ours, with each release of libhwloc that there is.
set -u
differ=$1 lib=$2 machines=$3 seed=$4
cache=${XPMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xpmem}/hwloc
export HWLOC_PLUGINS_PATH=/nonexistent HWLOC_HIDE_ERRORS=2
# Real machines among them.
[ ! -e "$cache/xml/done" ] || export DIFFER_XML=${DIFFER_XML-$cache/xml}
passed=0 failed=0
for release in here trixie sid; do
    run=("$differ")
    if [ $release != here ]; then
        [ -e "$cache/$release/done" ] || continue
        libs=$(dirname "$(find "$cache/$release" -name 'libhwloc.so.15' | head -n 1)")
        libc=$(dirname "$(find "$cache/$release" -name 'libc.so.6' | head -n 1)")
        run=("$libc"/ld-linux-*.so.2 --library-path "$libs:$libc" "$differ")
    fi
    out=$("${run[@]}" "$lib" "$machines" "$seed" 2>&1)
    printf '%s: %s\n' $release "$out"
    line=${out##*$'\n'}
    # shellcheck disable=SC2086
    set -- ${line//[!0-9]/ }
    passed=$((passed + ${1:-0})) failed=$((failed + ${2:-1}))
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
