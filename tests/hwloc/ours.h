/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Our functions, for programs without hwloc's header. */
#ifndef TESTS_HWLOC_OURS_H
#define TESTS_HWLOC_OURS_H
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct ours {
	int (*get_length)(void *, size_t *, unsigned long);
	int (*write)(void *, int, uint64_t, void *, size_t, unsigned long);
	int (*adopt)(void **, int, uint64_t, void *, size_t, unsigned long);
};

static inline void *loaded(const char *path)
{
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!library) {
		printf("%s\n", dlerror());
		exit(1);
	}
	return library;
}

static inline struct ours load_ours(const char *path)
{
	void *library = loaded(path);

	return (struct ours){ dlsym(library, "hwloc_shmem_topology_get_length"),
			      dlsym(library, "hwloc_shmem_topology_write"),
			      dlsym(library, "hwloc_shmem_topology_adopt") };
}

#endif
