# shellcheck shell=sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Sourced: finds a cargo that rustup installed outside of PATH.
if ! command -v cargo >/dev/null 2>&1 && [ -x "${HOME:-/root}/.cargo/bin/cargo" ]; then
    PATH=$HOME/.cargo/bin:$PATH
    export PATH
fi
