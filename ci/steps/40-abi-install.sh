#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The ELF file and the header, then the library as installed.
. "$(dirname "$0")/../lib.sh"
cd "$TOP" || exit 1
run_suite "ABI" 600 tests/abi/run.sh
run_suite "installation" 900 tests/install/run.sh
finish
