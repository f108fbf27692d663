#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/fuzz/wire/run.sh [SECONDS]: coverage-guided fuzzing of messages between
# services and of the tables that they reach (libFuzzer); see ../libfuzzer.sh.
set -eu
cd "$(dirname "$0")"
. ../libfuzzer.sh
libfuzzer wire messages 512 "$@"
