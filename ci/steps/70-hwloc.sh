#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# hwloc topologies in shared memory: the calls, exchange with stock releases,
# damaged files, the tool.
set -u
. "$(dirname "$0")/../lib.sh"
cd "$TOP" || exit 1
if ! echo '#include <hwloc.h>' | cc -x c -fsyntax-only - 2>/dev/null; then
    skip hwloc "no hwloc.h: ci/setup.sh installs libhwloc-dev"
    finish
fi
lib=$TOP/build/lib/libxpmem.so.0
export HWLOC_PLUGINS_PATH=/nonexistent HWLOC_HIDE_ERRORS=2
export XPMEM_CACHE=${XPMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xpmem}

if ! out=$(make hwloc-tests 2>&1); then
    not_ok "make hwloc-tests" "$out"
    finish
fi
bin=$TOP/build/tests/hwloc

run_case "the header alone and beside hwloc's" 60 tests/hwloc/headers.sh
if readelf -d "$lib" | grep -q 'NEEDED.*hwloc'; then
    not_ok "not linked with libhwloc"
else
    ok "not linked with libhwloc"
fi
run_suite "the calls" 120 env LD_LIBRARY_PATH="$TOP/build/lib" LD_PRELOAD="$lib" "$bin/api"
run_suite "the calls, a small machine" 120 env API_SYNTHETIC='numa core:2 pu:2' \
    LD_LIBRARY_PATH="$TOP/build/lib" LD_PRELOAD="$lib" "$bin/api"
run_suite "the calls, as an ordinary user" 120 ${AS_USER[@]+"${AS_USER[@]}"} env \
    LD_LIBRARY_PATH="$TOP/build/lib" LD_PRELOAD="$lib" "$bin/api"
run_suite "who asks for a memory attribute" 120 env LD_PRELOAD="$lib" "$bin/initiators"
run_suite "again and again" 120 env LD_PRELOAD="$lib" "$bin/again"
run_suite "no more than stock needs" 120 env LD_LIBRARY_PATH="$TOP/build/lib" LD_PRELOAD="$lib" \
    "$bin/limits"
run_suite "each allocation fails once" 120 env LD_LIBRARY_PATH="$TOP/build/lib" \
    LD_PRELOAD="$bin/noalloc.so $lib" "$bin/limits"
run_case "a full file system" 60 env LD_PRELOAD="$lib" "$bin/full"
run_suite "without libhwloc, and with a local one" 60 "$bin/local" "$lib"
run_suite "xpmem topology" 60 tests/hwloc/tool.sh "$TOP/build/bin/xpmem"

nice tests/hwloc/versions.sh
run_suite "several copies of hwloc" 120 tests/hwloc/copies.sh "$lib"
run_suite "odd processes, files and machines" 300 tests/hwloc/odd.sh "$bin" "$lib"
run_suite "random machines" 400 tests/hwloc/differ.sh "$bin/differ" "$lib" 150 1
run_suite "other layouts are stock's" 120 tests/hwloc/forward.sh "$lib" "$bin/exchange"
run_suite "stock and ours, all pairs" 900 tests/hwloc/interop.sh "$bin/exchange" "$lib"

run_case "Open MPI 5: each rank adopts twice" 240 tests/hwloc/openmpi.sh "$lib"
run_case "Open MPI 5.0.7: ranks adopt where stock is refused" 400 tests/hwloc/openmpi-trixie.sh "$lib"

if command -v valgrind >/dev/null; then
    run_suite "memory errors and leaks" 400 tests/hwloc/valgrind.sh "$bin/exchange" "$lib"
else
    skip valgrind "not installed"
fi

run_suite "a file that changes meanwhile" 300 env LD_PRELOAD="$lib" "$bin/race" 3000 1

# Damaged files: eight, half of them written by stock.
files=()
damage() { # damage NAME stock|ours VARIABLE=VALUE
    local preload=$lib
    [ "$2" = stock ] && preload=
    if env "$3" LD_PRELOAD=$preload "$bin/exchange" write "$SCRATCH/d-$1" 300000000000 x; then
        files+=("$SCRATCH/d-$1")
    fi
}
damage 256 ours 'EXCHANGE_SYNTHETIC=pack:2 [numa(memory=68719476736)] l3:8 l2:8 l1d:1 l1i:1 core:1 pu:2'
damage groups stock 'EXCHANGE_SYNTHETIC=die:2 [numa][numa] group:2 l3:2 core:3 pu:1'
damage native ours X=1
damage native-stock stock X=1
xml=$XPMEM_CACHE/hwloc/xml
if [ -e "$xml/done" ]; then
    damage memattrs stock "EXCHANGE_XML=$xml/8intel64-4n2t-memattrs.xml"
    damage kinds ours "EXCHANGE_XML=$xml/fakecpukinds.xml"
    damage pci ours "EXCHANGE_XML=$xml/96em64t-4n4d3ca2co-pci.xml"
    damage knl stock "EXCHANGE_XML=$xml/64intel64-fakeKNL-SNC4-hybrid.xml"
else
    damage deep ours 'EXCHANGE_SYNTHETIC=pack:2 [numa] group:2 group:2 l3:2 l2:2 core:2 pu:2'
    damage deep-stock stock 'EXCHANGE_SYNTHETIC=pack:2 [numa] group:2 group:2 l3:2 l2:2 core:2 pu:2'
    damage flat ours 'EXCHANGE_SYNTHETIC=pu:100'
    damage flat-stock stock 'EXCHANGE_SYNTHETIC=pu:100'
fi
# HWLOC_DEBUG_CHECK: numbers that do not fit each other are then refused, too.
run_suite "damaged files" 600 env LD_PRELOAD="$lib" HWLOC_DEBUG_CHECK=1 "$bin/mutate" 12500 7 "${files[@]}"
finish
