#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The README's commands on fresh machines: a chroot with what a fresh Debian has, git and make, and
# a clone of what is committed here.
#
#   tests/install/fresh.sh                 bookworm and trixie
#   tests/install/fresh.sh bookworm        one of them
#   XPMEM_FRESH_KEEP=1                     leave the root in place (its name is printed)
#
# In each: an ordinary user is told what is missing; root's `make demo` installs it and shows
# everything; the conformance suite passes; with Open MPI there `make demo` shows an MPI job as well;
# then the ordinary user can do it all. In trixie the compiler is Debian's 1.85, the oldest that will do.
# As root; minutes; packages and crates come from their registries. Not part of `make check`.
. "$(dirname "$0")/../../ci/lib.sh"
cd "$TOP" || exit 1
cache=${XPMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xpmem}/fresh
mirror=${XPMEM_DEBIAN_MIRROR:-http://deb.debian.org}
logs=$TOP/build/ci/fresh
[ "$(id -u)" = 0 ] || { echo "fresh.sh: as root: it mounts /proc and /dev in a chroot" >&2; exit 77; }
command -v mmdebstrap >/dev/null || { echo "fresh.sh: needs mmdebstrap" >&2; exit 77; }
mkdir -p "$cache" "$logs"
[ $# != 0 ] || set -- bookworm trixie

make_root() { # SUITE: its folder in $root
    local tar=$cache/$1.tar
    if [ -z "$(find "$tar" -mtime -7 2>/dev/null)" ]; then
        mmdebstrap --quiet --variant=minbase --include=ca-certificates,git,make --aptopt='Acquire::Retries "5"' \
            "$1" "${tar%.tar}.new.tar" "deb $mirror/debian $1 main" "deb $mirror/debian $1-updates main" \
            "deb $mirror/debian-security $1-security main" >"$logs/$1-root.log" 2>&1 || return 1
        mv "${tar%.tar}.new.tar" "$tar"
    fi
    root=$SCRATCH/$1
    mkdir "$root" && tar -C "$root" -xf "$tar" && cp /etc/resolv.conf "$root/etc/resolv.conf" || return 1
    # The machine's own certificates, for one that reaches its registries through a proxy.
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    chroot "$root" useradd -m someone &&
        git clone -q "$TOP" "$root/root/xpmem" && git clone -q "$TOP" "$root/home/someone/xpmem" &&
        chroot "$root" chown -R someone: /home/someone/xpmem
}

# The mounts are in a namespace of the command's own, and so are its processes.
inside() { # USER COMMAND
    local home=/root as=()
    [ "$1" = root ] || home=/home/$1 as=(setpriv --reuid "$1" --regid "$1" --init-groups)
    # shellcheck disable=SC2016
    unshare --mount --pid --fork --kill-child bash -ec '
        root=$1 home=$2 script=$3
        shift 3
        mount --make-rprivate /
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs tmpfs "$root/tmp" -o mode=1777
        mount -t tmpfs tmpfs "$root/dev/shm" -o mode=1777
        exec chroot "$root" env -i "$@" bash -c "cd $home/xpmem && $script"' - \
        "$root" "$home" "$2" HOME="$home" PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LC_ALL=C.UTF-8 \
        "${as[@]}"
}

# step NAME USER STATUS COMMAND WANTED...: ends so, and prints each of these.
step() {
    local name=$1 user=$2 must=$3 command=$4 log status=0 wanted lacks=
    shift 4
    log=$logs/$(echo "$name" | tr -c 'a-zA-Z0-9\n' '-').log
    inside "$user" "$command" >"$log" 2>&1 </dev/null || status=$?
    if [ "$must" = failure ]; then [ "$status" != 0 ]; else [ "$status" = "$must" ]; fi ||
        lacks="status $status"
    for wanted; do grep -qE -- "$wanted" "$log" || lacks="${lacks:+$lacks; }no '$wanted'"; done
    if [ -z "$lacks" ]; then
        ok "$name"
    else
        not_ok "$name" "$lacks; the end of $log:"
        tail -n 25 "$log"
    fi
    [ -z "$lacks" ]
}

shown=('The user back end would serve' 'sees every byte that the owner wrote' 'was ended by SIGBUS, as it must be')
for suite; do
    echo "--- $suite"
    if ! make_root "$suite"; then
        not_ok "$suite: a root" "see $logs/$suite-root.log"
        continue
    fi
    step "$suite: a user is told what is missing" someone failure "make demo" \
        'apt-get update' 'apt-get install -y .*gcc.*rustc'
    step "$suite: make demo" root 0 "make demo" "${shown[@]}" 'No MPI job: no mpirun' || continue
    step "$suite: the compiler" root 0 ". ci/path.sh; cargo --version; rustc --version" '^rustc 1\.(8[5-9]|9)'
    step "$suite: conformance" root 0 "make conformance && build/tests/conformance && XPMEM_CASES=build/tests/libconformance-cases.so build/tests/conformance-rust" \
        '[0-9]+ passed, 0 failed'
    step "$suite: Open MPI" root 0 "apt-get install -y --no-install-recommends openmpi-bin"
    if [ "$suite" = bookworm ]; then
        step "$suite: make demo with Open MPI" root 0 "make demo" "${shown[@]}" '4 ranks, .*every byte right' \
            'attaches=[1-9]'
        step "$suite: make demo as a user" someone 0 "make demo" "${shown[@]}" '4 ranks, .*every byte right' \
            'attaches=[1-9]'
    else
        step "$suite: make demo as a user" someone 0 "make demo" "${shown[@]}" 'No MPI job'
    fi
    step "$suite: make install" root 0 "make install PREFIX=/usr && ldconfig && xpmem run sh -c 'echo \$LD_PRELOAD'" \
        '/libxpmem.so.0'
    step "$suite: conformance as a user" someone 0 "make conformance && build/tests/conformance" \
        '[0-9]+ passed, 0 failed'
    if [ -n "${XPMEM_FRESH_KEEP:-}" ]; then
        mv "$root" "${TMPDIR:-/tmp}/xpmem-fresh-$suite" && echo "kept: ${TMPDIR:-/tmp}/xpmem-fresh-$suite"
    else
        rm -rf "$root"
    fi
done
finish
