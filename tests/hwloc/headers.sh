#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/hwloc/headers.sh: our header compiles alone and beside hwloc's, before
# and after, in old and new C.
set -e
cd "$(dirname "$0")/../.."
try() {
    printf '%s\nint main(void) { return 0; }\n' "$2" |
        cc -std="$1" -pedantic -Wall -Werror -Iinclude -x c -fsyntax-only -
}
for std in c99 gnu11 gnu17; do
    try $std '#include <hwloc_shmem.h>'
    try $std '#include <hwloc_shmem.h>
#include <hwloc.h>
#include <hwloc/shmem.h>'
    try $std '#include <hwloc.h>
#include <hwloc/shmem.h>
#include <hwloc_shmem.h>'
done
