#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The unit tests that are plain logic (no system call, no address made of a number
# that nobody exposed), under Miri: undefined behaviour, and memory used after its
# end. Needs rustup's nightly with the component miri; exit 77 without. The model
# tests, which make thousands of random steps, are left out: hours.
set -u
cd "$(dirname "$0")/.." || exit 1
cargo +nightly miri --version >/dev/null 2>&1 || { echo "no Miri: rustup component add miri rust-src --toolchain nightly"; exit 77; }
export MIRIFLAGS=-Zmiri-permissive-provenance
tests=(debug:: error:: facilities:: environment:: hwloc::range::hole::tests::hole hwloc::range::hole::tests::lines
    hwloc::range::hole::tests::no_room hwloc::stock::minimal hwloc::stock::layouts hwloc::layout::abi rawsys::tests::answers user::arena::closing user::arena::command user::span user::owner::debts user::protocol::ids user::patience
    user::service::recall user::owner::requests user::attacher::sigbus user::protocol::wire user::hooks::text)
exec cargo +nightly miri test --locked --no-default-features --lib --target-dir build/miri -- \
    --skip behaves_like "${tests[@]}"
