#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Real MPI libraries over XPMEM: every byte checked, every attachment counted, nothing left behind.
#
# usage: run.sh [--as root|user] [--seed N] [--steps N] [GROUP...]
#   groups: vader netpipe mpi4py ucx impi off   (all when none is named)
# As root every case runs as root and again as uid 65534; an ordinary user runs its own.
# XPMEM_BACKEND is passed on, so the same cases serve the kernel module.
set -u
. "$(dirname "$0")/lib.sh"

only=
seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
steps=200
groups=()
while [ $# -gt 0 ]; do
    case $1 in
    --as) only=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    --steps) steps=$2; shift 2 ;;
    -h | --help) sed -n '3,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) say "run.sh: unknown option $1"; exit 2 ;;
    *) groups+=("$1"); shift ;;
    esac
done
[ ${#groups[@]} -gt 0 ] || groups=(vader netpipe mpi4py ucx impi off)

"$CLIENTS_DIR/prepare.sh" || exit
. "$OUT/settings"
IMPI='' impi_why=
if impi_why=$("$CLIENTS_DIR/prepare.sh" impi 2>&1); then . "$OUT/settings-impi"; fi
rm -rf "$LOGS"
mkdir -p "$LOGS"

. "$CLIENTS_DIR/mpi.sh"

PINGPONG=(-n "$steps" -s "$seed")
RIGHT='every byte right'

group_vader() {
    local ranks
    for ranks in 2 4; do
        mpi $ranks xpmem "$OUT/pingpong" "${PINGPONG[@]}"
        run_case "$1-vader-pingpong-$ranks" 120 used $ranks "$RIGHT" "${MPI[@]}"
    done
    # A process that forks, and whose other threads free and map all the time.
    mpi 2 xpmem "$OUT/pingpong" "${PINGPONG[@]}" -f 7
    run_case "$1-vader-pingpong-fork-2" 120 used 2 "$RIGHT" "${MPI[@]}"
    mpi 2 xpmem "$OUT/pingpong" "${PINGPONG[@]}" -t 2
    run_case "$1-vader-pingpong-threads-2" 120 used 2 "$RIGHT" "${MPI[@]}"
    # Preloaded, the library sees the program's own calls.
    mpi 4 xpmem -x "LD_PRELOAD=$LIBDIR/libxpmem.so.0" "$OUT/pingpong" "${PINGPONG[@]}" -f 11 -t 1
    run_case "$1-vader-pingpong-preloaded-4" 180 used 4 "$RIGHT" "${MPI[@]}"
    finalize_late "$1"
}

# A rank that is late in MPI_Finalize: without fast boxes nothing happens to it; with them it ends as
# README.md tells, or well, and not in another way.
finalize_late() {
    mpi 2 xpmem -x "LD_PRELOAD=$OUT/late.so" "$OUT/pingpong" -n 40 -s "$seed"
    OMPI_MCA_btl_vader_fbox_max=0 run_case "$1-vader-finalize-no-fbox" 120 used 2 "$RIGHT" "${MPI[@]}"
    local name=$1-vader-finalize-late why=
    run_once "$name" 120 any 2 "$RIGHT" "${MPI[@]}"
    if [ -z "$why" ] || { ended_polling_a_peer "$LOGS/$name" && grep -q "$RIGHT" "$LOGS/$name/output"; }; then
        pass "$name"
    else
        fail "$name" "$why"
    fi
}

group_netpipe() {
    mpi 2 xpmem NPopenmpi -l 4096 -u 4194304 -p 0 -n 60
    run_case "$1-vader-netpipe" 180 used 2 '4194304 bytes' "${MPI[@]}"
    mpi 2 xpmem NPopenmpi -i -l 4096 -u 4194304 -p 0 -n 60
    run_case "$1-vader-netpipe-integrity" 180 used 2 'Integrity check passed|4194304' "${MPI[@]}"
}

group_mpi4py() {
    local tests=$OUT/src/mpi4py/test/runtests.py
    if [ ! -e "$tests" ]; then
        skip "$1-vader-mpi4py" "its test-suite could not be fetched"
        return
    fi
    local p2p=(-i p2p_buf) coll=(-i cco_buf -i cco_nb_buf -i cco_vec -i cco_nb_vec -i cco_ngh_buf)
    # The messages are small: with the second setting they go through attachments all the same.
    mpi 2 xpmem /usr/bin/python3 "$tests" --no-builddir "${p2p[@]}"
    run_case "$1-vader-mpi4py-p2p-2" 180 used 2 '^OK' "${MPI[@]}"
    mpi 2 xpmem --mca btl_vader_eager_limit 160 --mca btl_vader_max_inline_send 64 \
        /usr/bin/python3 "$tests" --no-builddir "${p2p[@]}" "${coll[@]}"
    run_case "$1-vader-mpi4py-all-direct-2" 240 used 2 '^OK' "${MPI[@]}"
    mpi 4 xpmem /usr/bin/python3 "$tests" --no-builddir "${coll[@]}"
    run_case "$1-vader-mpi4py-collective-4" 300 used 4 '^OK' "${MPI[@]}"
}

perftest() { # NAME TEST SIZE ITERATIONS
    local port=$((20000 + RANDOM % 20000))
    # shellcheck disable=SC2016
    run_case "$1" 120 used 2 'Final:' env "LD_PRELOAD=$OUT/libuct_xpmem.so.0" UCX_TLS=xpmem,self \
        bash -c '
            ucx_perftest -p "$1" >server 2>&1 &
            server=$!
            for try in 1 2 3 4 5 6 7 8 9 10; do
                sleep 0.3
                ucx_perftest 127.0.0.1 -p "$1" -t "$2" -s "$3" -n "$4" -w 100 >client 2>&1 && break
                kill -0 $server 2>/dev/null || break
            done
            kill -0 $server 2>/dev/null && [ "$try" = 10 ] && kill $server
            wait $server; status=$?
            cat server client
            exit $status' - "$port" "$2" "$3" "$4"
}

group_ucx() {
    run_case "$1-ucx-info" 60 any 0 'Memory domain: xpmem' \
        env "LD_PRELOAD=$OUT/libuct_xpmem.so.0" ucx_info -d
    local size
    for size in 8 8192 1048576; do
        perftest "$1-ucx-tag_lat-$size" tag_lat $size 2000
        perftest "$1-ucx-tag_bw-$size" tag_bw $size 2000
    done
    local ranks
    for ranks in 2 4; do
        ucx_mpi $ranks xpmem,self "$OUT/pingpong" "${PINGPONG[@]}"
        run_case "$1-ucx-pingpong-$ranks" 180 used $ranks "$RIGHT" "${MPI[@]}"
    done
    ucx_mpi 2 xpmem,self "$OUT/pingpong" "${PINGPONG[@]}" -f 7 -t 1
    run_case "$1-ucx-pingpong-fork-threads-2" 180 used 2 "$RIGHT" "${MPI[@]}"
    ucx_mpi 2 xpmem,self NPopenmpi -l 4096 -u 4194304 -p 0 -n 60
    run_case "$1-ucx-netpipe" 180 used 2 '4194304 bytes' "${MPI[@]}"
}

# Intel MPI as published, not one file of it changed.
group_impi() {
    if [ -z "${IMPI:-}" ]; then
        skip "$1-impi" "$impi_why"
        return
    fi
    local ranks
    for ranks in 2 4; do
        impi $ranks 1 "$OUT/pingpong-impi" "${PINGPONG[@]}"
        run_case "$1-impi-pingpong-$ranks" 180 used $ranks "$RIGHT" "${MPI[@]}"
    done
    impi 2 1 "$OUT/pingpong-impi" "${PINGPONG[@]}" -f 7 -t 1
    run_case "$1-impi-pingpong-fork-threads-2" 180 used 2 "$RIGHT" "${MPI[@]}"
    impi 4 1 -genv LD_PRELOAD "$LIBDIR/libxpmem.so.0" "$OUT/pingpong-impi" "${PINGPONG[@]}" -f 11
    run_case "$1-impi-pingpong-preloaded-4" 180 used 4 "$RIGHT" "${MPI[@]}"
    impi 4 1 "$IMPI/bin/IMB-MPI1" -msglog 12:20 -time 0.2 -npmin 4 PingPong Sendrecv Alltoall Allreduce Bcast
    run_case "$1-impi-benchmarks-4" 180 used 4 'All processes entering MPI_Finalize' "${MPI[@]}"
}

# The same programs with the back end switched off: messages go through CMA.
group_off() {
    local XPMEM_BACKEND=off
    export XPMEM_BACKEND
    mpi 2 xpmem "$OUT/pingpong" "${PINGPONG[@]}"
    run_case "$1-off-vader-pingpong-2" 120 unused 2 "$RIGHT" "${MPI[@]}"
    mpi 4 xpmem "$OUT/pingpong" "${PINGPONG[@]}" -f 9 -t 1
    run_case "$1-off-vader-pingpong-4" 120 unused 4 "$RIGHT" "${MPI[@]}"
    mpi 2 xpmem NPopenmpi -l 4096 -u 4194304 -p 0 -n 60
    run_case "$1-off-vader-netpipe" 120 unused 2 '4194304 bytes' "${MPI[@]}"
    if [ -e "$OUT/src/mpi4py/test/runtests.py" ]; then
        mpi 2 xpmem /usr/bin/python3 "$OUT/src/mpi4py/test/runtests.py" --no-builddir -i p2p_buf -i cco_buf
        run_case "$1-off-vader-mpi4py-2" 180 unused 2 '^OK' "${MPI[@]}"
    fi
    ucx_mpi 2 xpmem,posix,sysv,cma,self "$OUT/pingpong" "${PINGPONG[@]}"
    run_case "$1-off-ucx-pingpong-2" 120 unused 2 "$RIGHT" "${MPI[@]}"
    if [ -n "${IMPI:-}" ]; then
        impi 2 1 "$OUT/pingpong-impi" "${PINGPONG[@]}"
        run_case "$1-off-impi-pingpong-2" 120 unused 2 "$RIGHT" "${MPI[@]}"
    fi
    # The plugin is there and finds no back end: no memory domain, no crash.
    run_case "$1-off-ucx-info" 60 unused 0 'Memory domain: posix' \
        env "LD_PRELOAD=$OUT/libuct_xpmem.so.0" ucx_info -d
}

run_all() {
    local group
    for group in "${groups[@]}"; do
        case $group in
        vader | netpipe | mpi4py | ucx | impi | off) "group_$group" "$1" ;;
        *) say "run.sh: no group named $group"; exit 2 ;;
        esac
    done
}

say "clients: seed $seed, $steps steps, library $LIBDIR"
if [ "$(id -u)" = 0 ]; then
    [ "$only" = user ] || run_all root
    [ "$only" = root ] || AS_USER=1 run_all "uid$OTHER_UID"
else
    run_all "uid$(id -u)"
fi
closing_line
