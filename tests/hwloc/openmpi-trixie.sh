#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/hwloc/openmpi-trixie.sh LIBXPMEM: Open MPI 5.0.7 as Debian 13 has it, in
# a root of its own. Its ranks' one adoption is EBUSY with stock hwloc, every
# time, and they discover the machine anew; with ours and relocation on, each
# adopts. The program's data are checked in both. The root stays in the cache
# ($XPMEM_CACHE/hwloc/openmpi-trixie). Exit 77 where it cannot be had.
set -u
lib=$(readlink -f "$1")
here=$(cd "$(dirname "$0")" && pwd)
cache=${XPMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xpmem}/hwloc
root=$cache/openmpi-trixie ranks=3
[ "$(id -u)" = 0 ] || { echo "needs root: chroot"; exit 77; }
mkdir -p "$cache"
exec 9>"$root.lock"
flock 9
if [ ! -e "$root/.complete" ]; then
    command -v mmdebstrap >/dev/null || { echo "mmdebstrap is not installed"; exit 77; }
    mirror=${XPMEM_DEBIAN_MIRROR:-http://deb.debian.org}
    rm -rf "$root"
    # Unpacked, not configured: nothing of it needs more.
    if ! mmdebstrap --quiet --variant=extract --aptopt='Acquire::Retries "5"' \
        --setup-hook='cd "$1" && mkdir -p usr/bin usr/sbin usr/lib usr/lib64 && ln -s usr/bin usr/sbin usr/lib usr/lib64 .' \
        --include=openmpi-bin,libopenmpi-dev trixie "$root" "deb $mirror/debian trixie main" \
        >"$root.log" 2>&1; then
        echo "no Debian 13 root: $(tail -n 1 "$root.log")"
        exit 77
    fi
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/usr/share/{doc,man,locale,icons}
    mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/test"
    touch "$root/.complete"
fi
exec 9>&-

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mpi=$root/usr/lib/x86_64-linux-gnu
cc -O1 -shared -fPIC -o "$work/spy.so" "$here/spy.c" -ldl &&
    cc -O1 -I"$mpi/openmpi/include" -o "$work/sum" "$here/sum.c" "$mpi/libmpi.so.40" \
        -Wl,--unresolved-symbols=ignore-in-shared-libs &&
    cp "$lib" "$work/libxpmem.so.0" || exit 1

# ranks_with NAME VARIABLE=VALUE...: runs the program; what a client saw of each
# adoption is left in $work/NAME.
ranks_with() {
    local name=$1 set=()
    shift
    for v in "$@" "SPY_FILE=/test/$name"; do set+=(-x "$v"); done
    # A mount namespace of its own: nothing is left mounted.
    env -i PATH=/usr/bin:/usr/sbin HOME=/tmp OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
        PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
        timeout -k 5 90 unshare --mount --pid --fork --kill-child sh -c '
            root=$1 work=$2
            shift 2
            mount --make-rprivate / && mount --bind "$work" "$root/test" &&
                mount -t proc proc "$root/proc" && mount --rbind /sys "$root/sys" &&
                mount --rbind /dev "$root/dev" && mount -t tmpfs tmpfs "$root/tmp" || exit 77
            exec chroot "$root" "$@"' sh "$root" "$work" \
        mpirun.openmpi -n $ranks --oversubscribe --mca btl self,sm "${set[@]}" /test/sum \
        >"$work/$name.out" 2>&1
    local status=$?
    cat "$work/$name.out"
    if [ $status = 77 ]; then
        echo "no mount in a namespace here"
        exit 77
    fi
    [ $status = 0 ] || exit 1
    grep -q "Open MPI v5\.0\.[0-9]*: $ranks ranks, every number right" "$work/$name.out" || exit 1
}
count() { # count NAME WHAT: how many adoptions ended so
    grep -c ": $2\$" "$work/$1"
}
ranks_with stock LD_PRELOAD=/test/spy.so
echo "stock: adopted $(count stock adopted) times, EBUSY $(count stock EBUSY) times"
ranks_with plain LD_PRELOAD=/test/spy.so:/test/libxpmem.so.0
echo "ours, without relocation: adopted $(count plain adopted) times, EBUSY $(count plain EBUSY) times"
ranks_with ours LD_PRELOAD=/test/spy.so:/test/libxpmem.so.0 HWLOC_SHMEM_RELOCATE=1 \
    XPMEM_DEBUG=1 XPMEM_DEBUG_FILE=/test/debug
cat "$work/debug"
echo "ours: adopted $(count ours adopted) times, EBUSY $(count ours EBUSY) times," \
    "moved $(grep -c 'hwloc: adopted .* moved' "$work/debug") times"
[ "$(count stock EBUSY)" = $ranks ] && [ "$(count stock adopted)" = 0 ] &&
    [ "$(count plain EBUSY)" = $ranks ] && [ "$(count plain adopted)" = 0 ] &&
    [ "$(count ours adopted)" = $ranks ] && [ "$(count ours EBUSY)" = 0 ] &&
    [ "$(grep -c 'hwloc: adopted .* moved' "$work/debug")" = $ranks ]
