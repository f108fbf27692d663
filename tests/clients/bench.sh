#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Open MPI's vader over XPMEM, beside CMA and beside two copies through shared memory ("none").
#
# usage: bench.sh [-r ROUNDS] [-w]     -w: the sender writes its buffer anew before each message
# The three take turns, ROUNDS times each, so that a load on the machine meets all of them. Of each
# size the least time of all rounds and the median of the rounds' medians are shown. Nothing is
# gated on a time: only wrong data, a crash, or messages that did not go through attachments fail.
set -u
. "$(dirname "$0")/lib.sh"

rounds=5
rewrite=()
while [ $# -gt 0 ]; do
    case $1 in
    -r) rounds=$2; shift 2 ;;
    -w) rewrite=(-w); shift ;;
    -h | --help) sed -n '3,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) say "bench.sh: unknown option $1"; exit 2 ;;
    esac
done

"$CLIENTS_DIR/prepare.sh" || exit
. "$OUT/settings"
. "$CLIENTS_DIR/mpi.sh"
LOGS=$OUT/logs-bench
rm -rf "$LOGS"
mkdir -p "$LOGS"
: >"$LOGS/figures"

for round in $(seq "$rounds"); do
    for copy in xpmem cma none; do
        mpi 2 "$copy" "$OUT/bench" "${rewrite[@]}"
        judge=any
        [ "$copy" != xpmem ] || judge=used
        run_case "$copy-$round" 180 $judge 2 '^bench 4194304' "${MPI[@]}" >"$LOGS/verdict" || {
            cat "$LOGS/verdict"
            exit 1
        }
        sed -n "s/^bench /$copy /p" "$LOGS/$copy-$round/output" >>"$LOGS/figures"
    done
done

awk -v rounds="$rounds" -v how="${rewrite[*]}" '
    {
        key = $1 " " $2
        if (!(key in least) || $3 < least[key]) least[key] = $3
        medians[key, ++n[key]] = $4
        if (!($2 in seen)) { seen[$2] = 1; sizes[++count] = $2 }
    }
    function median(key,    i, j, t, m) {
        m = n[key]
        for (i = 1; i <= m; i++) v[i] = medians[key, i]
        for (i = 2; i <= m; i++) for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
        return v[int((m + 1) / 2)]
    }
    function named(size) { return size < 1048576 ? size / 1024 " KiB" : size / 1048576 " MiB" }
    END {
        printf "vader ping-pong, half a round trip in microseconds, %d rounds each%s\n", rounds, how ? ", buffer written anew" : ""
        printf "%9s |%9s %9s %9s |%9s %9s %9s | %8s %8s\n", "", "least", "", "", "median", "", "", "cma/", "none/"
        printf "%9s |%9s %9s %9s |%9s %9s %9s | %8s %8s\n", "size", "xpmem", "cma", "none", "xpmem", "cma", "none", "xpmem", "xpmem"
        slower = ""
        for (i = 1; i <= count; i++) {
            s = sizes[i]; x = "xpmem " s; c = "cma " s; o = "none " s
            printf "%9s |%9.2f %9.2f %9.2f |%9.2f %9.2f %9.2f | %7.2fx %7.2fx\n", named(s), least[x], least[c], least[o],
                median(x), median(c), median(o), least[c] / least[x], least[o] / least[x]
            if (least[x] > least[o]) slower = slower " " named(s) ","
            if (s == 4096) small = least[c] / least[x]
            if (s == 4194304) large = least[c] / least[x]
        }
        printf "against CMA (of the least times): 4 KiB %.2fx, wanted 2x; 4 MiB %.2fx, wanted 1.4x\n", small, large
        print slower ? "slower than two copies at" substr(slower, 1, length(slower) - 1) : "never slower than two copies"
    }' "$LOGS/figures"
grep -h 'xpmem: stats' "$LOGS/xpmem-$rounds/stats"
