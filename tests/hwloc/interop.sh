#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/hwloc/interop.sh EXCHANGE LIBXPMEM: writers and adopters, stock and
# ours, each with each release of libhwloc that there is, on several machines.
# tests/hwloc/versions.sh fetches releases and machines; without it this
# system's release and synthetic machines are what there is. As many machines
# at a time as there are processors.
set -u
. "$(dirname "$0")/matrix.sh"
# hwloc checks each topology that it loads, copies or adopts.
export HWLOC_DEBUG_CHECK=1

releases=(here)
for suite in trixie sid; do
    [ -e "$cache/$suite/done" ] && releases+=("$suite")
done

# matrix NAME RELEASES...: all pairs on the machine that the environment names,
# beside others.
matrix() {
    beside pairs "$@"
}

pairs() { # pairs FOLDER NAME RELEASES...: its account is left in FOLDER
    local work=$1 name=$2 writer adopter w a log cross passed=0 failed=0
    shift 2
    for writer in "$@"; do
        for w in stock ours; do
            if ! run "$writer" $w write "$work/t" 300000000000 x >"$work/log" 2>&1; then
                failed=$((failed + 1))
                echo "FAIL $name: $w/$writer does not write: $(tail -n 3 "$work/log")"
                continue
            fi
            for adopter in "$@"; do
                for a in stock ours; do
                    # Stock 2.15's own check aborts on what earlier stock
                    # releases write: nothing to compare with.
                    [ $w-$a = stock-stock ] && [ "$adopter" = sid ] && [ "$writer" != sid ] &&
                        continue
                    cross=
                    [ "$writer" = "$adopter" ] || cross=1
                    if EXCHANGE_CROSS=$cross run "$adopter" $a adopt "$work/t" 300000000000 $w-$a >"$work/log" 2>&1; then
                        passed=$((passed + 1))
                    else
                        failed=$((failed + 1))
                        log=$(tail -n 5 "$work/log")
                        echo "FAIL $name: $w/$writer to $a/$adopter: $log"
                    fi
                done
            done
            rm -f "$work"/t "$work"/t.*
        done
    done
    echo "$name: $passed passed, $failed failed"
    echo "$passed $failed" >"$work/account"
}

with() { # with VARIABLE VALUE NAME RELEASES...
    local variable=$1 value=$2
    shift 2
    export "$variable=$value"
    matrix "$@"
    unset "$variable"
}

echo "releases: ${releases[*]}"
matrix "this machine" "${releases[@]}"
with EXCHANGE_SYNTHETIC "pack:2 [numa(memory=68719476736)] l3:8 l2:8 l1d:1 l1i:1 core:1 pu:2" \
    "256 PUs" "${releases[@]}"
with EXCHANGE_SYNTHETIC "die:2 [numa][numa] group:2 l3:2 core:3 pu:1" "groups" "${releases[@]}"
for name in 64intel64-fakeKNL-SNC4-hybrid 192em64t-12gr2n8c2t power8gpudistances \
    8intel64-4n2t-memattrs fakecpukinds fakeheterodistances 96em64t-4n4d3ca2co-pci \
    16intel64-manyVFs; do
    [ -e "$cache/xml/$name.xml" ] || continue
    with EXCHANGE_XML "$cache/xml/$name.xml" "$name" "${releases[@]}"
done
# The rest of the machines between here's stock and ours.
for xml in "$cache"/xml/*.xml; do
    case $xml in
    *'*.xml' | *v1.xml | *fakeKNL-SNC4-hybrid.xml | *192em64t-12* | *power8* | *memattrs* | \
        *fakecpukinds* | *fakeheterod* | *96em64t* | *manyVFs*) continue ;;
    # Stock itself aborts on exporting these as synthetic.
    *rootattachednumas.xml) export EXCHANGE_NO_SYNTHETIC=1 ;;
    esac
    with EXCHANGE_XML "$xml" "$(basename "$xml")" here
    unset EXCHANGE_NO_SYNTHETIC
done
# What Linux shows of others: POWER with 256 processors, memory of GPUs, tiers
# of memory, initiators, and the rest.
for snapshot in "$cache"/linux/*/; do
    [ -d "$snapshot" ] || continue
    name=$(basename "$snapshot")
    where=(here)
    case $name in
    256ppc-* | nvidiagpu* | fakeheteromemtiers | fakememinitiators* | 64intel64-fakeKNL-A2A* | \
        48amd64-4d2n6c-sparse) where=("${releases[@]}") ;;
    esac
    with HWLOC_FSROOT "$snapshot" "$name" "${where[@]}"
done
"$(dirname "$0")/dgx2.sh" >"$top/dgx2.xml"
with EXCHANGE_XML "$top/dgx2.xml" "like a DGX-2" "${releases[@]}"
# Others, of which no package has a copy.
for xml in ${XPMEM_HWLOC_XML:-}; do
    with EXCHANGE_XML "$xml" "$(basename "$xml")" "${releases[@]}"
done
"$(dirname "$0")/uneven.sh" >"$top/uneven.xml"
with EXCHANGE_XML "$top/uneven.xml" "uneven" "${releases[@]}"
with EXCHANGE_SYNTHETIC "pack:4 [numa] l3:16 l2:20 l1d:1 core:1 pu:8" "10240 PUs" "${releases[@]}"
# Sets of many words: a flat machine, one number after another and not, and
# processors that are only children.
with EXCHANGE_SYNTHETIC "pu:700" "flat" "${releases[@]}"
with EXCHANGE_SYNTHETIC "core:350 pu:2(indexes=core:pu)" "interleaved" "${releases[@]}"
with EXCHANGE_SYNTHETIC "core:700 pu:1" "only children" "${releases[@]}"
sum
