#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The conformance suite: each back end x {C shared, C static, Rust} x {root, user}.
. "$(dirname "$0")/../lib.sh"
cd "$TOP" || exit 1

if ! make conformance >"$SCRATCH/make.log" 2>&1; then
    tail -n 40 "$SCRATCH/make.log"
    not_ok "make conformance"
    finish
fi
T=$TOP/build/tests
export XPMEM_CASES=$T/libconformance-cases.so

user() {
    local as=("$@")
    export XPMEM_BACKEND=user
    run_suite "user back end, C" 600 "${as[@]}" "$T/conformance"
    run_suite "user back end, C, static" 600 "${as[@]}" "$T/conformance-static"
    run_suite "user back end, Rust" 600 "${as[@]}" "$T/conformance-rust"
    # Memory that is asked for after the first make is shared from the start.
    XPMEM_BORN=1 run_suite "user back end, C, born shared" 300 "${as[@]}" "$T/conformance" born fork kept_ call_m \
        mremap_ brk free_ realloc owner_ pinned registered recall
    unset XPMEM_BACKEND
}
fake() {
    local as=("$@") device=$T/fake-device
    export XPMEM_BACKEND=kernel XPMEM_CONFORMANCE_BACKEND=fake
    run_suite "fake device, C" 600 "${as[@]}" "$device" "$T/conformance"
    run_suite "fake device, Rust" 600 "${as[@]}" "$device" "$T/conformance-rust"
    run_suite "fake device, first ioctl answers 2004" 600 "${as[@]}" "$device" --noproc-first "$T/conformance"
    run_suite "fake device, old kernel" 600 "${as[@]}" "$device" --old-kernel --noproc-first "$T/conformance"
    run_suite "fake device, 2004 again and again" 600 "${as[@]}" "$device" --noproc 3 "$T/conformance" reopen
    unset XPMEM_BACKEND XPMEM_CONFORMANCE_BACKEND
    # Found without being told, and not mistaken for one when it is a file.
    run_case "auto takes a device that answers" 60 "${as[@]}" env XPMEM_DEBUG=1 "$device" bash -c \
        "XPMEM_CONFORMANCE_BACKEND=fake $T/conformance version 2>&1 | grep 'back end: Kernel'"
    run_case "auto does not take a file" 60 "${as[@]}" env XPMEM_DEBUG=1 "$device" --not-a-device bash -c \
        "XPMEM_CONFORMANCE_BACKEND=fake $T/conformance version 2>&1 | grep 'back end: User'"
}

# The user back end with what Linux 6.1 has of userfaultfd and /proc.
old_kernel() {
    local control=$TOP/build/fault-injection
    if ! out=$(make fault-injection 2>&1); then
        not_ok "the library builds with fault-injection" "$out"
        return
    fi
    run_suite "user back end as on Linux 6.1, C" 900 env XPMEM_BACKEND=user XPMEM_TEST_OLD_KERNEL=1 \
        LD_LIBRARY_PATH="$control/lib" "$T/conformance"
    run_suite "user back end, pages that will not move back" 120 env XPMEM_BACKEND=user \
        XPMEM_TEST_NO_MOVE_BACK=1 LD_LIBRARY_PATH="$control/lib" "$T/conformance" source_pinned
    run_suite "user back end, forks that last" 120 env XPMEM_BACKEND=user \
        XPMEM_TEST_SLOW_FORK=1 LD_LIBRARY_PATH="$control/lib" "$T/conformance" recall_in_a_fork
    run_suite "user back end, services that follow at once" 120 env XPMEM_BACKEND=user \
        XPMEM_TEST_SLOW_END=1 LD_LIBRARY_PATH="$control/lib" "$T/conformance" rights_
    run_suite "user back end, with an alarm at each stop" 300 env XPMEM_BACKEND=user XPMEM_TEST_ALARM=1 \
        LD_LIBRARY_PATH="$control/lib" "$T/conformance" waits_are owner_ promotion_under fork_
}

user env
fake env
old_kernel
if [ "$(id -u)" = 0 ]; then
    echo "--- as uid 65534"
    user "${AS_USER[@]}"
    fake "${AS_USER[@]}"
fi
if [ -c /dev/xpmem ]; then
    XPMEM_BACKEND=kernel run_suite "kernel back end, C" 600 "$T/conformance"
fi

# What ran has left nothing.
left=$(find /dev/shm /tmp -maxdepth 1 -name 'xpmem-conformance-*' 2>/dev/null)
if [ -z "$left" ]; then ok "no files left"; else not_ok "files left" "$left"; fi
finish
