#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/fuzz/wire/run.sh [SECONDS]: coverage-guided fuzzing of messages between
# services and of the tables that they reach (libFuzzer), an hour unless told.
# Findings are left in $XPMEM_CACHE/fuzz-wire; tests/fuzz/wire/corpus holds the
# seeds, which `MERGE=1` replaces by the smallest set that covers as much.
set -eu
cd "$(dirname "$0")"
seconds=${1:-3600}
cache=${XPMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xpmem}/fuzz-wire
mkdir -p "$cache/corpus" "$cache/findings"
export CARGO_TARGET_DIR=$cache/target
# What cargo-fuzz passes; no nightly compiler is needed for it.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
cargo build --release --target "$(rustc -vV | sed -n 's/^host: //p')"
messages=$(find "$CARGO_TARGET_DIR" -path '*/release/messages' -type f | head -n 1)
if [ "${MERGE:-0}" = 1 ]; then
    mkdir -p "$cache/merged"
    "$messages" -merge=1 -max_len=512 "$cache/merged" corpus "$cache/corpus"
    exit
fi
exec "$messages" -max_total_time="$seconds" -max_len=512 -timeout=10 -rss_limit_mb=2048 \
    -artifact_prefix="$cache/findings/" -print_final_stats=1 "$cache/corpus" corpus
