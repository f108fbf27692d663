#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The stress program: first that it finds what it looks for, without the library;
# then the library, as root and as an ordinary user; then the library with its
# revocation switched off, which must be found out.
#
#   STRESS_SECONDS=60   length of each of the two main runs
#   STRESS_SEED=N       repeat
. "$(dirname "$0")/../lib.sh"
cd "$TOP" || exit 1
seconds=${STRESS_SECONDS:-60}
seed=(--seed "${STRESS_SEED:-$(date +%s)}")
stress=$TOP/build/tests/stress
library=$TOP/build/lib/libxpmem.so.0
export XPMEM_BACKEND=user

if ! out=$(make stress 2>&1); then
    not_ok "the stress program builds" "$out"
    finish
fi
if [ ! -e "$library" ]; then
    not_ok "the library is there" "make build"
    finish
fi

# --- the checker, over plain shared memory: quiet when all is well, loud when not
run_suite "checker: nothing to find" 60 "$stress" --plain --seconds 6 "${seed[@]}"
for fault in stale:stale lost:lost wake:wake fd:leak memory:leak proc:leak crash:crash; do
    # A leak shows at the end; anything else ends the run when it is found.
    length=$([ "${fault#*:}" = leak ] && echo 5 || echo 60)
    run_suite "checker: finds ${fault%:*}" 90 \
        "$stress" --plain --seconds "$length" "${seed[@]}" --inject "${fault%:*}" --expect "${fault#*:}"
done

# A run with a closing line, but 77 where the machine offers no userfaultfd.
stress_run() {
    local name=$1 out status=0
    shift
    echo "--- $name"
    out=$(timeout -k 5 $((seconds + 400)) "$@" 2>&1 </dev/null) || status=$?
    printf '%s\n' "$out"
    if [ $status = 77 ]; then skip "$name" "${out##*$'\n'}"; else count_from "$name" $status "$out"; fi
}

# --- the library
# The break alone: another thread's malloc may move it between the program's own
# look at it and its sbrk, which then takes away what is malloc's.
mixed=(--skip brk)
stress_run "the break" "${AS_USER[@]}" "$stress" --preload "$library" --seconds 8 "${seed[@]}" --only brk
if [ "$(id -u)" = 0 ]; then
    stress_run "stress as root" "$stress" --preload "$library" --seconds "$seconds" "${seed[@]}" "${mixed[@]}"
fi
# What is lent, while others come and go who have it, too: to look for them takes long.
lent=(--only "shared,file,fork,vfork")
if [ "$(id -u)" = 0 ]; then
    stress_run "what is lent, among forks, as root" "$stress" --preload "$library" --seconds 40 "${seed[@]}" "${lent[@]}"
fi
stress_run "what is lent, among forks" \
    "${AS_USER[@]}" "$stress" --preload "$library" --seconds 15 "${seed[@]}" "${lent[@]}"
stress_run "stress as an ordinary user" \
    "${AS_USER[@]}" "$stress" --preload "$library" --seconds "$seconds" "${seed[@]}" "${mixed[@]}"
# A tracer that comes and goes is waited for. None may be there in a fork.
stress_run "a tracer comes and goes" \
    "${AS_USER[@]}" "$stress" --preload "$library" --seconds 10 "${seed[@]}" --skip brk,fork --trace
stress_run "control: unless nothing is waited for" env XPMEM_WAIT=0 \
    "${AS_USER[@]}" "$stress" --preload "$library" --seconds 30 "${seed[@]}" --skip brk,fork --trace --expect signal
stress_run "60,000 other mappings" \
    "${AS_USER[@]}" "$stress" --preload "$library" --seconds 10 "${seed[@]}" "${mixed[@]}" --mappings 60000
# Where the kernel allows none more, what it refuses shows when it is not waited for.
stress_run "control: unless there are as many as there may be" env XPMEM_WAIT=0 \
    "${AS_USER[@]}" "$stress" --preload "$library" --seconds 30 "${seed[@]}" "${mixed[@]}" \
    --mappings $(($(cat /proc/sys/vm/max_map_count) - 110)) --expect signal
stress_run "few descriptors" "${AS_USER[@]}" prlimit --nofile=40:40 \
    "$stress" --preload "$library" --seconds 10 "${seed[@]}" "${mixed[@]}"
# Opened as an MPI plugin opens it: nothing of libc's is interposed by the linker.
stress_run "stress, library opened late" \
    "${AS_USER[@]}" "$stress" --lib "$library" --seconds $((seconds / 3)) "${seed[@]}" "${mixed[@]}"

# --- the control
control=$TOP/build/fault-injection
if out=$(make fault-injection 2>&1); then
    stress_run "control: no revocation must be found out" env XPMEM_TEST_NO_REVOKE=1 \
        "$stress" --preload "$control/lib/libxpmem.so.0" --seconds $((seconds / 4)) "${seed[@]}" --expect stale
    stress_run "control: nor of System V segments" env XPMEM_TEST_NO_REVOKE=1 \
        "$stress" --preload "$control/lib/libxpmem.so.0" --seconds 15 "${seed[@]}" --only sysv --expect stale
    # Some one direct read of a hundred ends between a copy and the exchange.
    stress_run "control: what a device writes into a copy's source must not be lost" env XPMEM_TEST_FIRST_COPY=1 \
        "$stress" --preload "$control/lib/libxpmem.so.0" --seconds 60 "${seed[@]}" --only device --expect stale
    # Each ends when it has found what it is to find.
    while read -r switch class failure name; do
        stress_run "control: $name" env "XPMEM_TEST_$switch=1" \
            "$stress" --preload "$control/lib/libxpmem.so.0" --seconds 60 "${seed[@]}" --only "$class" --expect "$failure"
    done <<'END'
FIRST_COPY libc lost what threads store into a copy's source
FIRST_COPY writer stale what a third process writes into it
FIRST_COPY vfork stale what a child of vfork stores into it
OLD_KERNEL ring stale pages that io_uring holds, and that are shared then, are not copied
BY_FORCE ring stale nor those that it holds since, whatever the program says of them
INHERIT fork fork a child has copies
INHERIT vfork owner one of a raw clone3 has nothing of its parent's
NO_UNDO seal owner a promotion that sealed memory refuses is undone
NO_REVOKE shared,file stale lent files are recalled
END
else
    printf '%s\n' "$out" | tail -n 20
    not_ok "the library builds with fault-injection"
fi
finish
