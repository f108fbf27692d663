#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/hwloc/valgrind.sh EXCHANGE LIBXPMEM: memory errors and leaks of writing
# and adopting, ours with each release of libhwloc that there is and with what
# stock and ours wrote, with hwloc's own check on; on several machines, as many at
# a time as there are processors.
set -u
. "$(dirname "$0")/matrix.sh"
command -v valgrind >/dev/null || { echo "valgrind is not installed"; exit 77; }
grind=(-q "--suppressions=$(dirname "$0")/valgrind.supp" --leak-check=full --errors-for-leak-kinds=definite,indirect --error-exitcode=9)

cell() { # cell NAME RELEASE stock|ours ARGUMENTS...: under a valgrind that knows that release's libc
    local name=$1 own=$cache/$2/valgrind/usr
    shift
    local under=(env HWLOC_DEBUG_CHECK=1)
    if [ "$1" = here ]; then
        under+=(valgrind "${grind[@]}")
    else
        under+=("VALGRIND_LIB=$own/libexec/valgrind" "$own/bin/valgrind" "${grind[@]}")
    fi
    if run "$@" >"$work/log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL $name: $(head -n 20 "$work/log")"
    fi
}
machine() { # machine NAME VARIABLE=VALUE
    beside cells "$@"
}
cells() { # cells FOLDER NAME VARIABLE=VALUE: its account is left in FOLDER
    local work=$1 release passed=0 failed=0 skipped=0
    shift
    export "${2?}"
    for release in here trixie sid; do
        if [ $release != here ] && [ ! -e "$cache/$release/valgrind/done" ]; then
            skipped=$((skipped + 1))
            continue
        fi
        run $release stock write "$work/stock" 300000000000 x || echo "stock does not write"
        cell "$1: ours/$release writes" $release ours write "$work/ours" 300000000000 x
        cell "$1: ours to ours/$release" $release ours adopt "$work/ours" 300000000000 ours-ours
        cell "$1: stock to ours/$release" $release ours adopt "$work/stock" 300000000000 stock-ours
        cell "$1: ours to stock/$release" $release stock adopt "$work/ours" 300000000000 ours-stock
    done
    echo "$passed $failed $skipped" >"$work/account"
}
machine "this machine" X=
machine "packages" 'EXCHANGE_SYNTHETIC=pack:2 [numa][numa] l3:2 core:3 pu:1'
for name in 8intel64-4n2t-memattrs fakecpukinds fakeheterodistances 96em64t-4n4d3ca2co-pci \
    64intel64-fakeKNL-SNC4-hybrid power8gpudistances; do
    [ ! -e "$cache/xml/$name.xml" ] || machine $name "EXCHANGE_XML=$cache/xml/$name.xml"
done
sum
