#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/hwloc/versions.sh: fetches other releases of libhwloc (2.12, 2.15) and
# the XML files of hwloc's source package into the cache, from Debian by apt,
# with lists of its own: the system's are neither used up nor changed. Each is
# left unpacked in
#
#   $XPMEM_CACHE/hwloc/trixie   libhwloc 2.12 with the libc it wants
#   $XPMEM_CACHE/hwloc/sid      libhwloc 2.15 with the libc it wants
#   $XPMEM_CACHE/hwloc/*/valgrind  the valgrind that knows that libc
#   $XPMEM_CACHE/hwloc/xml      real machines
#   $XPMEM_CACHE/hwloc/linux    more of them, as /proc and /sys say it
#   $XPMEM_CACHE/hwloc/pci32    libhwloc 2.9 with --enable-32bits-pci-domain
#   $XPMEM_CACHE/hwloc/debug    libhwloc 2.9 with --enable-debug
#   $XPMEM_CACHE/hwloc/prefixed libhwloc 2.9 whose functions begin with opal_
#
# What cannot be had is left out, with a line that says so.
set -u
cache=${XPMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xpmem}/hwloc
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$cache" || exit 1
missing=
for part in trixie sid xml linux pci32 debug prefixed trixie/valgrind sid/valgrind; do
    [ -e "$cache/$part/done" ] || missing=1
done
[ -n "$missing" ] || exit 0
if [ ! -e $keys ] || ! command -v apt-get >/dev/null; then
    echo "no Debian keys or no apt here: other releases of hwloc are left out"
    exit 0
fi
# The mirror that this system uses, if it is a Debian.
mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' "Created-By: Packages" 2>/dev/null |
    awk '$1 == "Debian" && $2 !~ /security/ { print $2; exit }')
if [ -z "$mirror" ]; then
    echo "apt knows no Debian mirror: other releases of hwloc are left out"
    exit 0
fi
apt=$cache/apt
mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
{
    for suite in trixie sid; do echo "deb [signed-by=$keys] $mirror $suite main"; done
    echo "deb-src [signed-by=$keys] $mirror trixie main"
    echo "deb-src [signed-by=$keys] $mirror bookworm main"
} >"$apt/sources.list"
get() {
    apt-get -q -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o "Dir::State=$apt/state" -o "Dir::Cache=$apt/cache" \
        -o Dir::State::status=/var/lib/dpkg/status -o APT::Sandbox::User="$(id -un)" \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}
get update >"$apt/log" 2>&1 || echo "apt-get update: $(tail -n 1 "$apt/log")"

for suite in trixie sid; do
    [ -e "$cache/$suite/done" ] && continue
    rm -rf "${cache:?}/$suite" "${apt:?}/debs"
    mkdir -p "$cache/$suite" "$apt/debs"
    # Its libc, and what libhwloc is linked with.
    if (cd "$apt/debs" && get download "libhwloc15/$suite" "libc6/$suite" "libudev1/$suite" \
        "libcap2/$suite" "libgcc-s1/$suite" "libpciaccess0/$suite" "libxml2/$suite" \
        >>"$apt/log" 2>&1 || get download "libhwloc15/$suite" "libc6/$suite" "libudev1/$suite" \
        "libcap2/$suite" "libgcc-s1/$suite" >>"$apt/log" 2>&1); then
        for deb in "$apt/debs"/*.deb; do dpkg -x "$deb" "$cache/$suite"; done
        touch "$cache/$suite/done"
    else
        echo "hwloc of $suite cannot be had: $(tail -n 1 "$apt/log")"
    fi
done
# An older valgrind cannot run a newer libc, and no valgrind without its symbols.
for suite in trixie sid; do
    [ -e "$cache/$suite/done" ] && [ ! -e "$cache/$suite/valgrind/done" ] || continue
    rm -rf "$apt/debs" "$cache/$suite/valgrind"
    mkdir -p "$cache/$suite/valgrind" "$apt/debs"
    libc=$(dirname "$(find "$cache/$suite/usr" -name libc.so.6 | head -n 1)")
    if ! (cd "$apt/debs" && get download "valgrind/$suite" "libc6-dbg/$suite" >>"$apt/log" 2>&1); then
        echo "valgrind of $suite cannot be had: $(tail -n 1 "$apt/log")"
        continue
    fi
    for deb in "$apt/debs"/*.deb; do dpkg -x "$deb" "$cache/$suite/valgrind"; done
    rm -rf "$cache/$suite/valgrind/usr/share" "$cache/$suite/valgrind/usr/include"
    # Found beside the library; by build id only in /usr/lib/debug.
    mkdir -p "$libc/.debug"
    for file in ld-linux-x86-64.so.2 libc.so.6; do
        id=$(readelf -n "$libc/$file" 2>/dev/null | awk '/Build ID/ { print $3 }')
        symbols=$cache/$suite/valgrind/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug
        [ ! -e "$symbols" ] || ln -sf "$symbols" "$libc/.debug/${id:2}.debug"
    done
    touch "$cache/$suite/valgrind/done"
done
for part in xml linux pci32 debug prefixed; do
    [ -e "$cache/$part/done" ] || rm -rf "${cache:?}/$part"
done
if [ -d "$cache/xml" ] && [ -d "$cache/linux" ] && [ -d "$cache/pci32" ] && [ -d "$cache/debug" ] &&
    [ -d "$cache/prefixed" ]; then
    exit 0
fi
rm -rf "$apt/source"
mkdir -p "$apt/source"
cd "$apt/source" || exit 1
if ! { get source --download-only hwloc/bookworm >>"$apt/log" 2>&1 && tar xf hwloc_*.orig.tar.*; }; then
    echo "hwloc's source package cannot be had: $(tail -n 1 "$apt/log")"
    exit 0
fi
source=$(echo "$apt/source"/hwloc-*/)
if [ ! -d "$cache/xml" ]; then
    mkdir "$cache/xml"
    cp "$source"tests/hwloc/xml/*.xml "$cache/xml/" && touch "$cache/xml/done"
fi
if [ ! -d "$cache/linux" ]; then
    mkdir "$cache/linux"
    for tar in "$source"tests/hwloc/linux/*.tar.bz2; do
        # Device files need root, and nobody reads them.
        tar xjf "$tar" -C "$cache/linux" --no-same-owner --exclude '*/dev/*' 2>>"$apt/log"
    done
    touch "$cache/linux/done"
fi
build() { # build NAME CONFIGURE-OPTION
    [ ! -d "$cache/$1" ] || return 0
    mkdir "$apt/source/$1" "$cache/$1"
    if (cd "$apt/source/$1" && "$source"configure -q "$2" --disable-cairo --disable-libxml2 \
        --disable-opencl --disable-cuda --disable-nvml --disable-rsmi --disable-levelzero \
        --disable-gl --disable-pci --disable-libudev --disable-readme CFLAGS=-O1 &&
        make -s -C include && make -s -C hwloc) >>"$apt/log" 2>&1; then
        cp -P "$apt/source/$1"/hwloc/.libs/libhwloc.so.15* "$cache/$1/" && touch "$cache/$1/done"
    else
        echo "libhwloc with $2 does not build: $(tail -n 1 "$apt/log")"
    fi
}
build pci32 --enable-32bits-pci-domain
build debug --enable-debug
build prefixed --with-hwloc-symbol-prefix=opal_
cd "$cache" || exit 1
rm -rf "$apt/debs" "$apt/source"
