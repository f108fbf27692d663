#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# What `make demo` shows once everything is built: the machine, two processes sharing memory, and
# an MPI job whose messages go through attachments when Open MPI is there.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tests/clients/lib.sh"
tool=$root/build/bin/xpmem

show() {
    printf '\n$ %s\n' "$*"
    "$@"
}

show "$tool" info
show "$tool" demo

printf '\n'
if ! command -v mpirun >/dev/null; then
    say "No MPI job: no mpirun here. On Debian 12: apt-get install openmpi-bin"
    exit 0
fi
# As root this installs what compiling the plugin takes; anybody else is told.
if "$CLIENTS_DIR/prepare.sh" --check-release && ! "$root/ci/setup.sh" mpi; then
    say "No MPI job, for that reason."
    exit 0
fi
status=0
"$CLIENTS_DIR/prepare.sh" vader || status=$?
if [ "$status" = 77 ]; then
    say "No MPI job, for that reason."
    exit 0
fi
[ "$status" = 0 ] || exit "$status"
. "$OUT/settings"
. "$CLIENTS_DIR/mpi.sh"
LOGS=$OUT/logs-demo
mkdir -p "$LOGS"
say "Open MPI's own vader over libxpmem, 4 ranks; buffers are freed, unmapped and mapped again"
say "between messages, and every byte is checked:"
mpi 4 xpmem "$OUT/pingpong" -n 100 -s "${SEED:-$RANDOM}" -f 10
if ! run_case demo-pingpong 120 used 4 'every byte right' "${MPI[@]}" >"$LOGS/verdict"; then
    cat "$LOGS/verdict" "$LOGS/demo-pingpong/output"
    exit 1
fi
grep 'every byte right' "$LOGS/demo-pingpong/output"
grep -ho 'xpmem: stats.*' "$LOGS/demo-pingpong/stats"
