// SPDX-License-Identifier: MIT OR Apache-2.0
// The public XPMEM calls, found at run time: preloaded or linked ones first,
// else by dlopen() as an MPI plugin would. The checker's own test has none.
#ifndef STRESS_API_H
#define STRESS_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct xpmem_addr_abi {
	int64_t apid;
	off_t offset;
};

struct xpmem_api {
	int64_t (*make)(void *vaddr, size_t size, int permit_type, void *permit_value);
	int (*remove)(int64_t segid);
	int64_t (*get)(int64_t segid, int flags, int permit_type, void *permit_value);
	int (*release)(int64_t apid);
	void *(*attach)(struct xpmem_addr_abi addr, size_t size, void *vaddr);
	int (*detach)(void *vaddr);
};
extern struct xpmem_api xp;

#define XP_MAXADDR ((size_t)-1)
#define XP_RDWR 2
#define XP_PERMIT_MODE 1

// `path` may be NULL when the library is preloaded.
bool xpmem_api_load(const char *path);

#endif
