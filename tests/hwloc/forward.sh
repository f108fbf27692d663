#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/hwloc/forward.sh LIBXPMEM EXCHANGE: libraries of other layouts are found out, and
# the calls forwarded to them. By number: hwloc 2.0 to 2.3 and 3. By what
# they do: builds with the number of 2.4 and other structures. Real ones are those of
# tests/hwloc/versions.sh: a wider PCI domain, and one for debugging.
set -u
lib=$1 exchange=$2
cache=${XPMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xpmem}/hwloc
export HWLOC_PLUGINS_PATH=/nonexistent HWLOC_HIDE_ERRORS=2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
cc -O1 -Wall -shared -fPIC -o "$work/libhwloc.so.15" "$here/fake.c" &&
    cc -O1 -Wall -o "$work/forward" "$here/forward.c" -ldl || exit 1
try() { # try ABI ODD forwarded|served
    local out
    out=$(FAKE_ABI=$1 FAKE_ODD=$2 "$work/forward" "$work/libhwloc.so.15" "$lib" "$3" 2>&1)
    if [[ $out == *" passed, 0 failed" ]]; then
        passed=$((passed + ${out%% *}))
    else
        failed=$((failed + 1))
        echo "FAIL layout $1${2:+, other $2}, $3: $out"
    fi
}
# The stand-in itself is taken for what it imitates.
try 20400 '' served
for abi in 20000 20100 20300 30000 20500 0; do try $abi '' forwarded; done
for odd in userdata support levels types index root object bitmap magic pci; do
    try 20400 $odd forwarded
done

# real BUILD COMMAND...: over that build and our library; it must say that
# stock's functions serve.
real() {
    local build=$1
    shift
    rm -f "$work/log"
    if LD_LIBRARY_PATH=$cache/$build LD_PRELOAD=$lib XPMEM_DEBUG=1 XPMEM_DEBUG_FILE=$work/log \
        "$exchange" "$@" >"$work/out" 2>&1 && grep -q 'not ours: stock' "$work/log" &&
        ! grep -q 'hwloc: adopted' "$work/log"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL $build $1: $(tail -n 5 "$work/out" "$work/log" 2>&1)"
    fi
}
for build in pci32 debug; do
    [ -e "$cache/$build/done" ] || { echo "no $build build of libhwloc here"; continue; }
    for machine in 'X=' "EXCHANGE_XML=$cache/xml/96em64t-4n4d3ca2co-pci.xml"; do
        export "${machine?}"
        real $build write "$work/t" 300000000000 stock-stock
        # Its own stock adopts what came out, and what its stock wrote is adopted.
        if LD_LIBRARY_PATH=$cache/$build "$exchange" adopt "$work/t" 300000000000 stock-stock \
            >"$work/out" 2>&1; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            echo "FAIL $build: its stock does not adopt: $(tail -n 5 "$work/out")"
        fi
        LD_LIBRARY_PATH=$cache/$build "$exchange" write "$work/t" 300000000000 stock-stock \
            >/dev/null 2>&1
        real $build adopt "$work/t" 300000000000 stock-stock
        unset "${machine%%=*}"
    done
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
