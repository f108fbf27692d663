/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The functions of XPMEM, found at run time: preloaded or linked ones first,
 * else by dlopen() as an MPI plugin would.
 */
#ifndef TESTS_LIB_LOAD_H
#define TESTS_LIB_LOAD_H

#include "xpmem_api.h"

#include <stdbool.h>

/* All NULL before xpmem_api_load(). */
extern struct xpmem_api xp;

/* `path` may be NULL when the library is preloaded. */
bool xpmem_api_load(const char *path);

#endif
