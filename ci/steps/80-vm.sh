#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The kernel module: built without a warning, checked, and tested in guests of
# the current Debian kernels of three suites.
exec "$(dirname "$0")/../../tests/vm/check.sh" "$@"
