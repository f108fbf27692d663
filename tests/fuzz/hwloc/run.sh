#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/fuzz/hwloc/run.sh [SECONDS]: coverage-guided fuzzing of the check of
# shared-memory topologies (libFuzzer); see ../libfuzzer.sh.
set -eu
cd "$(dirname "$0")"
. ../libfuzzer.sh
libfuzzer hwloc check 24576 "$@"
