#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The ELF file and the header, the library as installed, the examples.
. "$(dirname "$0")/../lib.sh"
cd "$TOP" || exit 1
run_suite "ABI" 600 tests/abi/run.sh
run_suite "installation" 900 tests/install/run.sh
if out=$(make examples 2>&1); then
    run_suite "examples" 300 tests/examples/run.sh
else
    not_ok "make examples" "$out"
fi
finish
