#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Fetches what Debian's MPI packages were built from and compiles, against our header and
# library, the plugins that Debian leaves out: Open MPI's vader with XPMEM, and UCX's uct_xpmem.
# Nothing is written outside the cache and build/clients. Exit 77: cannot be done here, with the reason.
#
#   prepare.sh                   all of it
#   prepare.sh vader             Open MPI's vader and the programs alone
#   prepare.sh impi              Intel MPI: its library finds libxpmem.so.0 by itself
#   prepare.sh --check-release   whether this machine's Open MPI is the one that it is for
set -eu
. "$(dirname "$0")/lib.sh"

OMPI_VERSION=4.1.4
UCX_VERSION=1.13.1
MPI4PY_VERSION=3.1.4

IMPI_VERSION=2021.19.0
# For mpi.h alone: the two libraries have one ABI.
MPICH_VERSION=5.0.2

unable() {
    say "clients: $*"
    exit 77
}

package_version() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || true; }

command -v dpkg-query >/dev/null || unable "not a Debian system: the plugins come from Debian 12's source packages"
what=${1:-all}

# The release as its authors publish it, where pip finds it.
wheel() { # PACKAGE VERSION: unpacked in $OUT/src/PACKAGE
    local package=$1 version=$2 into=$OUT/src/$1-$2 file
    [ -e "$into/.unpacked" ] && return 0
    file=$(compgen -G "$CACHE/wheels/${package//-/_}-$version-*.whl" | head -n 1)
    if [ -z "$file" ]; then
        mkdir -p "$CACHE/wheels/new"
        /usr/bin/python3 -m pip download -q --no-deps --only-binary :all: -d "$CACHE/wheels/new" \
            "$package==$version" >"$CACHE/wheels/$package.log" 2>&1 || return 1
        mv "$CACHE/wheels/new/"*.whl "$CACHE/wheels/"
        file=$(compgen -G "$CACHE/wheels/${package//-/_}-$version-*.whl" | head -n 1)
    fi
    rm -rf "$into"
    mkdir -p "$into"
    # A copy in the build folder: another user of this machine may not see our cache.
    /usr/bin/python3 -m zipfile -e "$file" "$into"
    chmod -f +x "$into"/*.data/data/bin/* || true
    touch "$into/.unpacked"
}

# Intel MPI is not changed at all, and nothing of it is compiled: it opens libxpmem.so.0 itself.
prepare_impi() {
    [ "$(uname -m)" = x86_64 ] || unable "Intel MPI is for x86_64"
    [ -e "$LIBDIR/libxpmem.so.0" ] || unable "$LIBDIR/libxpmem.so.0 is missing: run make first"
    mkdir -p "$OUT"
    wheel impi-rt $IMPI_VERSION || unable "Intel MPI $IMPI_VERSION cannot be fetched: $(tail -n 1 "$CACHE/wheels/impi-rt.log")"
    wheel mpich $MPICH_VERSION || unable "mpich $MPICH_VERSION cannot be fetched: $(tail -n 1 "$CACHE/wheels/mpich.log")"
    IMPI=$OUT/src/impi-rt-$IMPI_VERSION/impi_rt-$IMPI_VERSION.data/data
    [ -e "$IMPI/lib/libmpi.so.12" ] && [ -x "$IMPI/bin/mpiexec.hydra" ] || unable "no libmpi.so.12 in $IMPI"
    local program
    for program in pingpong bench; do
        [ "$OUT/$program-impi" -nt "$CLIENTS_DIR/$program.c" ] ||
            gcc -O2 -g -Wall -Wextra -std=gnu11 -pthread -o "$OUT/$program-impi" "$CLIENTS_DIR/$program.c" \
                -I"$(echo "$OUT/src/mpich-$MPICH_VERSION"/*.data/data/include)" "$IMPI/lib/libmpi.so.12" \
                -Wl,-rpath,"$IMPI/lib"
    done
    echo "IMPI=$IMPI" >"$OUT/settings-impi"
}
if [ "$what" = impi ]; then
    prepare_impi
    exit 0
fi
packages=$ROOT/ci/packages.d/clients
[ "$what" != vader ] || packages=$ROOT/ci/packages.d/mpi
case $(package_version openmpi-bin) in
"$OMPI_VERSION"-* | "") ;;
*) unable "needs Open MPI $OMPI_VERSION (Debian 12), found $(package_version openmpi-bin)" ;;
esac
[ "$what" != --check-release ] || exit 0
for package in $(grep -v '^#' "$packages"); do
    [ -n "$(package_version "$package")" ] || unable "package $package is missing; as root: apt-get install -y $(grep -v '^#' "$packages" | tr '\n' ' ')"
done
[ -n "$(package_version openmpi-bin)" ] || unable "needs Open MPI $OMPI_VERSION (Debian 12)"
case $what:$(package_version libucx-dev) in
vader:* | *:"$UCX_VERSION"-*) ;;
*) unable "needs UCX $UCX_VERSION (Debian 12), found $(package_version libucx-dev)" ;;
esac
[ -e "$ROOT/include/xpmem.h" ] || unable "include/xpmem.h is missing: run make first"
[ -e "$LIBDIR/libxpmem.so" ] || unable "$LIBDIR/libxpmem.so is missing: run make first"

# --- sources ---------------------------------------------------------------
# The system's own apt sources and keys, as deb-src, in a configuration of ours.
apt_configuration() {
    local apt=$CACHE/apt uri release component rest
    mkdir -p "$apt/lists/partial" "$apt/archives/partial"
    : >"$apt/sources.list"
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        sort -u | while read -r uri release component rest; do
        case $uri in
        *debian*) echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $release $component" ;;
        esac
    done >"$apt/sources.list"
    cat >"$apt/apt.conf" <<-CONF
		Dir::Etc::sourcelist "$apt/sources.list";
		Dir::Etc::sourceparts "-";
		Dir::State::lists "$apt/lists";
		Dir::Cache "$apt";
		APT::Sandbox::User "";
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
	CONF
    export APT_CONFIG=$apt/apt.conf
}

fetched() { compgen -G "$CACHE/src/$1" >/dev/null; }

fetch_source() {
    local package=$1 version=$2
    fetched "${package}_$version.orig.tar.*" && return 0
    mkdir -p "$CACHE/src"
    if [ -z "${APT_CONFIG_DONE:-}" ]; then
        apt_configuration
        apt-get -q update >"$CACHE/apt/update.log" 2>&1 || true
        APT_CONFIG_DONE=1
    fi
    (cd "$CACHE/src" && apt-get -q source --download-only --only-source "$package" >"$CACHE/apt/$package.log" 2>&1) || true
    fetched "${package}_$version.orig.tar.*"
}

# Whole files only: a download that broke off is not found the next time.
unpack() {
    local package=$1 version=$2 into=$OUT/src/$1
    [ -e "$into/.unpacked" ] && return 0
    rm -rf "$into"
    mkdir -p "$into"
    tar -xf "$(compgen -G "$CACHE/src/${package}_$version.orig.tar.*" | head -n 1)" -C "$into" --strip-components=1
    touch "$into/.unpacked"
}

mkdir -p "$OUT"
sources=("openmpi:$OMPI_VERSION")
[ "$what" = vader ] || sources+=("ucx:$UCX_VERSION")
for source in "${sources[@]}"; do
    fetch_source "${source%:*}" "${source#*:}" ||
        unable "the source package ${source%:*} ${source#*:} cannot be fetched: $(tail -n 1 "$CACHE/apt/${source%:*}.log" 2>/dev/null)"
    unpack "${source%:*}" "${source#*:}"
done
# mpi4py's tests: the source package, or the same release as its authors publish it.
if [ "$what" = vader ]; then
    :
elif fetch_source mpi4py $MPI4PY_VERSION; then
    unpack mpi4py $MPI4PY_VERSION
elif [ ! -e "$OUT/src/mpi4py/.unpacked" ]; then
    if [ ! -e "$CACHE/src/mpi4py-$MPI4PY_VERSION.tar.gz" ]; then
        /usr/bin/python3 -m pip download -q --no-deps --no-binary mpi4py -d "$CACHE/src" \
            "mpi4py==$MPI4PY_VERSION" >"$CACHE/apt/mpi4py-pip.log" 2>&1 || true
    fi
    if [ -e "$CACHE/src/mpi4py-$MPI4PY_VERSION.tar.gz" ]; then
        mkdir -p "$OUT/src/mpi4py"
        tar -xf "$CACHE/src/mpi4py-$MPI4PY_VERSION.tar.gz" -C "$OUT/src/mpi4py" --strip-components=1
        touch "$OUT/src/mpi4py/.unpacked"
    else
        say "clients: mpi4py's test-suite cannot be fetched; its cases will be skipped"
    fi
fi

# --- plugins ---------------------------------------------------------------
# Built again when our header, our library's link name or this script changed.
newer_than_all() {
    local target=$1 source
    shift
    [ -e "$target" ] || return 1
    for source in "$@"; do [ "$target" -nt "$source" ] || return 1; done
}

MPI_LIB=$(dirname "$(find /usr/lib -path '*/openmpi/lib/libmpi.so' | head -n 1)")
MPI_DEVEL=$(dirname "$MPI_LIB")/include
MPI_PLUGINS=$MPI_LIB/openmpi3
vader=$OUT/src/openmpi/opal/mca/btl/vader
if ! newer_than_all "$OUT/mca/mca_btl_vader.so" "$ROOT/include/xpmem.h" "$0"; then
    mkdir -p "$OUT/mca" "$OUT/config-ompi"
    sed -e 's/^#define OPAL_BTL_VADER_HAVE_XPMEM 0$/#define OPAL_BTL_VADER_HAVE_XPMEM 1/' \
        -e 's,^/\* #undef HAVE_XPMEM_H \*/$,#define HAVE_XPMEM_H 1,' \
        "$MPI_DEVEL/openmpi/opal_config.h" >"$OUT/config-ompi/opal_config.h"
    grep -q '^#define OPAL_BTL_VADER_HAVE_XPMEM 1' "$OUT/config-ompi/opal_config.h"
    files=()
    for part in module component frag send sendi get put xpmem knem sc_emu atomic; do
        files+=("$vader/btl_vader_$part.c")
    done
    gcc -std=gnu99 -DNDEBUG -O3 -g -fno-strict-aliasing -mcx16 -pthread -fPIC -shared -DHAVE_CONFIG_H \
        -I"$OUT/config-ompi" -I"$vader" -I"$MPI_DEVEL/openmpi" -I"$MPI_DEVEL" -I"$ROOT/include" \
        -idirafter "$OUT/src/openmpi" "${files[@]}" -o "$OUT/mca/mca_btl_vader.so" \
        -L"$LIBDIR" -lxpmem -l:libopen-pal.so.40
fi
plugins=(mca/mca_btl_vader.so)
[ "$what" = vader ] || plugins+=(libuct_xpmem.so.0)
if [ "$what" != vader ] && ! newer_than_all "$OUT/libuct_xpmem.so.0" "$ROOT/include/xpmem.h" "$0"; then
    mkdir -p "$OUT/config-ucx"
    ucx_info -b | grep '^#' >"$OUT/config-ucx/config.h"
    gcc -O2 -g -pthread -fPIC -shared -DHAVE_CONFIG_H -DCPU_FLAGS= -I"$OUT/config-ucx" -I"$OUT/src/ucx/src" \
        -I"$OUT/src/ucx" -I"$ROOT/include" "$OUT/src/ucx/src/uct/sm/mm/xpmem/mm_xpmem.c" \
        -Wl,-soname,libuct_xpmem.so.0 -o "$OUT/libuct_xpmem.so.0" \
        -L"$LIBDIR" -lxpmem -l:libuct.so.0 -l:libucs.so.0
fi
for plugin in "${plugins[@]}"; do
    readelf -d "$OUT/$plugin" | grep -q 'NEEDED.*libxpmem.so.0' || {
        say "clients: $plugin does not ask for libxpmem.so.0"
        exit 1
    }
done
for program in pingpong bench; do
    [ -e "$CLIENTS_DIR/$program.c" ] || continue
    newer_than_all "$OUT/$program" "$CLIENTS_DIR/$program.c" ||
        mpicc -O2 -g -Wall -Wextra -std=gnu11 -pthread -o "$OUT/$program" "$CLIENTS_DIR/$program.c"
done
newer_than_all "$OUT/late.so" "$CLIENTS_DIR/late.c" ||
    gcc -O2 -Wall -Wextra -std=gnu11 -shared -fPIC -o "$OUT/late.so" "$CLIENTS_DIR/late.c" -ldl
cat >"$OUT/settings" <<SETTINGS
MPI_PLUGINS=$MPI_PLUGINS
SETTINGS
