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
    run_suite "checker: finds ${fault%:*}" 90 \
        "$stress" --plain --seconds 5 "${seed[@]}" --inject "${fault%:*}" --expect "${fault#*:}"
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
stress_run "stress as an ordinary user" \
    "${AS_USER[@]}" "$stress" --preload "$library" --seconds "$seconds" "${seed[@]}" "${mixed[@]}"
# Opened as an MPI plugin opens it: nothing of libc's is interposed by the linker.
stress_run "stress, library opened late" \
    "${AS_USER[@]}" "$stress" --lib "$library" --seconds $((seconds / 3)) "${seed[@]}" "${mixed[@]}"

# --- the control
control=$TOP/build/fault-injection
if out=$(cargo build --release --locked --lib --features fault-injection --target-dir "$control" 2>&1); then
    stress_run "control: no revocation must be found out" env XPMEM_TEST_NO_REVOKE=1 \
        "$stress" --preload "$control/release/libxpmem.so" --seconds $((seconds / 4)) "${seed[@]}" --expect stale
else
    printf '%s\n' "$out" | tail -n 20
    not_ok "the library builds with fault-injection"
fi
finish
