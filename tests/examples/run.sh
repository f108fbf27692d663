#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Runs what `make examples` has built, and that examples stay short.
. "$(dirname "$0")/../../ci/lib.sh"
E=$TOP/build/examples
export XPMEM_BACKEND=${XPMEM_BACKEND:-user}

# The owner prints the attacher's command line and waits for a line.
pair() {
    local out=$1 segid status=0
    mkfifo "$out.orders"
    "$E/owner" <"$out.orders" >"$out" &
    local owner=$!
    exec 7>"$out.orders"
    for _ in $(seq 100); do
        segid=$(sed -n 's|^./attacher ||p' "$out")
        [ -z "$segid" ] || break
        kill -0 $owner 2>/dev/null || break
        sleep 0.05
    done
    "$E/attacher" "${segid:-none}" >"$out.attacher" || status=$?
    echo >&7
    exec 7>&-
    wait $owner || status=$?
    cat "$out" "$out.attacher"
    [ $status = 0 ] &&
        grep -qx 'The owner says: Hello from the owner.' "$out.attacher" &&
        grep -qx 'The buffer: Greetings from the attacher.' "$out"
}
export -f pair
export E
run_case "owner and attacher" 60 bash -c 'pair "$1"' - "$SCRATCH/pair"
window() { "$E/window" | tee /dev/stderr | grep -qx '1000 of 1000 numbers are one more'; }
export -f window
run_case "window" 60 bash -c window

pingpong() {
    command -v mpirun >/dev/null || { echo "no mpirun"; exit 77; }
    [ -x "$E/pingpong_mpi" ] || { echo "no mpicc"; exit 77; }
    local options=()
    if mpirun --version 2>/dev/null | grep -q 'Open MPI'; then options=(--oversubscribe); fi
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
        mpirun "${options[@]}" -n 2 "$E/pingpong_mpi" | tee /dev/stderr | grep -q '10000 round trips'
}
export -f pingpong
run_case "MPI ping-pong" 120 bash -c pingpong

short() {
    local file
    for file in owner attacher; do
        [ "$(wc -l <"$TOP/examples/$file.c")" -lt 60 ] || { echo "$file.c has 60 lines or more"; return 1; }
    done
}
export -f short
run_case "examples are short" 10 bash -c short
finish
