# shellcheck shell=sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Sourced: finds a cargo that rustup, or a package of Ubuntu named after its version, installed outside
# of PATH.
if ! command -v cargo >/dev/null 2>&1 && [ -x "${HOME:-/root}/.cargo/bin/cargo" ]; then
    PATH=$HOME/.cargo/bin:$PATH
    export PATH
fi
# Ubuntu 22.04 and 24.04 have an old cargo by that name; the newest of the others goes first.
xpmem_rust=$(set -- /usr/lib/rust-1.*/bin/cargo; printf "%s\n" "$@" | sort -V | tail -n 1)
case $(command -v cargo) in
"" | /usr/bin/cargo)
    if [ -x "$xpmem_rust" ]; then
        PATH=${xpmem_rust%/cargo}:$PATH
        export PATH
    fi
    ;;
esac
unset xpmem_rust
