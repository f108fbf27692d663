# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# Shared by interop.sh and valgrind.sh: releases of libhwloc, and machines beside
# each other, as many at a time as there are processors. EXCHANGE LIBXPMEM are the
# arguments of both.

exchange=$1 ours=$2
cache=${XPMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xpmem}/hwloc
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
export HWLOC_PLUGINS_PATH=/nonexistent HWLOC_HIDE_ERRORS=2
jobs=0 most=$(nproc)
# A command that runs the exchange; empty: none.
under=()

# run RELEASE stock|ours ARGUMENTS...: exchange over that release.
run() {
    local release=$1 preload=
    [ "$2" = ours ] && preload=$ours
    shift 2
    if [ "$release" = here ]; then
        LD_PRELOAD=$preload "${under[@]}" "$exchange" "$@"
        return
    fi
    local libs libc
    libs=$(dirname "$(find "$cache/$release/usr" -name libhwloc.so.15 | head -n 1)")
    libc=$(dirname "$(find "$cache/$release/usr" -name libc.so.6 | head -n 1)")
    # shellcheck disable=SC2211 # There is one; its name has the machine in it.
    "${under[@]}" "$libc"/ld-linux-*.so.2 ${preload:+--preload "$preload"} \
        --library-path "$libs:$libc" "$exchange" "$@"
}

# beside COMMAND...: with a folder of its own, FOLDER/account, as first argument,
# beside others. Its account are the numbers of the last line.
beside() {
    local command=$1
    shift
    while [ "$(jobs -rp | wc -l)" -ge "$most" ]; do wait -n; done
    jobs=$((jobs + 1))
    mkdir "$top/$jobs"
    "$command" "$top/$jobs" "$@" &
}

# sum: the sums of all accounts; fails if one has failed, or has left none.
sum() {
    wait
    local passed=0 failed=0 skipped=0 job p f s
    for job in $(seq $jobs); do
        if read -r p f s <"$top/$job/account"; then
            passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + ${s:-0}))
        else
            failed=$((failed + 1))
        fi
    done
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
}
