#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/hwloc/tool.sh XPMEM: the subcommand `xpmem topology`.
set -u
xpmem=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
passed=0 failed=0
expect() { # expect NAME STATUS COMMAND...: what it prints is in $out
    local name=$1 status=$2 got=0
    shift 2
    out=$("$@" 2>&1) || got=$?
    if [ $got = "$status" ]; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAIL $name: status $got: $out"
    fi
}
has() {
    case $out in *"$2"*) passed=$((passed + 1)) ;; *)
        failed=$((failed + 1))
        echo "FAIL $1: no \"$2\" in: $out"
        ;;
    esac
}
expect write 0 "$xpmem" topology write here
has write "address 0x"
expect check 0 "$xpmem" topology check here
has check "objects"
# A terabyte of nothing behind the header's end is not read, nor is a hole.
cp here far && truncate -s 1T far
expect "a sparse file" 0 prlimit --as=2000000000 "$xpmem" topology check far
expect synthetic 0 "$xpmem" topology write syn --address 0x300000000000 \
    --synthetic 'pack:2 [numa(memory=1073741824)] l3:2 core:4 pu:2'
has synthetic "address 0x300000000000"
expect show 0 "$xpmem" topology show syn
has show "NUMANode L#1 P#1 (1GB)"
has show "PU L#31 P#31"
expect svg 0 "$xpmem" topology show syn --svg syn.svg
out=$(cat syn.svg)
has svg "PU P#31"
has svg "</svg>"
if command -v xmllint >/dev/null; then expect "svg is XML" 0 xmllint --noout syn.svg; fi
expect "bad description" 1 "$xpmem" topology write bad --synthetic 'nonsense:x'
expect "bad address" 1 "$xpmem" topology write bad --address 12345
expect "no file" 1 "$xpmem" topology check nothing
head -c 3000 syn >short
expect "short file" 1 "$xpmem" topology check short
has "short file" "shorter"
cp syn bent
printf '\377\377\377\377' | dd of=bent bs=1 seek=1096 conv=notrunc 2>/dev/null
expect "bent file" 1 "$xpmem" topology check bent
expect "bent file is not shown" 1 "$xpmem" topology show bent
sleep 60 &
sleeper=$!
expect hole 0 "$xpmem" topology hole --pid $$ --pid $sleeper --length 1000000
has hole 0x
kill $sleeper
expect "no process" 1 "$xpmem" topology hole --pid 67108863 --length 4096
echo "$passed passed, $failed failed"
[ $failed = 0 ]
