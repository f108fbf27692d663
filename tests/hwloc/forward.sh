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
passed=0 failed=0 fake=$work/libhwloc.so.15
cc -O1 -Wall -shared -fPIC -o "$work/libhwloc.so.15" "$here/fake.c" &&
    cc -O1 -Wall -o "$work/forward" "$here/forward.c" -ldl || exit 1
try() { # try ABI ODD forwarded|served
    local out
    out=$(FAKE_ABI=$1 FAKE_ODD=$2 "$work/forward" "$fake" "$lib" "$3" 2>&1)
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
for odd in userdata support levels types index root object bitmap pci; do
    try 20400 $odd forwarded
done
# A release to come may lack functions that our code needs of a library.
fake=$work/libhwloc.so.16
cc -O1 -Wall -shared -fPIC -Dhwloc_obj_attr_snprintf=hwloc_new_snprintf \
    -Dhwloc_topology_get_support=hwloc_new_support -o "$fake" "$here/fake.c" || exit 1
for abi in 30000 20400; do try $abi '' forwarded; done

# over BUILD stock|ours WHO COMMAND...: exchange over that build. WHO is who
# has to serve, by what our library says: "stock" if not it itself.
over() {
    local build=$1 preload=$lib who=$3 said
    [ "$2" = ours ] || preload=
    shift 3
    rm -f "$work/log"
    if LD_LIBRARY_PATH=$cache/$build LD_PRELOAD=$preload XPMEM_DEBUG=1 \
        XPMEM_DEBUG_FILE=$work/log "$exchange" "$@" >"$work/out" 2>&1; then
        said=ours
        [ -n "$preload" ] || said=stock
        ! grep -q "not ours: stock" "$work/log" 2>/dev/null || said=stock
        if [ $said = "$who" ]; then
            passed=$((passed + 1))
            return
        fi
        echo "$said served" >>"$work/out"
    fi
    failed=$((failed + 1))
    echo "FAIL $build $*: $(tail -n 5 "$work/out" "$work/log" 2>&1)"
}
# A build for debugging has our layout, and marks in it that it insists on.
for build in pci32:stock debug:ours; do
    who=${build#*:} build=${build%:*}
    [ -e "$cache/$build/done" ] || { echo "no $build build of libhwloc here"; continue; }
    for machine in 'X=' "EXCHANGE_XML=$cache/xml/96em64t-4n4d3ca2co-pci.xml"; do
        export "${machine?}"
        over $build ours $who write "$work/t" 300000000000 x
        over $build stock stock adopt "$work/t" 300000000000 $who-stock
        over $build ours $who adopt "$work/t" 300000000000 $who-$who
        over $build stock stock write "$work/t" 300000000000 x
        over $build ours $who adopt "$work/t" 300000000000 stock-$who
        unset "${machine%%=*}"
    done
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
