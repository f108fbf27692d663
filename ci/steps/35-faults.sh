#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Each system call of an operation of the user back end fails in turn.
. "$(dirname "$0")/../lib.sh"
cd "$TOP" || exit 1

control=$TOP/build/fault-injection
if ! make conformance build/tests/sweep fault-injection >"$SCRATCH/make.log" 2>&1; then
    tail -n 40 "$SCRATCH/make.log"
    not_ok "the sweep and its library build"
    finish
fi
sweep() { run_suite "$1" 1800 env XPMEM_BACKEND=user LD_LIBRARY_PATH="$control/lib" build/tests/sweep "${@:2}"; }

sweep "promotions" promote_private promote_huge promote_locked promote_shared promote_data promote_scattered born
# On a machine with several memory nodes there are some more calls.
XPMEM_TEST_NODES=1 sweep "promotions on memory nodes" promote_private promote_scattered move
sweep "what ends them" protect protect_shared remove_segment unmap replace drop move grow raw_unmap raw_drop raw_move
# Where a call would fail the service is killed.
sweep "a service that is killed in a promotion" killed_private killed_huge killed_locked killed_shared killed_data killed_born
sweep "a service that is killed in what ends one" killed_protect killed_drop killed_unmap killed_recall killed_move killed_fork killed_fork_watched
sweep "fork" fork_child fork_watched
# The limit that mappings are counted by, made small.
run_suite "an owner that is thrifty with mappings" 120 env XPMEM_BACKEND=user XPMEM_TEST_RANGES=100 \
    LD_LIBRARY_PATH="$control/lib" build/tests/conformance scattered_

left=$(find /dev/shm -maxdepth 1 -name 'xpmem-sweep-*' 2>/dev/null)
if [ -z "$left" ]; then ok "no files left"; else not_ok "files left" "$left"; fi
finish
