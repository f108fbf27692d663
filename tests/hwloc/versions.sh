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
#   $XPMEM_CACHE/hwloc/xml      real machines
#
# What cannot be had is left out, with a line that says so.
set -u
cache=${XPMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xpmem}/hwloc
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$cache" || exit 1
[ -e "$cache/trixie/done" ] && [ -e "$cache/sid/done" ] && [ -e "$cache/xml/done" ] && exit 0
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
    rm -rf "$cache/$suite" "$apt/debs"
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
if [ ! -e "$cache/xml/done" ]; then
    rm -rf "$cache/xml" "$apt/source"
    mkdir -p "$cache/xml" "$apt/source"
    if (cd "$apt/source" && get source --download-only hwloc/bookworm >>"$apt/log" 2>&1 &&
        tar xf hwloc_*.orig.tar.* --wildcards '*/tests/hwloc/xml/*.xml'); then
        find "$apt/source" -name '*.xml' -exec cp {} "$cache/xml/" \;
        touch "$cache/xml/done"
    else
        echo "hwloc's source package cannot be had: $(tail -n 1 "$apt/log")"
    fi
fi
rm -rf "$apt/debs" "$apt/source"
