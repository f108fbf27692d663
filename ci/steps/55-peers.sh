#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Peers that lie, stall or die, beside honest ones: as root and as an ordinary user.
#
#   PEERS_SECONDS=8   length of each of the random cases
#   PEERS_SEED=N      repeat
. "$(dirname "$0")/../lib.sh"
cd "$TOP" || exit 1
seconds=${PEERS_SECONDS:-8}
seed=${PEERS_SEED:-$(date +%s)}

if ! out=$(make peers 2>&1); then
    not_ok "make peers" "$out"
    finish
fi
peers() {
    local name=$1 out status=0
    shift
    echo "--- $name"
    out=$(timeout -k 5 $((seconds * 3 + 1200)) "$@" 2>&1 </dev/null) || status=$?
    printf '%s\n' "$out"
    if [ $status = 77 ]; then skip "$name" "${out##*$'\n'}"; else count_from "$name" $status "$out"; fi
}
# The ends of the large tables need a library whose tables are small.
if ! out=$(make fault-injection 2>&1); then
    not_ok "the library builds with fault-injection" "$out"
fi
suite=(env PYTHONDONTWRITEBYTECODE=1 /usr/bin/env python3 tests/peers/run.py --seconds "$seconds" --seed "$seed")
# Root may do more, and peers may do no more to it.
if [ "$(id -u)" = 0 ]; then
    peers "as root" "${suite[@]}" cross late version unwanted connections removed thawed fuzz
fi
peers "as an ordinary user" "${AS_USER[@]}" "${suite[@]}"
finish
