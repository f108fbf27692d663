#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The unit tests, those of the tool, and the examples in the documentation.
. "$(dirname "$0")/../lib.sh"
cd "$TOP" || exit 1

# Tests unwind and the library aborts: built side by side, the two kinds of the library have the same
# file names, and one may be linked in place of the other.
export CARGO_PROFILE_DEV_PANIC=unwind
status=0
out=$(timeout 900 cargo test --target-dir build/unit --locked --no-fail-fast --lib --bins --test tool 2>&1 </dev/null) || status=$?
# The examples in the documentation are compiled and run.
out+=$'\n'$(timeout 600 cargo test --target-dir build/unit --locked --doc 2>&1 </dev/null) || status=$?
printf '%s\n' "$out" | grep -vE '^ *(Compiling|Downloaded|Downloading)'
sums=$(printf '%s\n' "$out" | sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored.*/\1 \2 \3/p')
if [ -z "$sums" ]; then
    not_ok "cargo test" "ended with status $status and no result"
else
    while read -r p f i; do
        PASSED=$((PASSED + p)) FAILED=$((FAILED + f)) SKIPPED=$((SKIPPED + i))
    done <<<"$sums"
    if [ $status != 0 ] && [ $FAILED = 0 ]; then not_ok "cargo test" "status $status"; fi
fi
finish
