# shellcheck shell=bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What the run.sh beside a fuzz target does with it:
#
#   libfuzzer NAME BINARY LENGTH [SECONDS]
#
# Builds BINARY in the working directory and fuzzes it with inputs of up to LENGTH
# bytes, an hour unless told. Findings are left in $XPMEM_CACHE/fuzz-NAME; corpus
# holds the seeds, which `MERGE=1` replaces by the smallest set that covers as much.
libfuzzer() {
    local name=$1 target=$2 length=$3 seconds=${4:-3600} cache built
    cache=${XPMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xpmem}/fuzz-$name
    mkdir -p "$cache/corpus" "$cache/findings"
    export CARGO_TARGET_DIR=$cache/target
    # What cargo-fuzz passes; no nightly compiler is needed for it.
    export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
    cargo build --release --target "$(rustc -vV | sed -n 's/^host: //p')"
    built=$(find "$CARGO_TARGET_DIR" -path "*/release/$target" -type f | head -n 1)
    if [ "${MERGE:-0}" = 1 ]; then
        mkdir -p "$cache/merged"
        "$built" -merge=1 -max_len="$length" "$cache/merged" corpus "$cache/corpus"
        exit
    fi
    exec "$built" -max_total_time="$seconds" -max_len="$length" -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="$cache/findings/" -print_final_stats=1 "$cache/corpus" corpus
}
