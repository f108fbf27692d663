#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/hwloc/odd.sh FOLDER LIBXPMEM: odd processes, sandboxes, files and machines, stock
# beside ours, with each release of libhwloc that there is.
set -u
programs=$1 lib=$2
cache=${XPMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xpmem}/hwloc
export HWLOC_PLUGINS_PATH=/nonexistent HWLOC_HIDE_ERRORS=2
passed=0 failed=0
for release in here trixie sid; do
    loader=()
    if [ $release != here ]; then
        [ -e "$cache/$release/done" ] || continue
        libs=$(dirname "$(find "$cache/$release" -name 'libhwloc.so.15' | head -n 1)")
        libc=$(dirname "$(find "$cache/$release" -name 'libc.so.6' | head -n 1)")
        loader=("$libc"/ld-linux-*.so.2 --library-path "$libs:$libc")
    fi
    for program in odd_process odd_sandbox odd_file odd_machine; do
        out=$(${loader[@]+"${loader[@]}"} "$programs/$program" "$lib" 2>/dev/null)
        printf '%s, %s: %s\n' $release $program "$out"
        line=${out##*$'\n'}
        # shellcheck disable=SC2086
        set -- ${line//[!0-9]/ }
        passed=$((passed + ${1:-0})) failed=$((failed + ${2:-1}))
    done
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
