#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# arm64-std-hook.sh ROOT: mmdebstrap's hook that unpacks Rust's standard library
# for arm64 into a root of this architecture. By apt's dependencies it would
# bring a compiler that runs on arm64.
set -euo pipefail
export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
cd "$1"
mkdir -p tmp/std
cd tmp/std
apt-get -o APT::Sandbox::User=root download libstd-rust-dev:arm64
dpkg-deb --fsys-tarfile libstd-rust-dev_*.deb | tar -C ../.. --keep-directory-symlink -xf -
cd ..
rm -rf std
