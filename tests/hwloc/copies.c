/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Several copies of hwloc in one process. With MODULE: a module as a language
 * loads it, linked with a copy of its own. With PREFIXED: the host of a copy
 * whose functions have a prefix. Else: the host of modules, or a program that
 * is linked with a copy of whatever kind, which then calls `use` itself.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <hwloc.h>
#include <hwloc/shmem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ADDR ((void *)0x370000000000)

#ifndef HOST
/* The file that holds the code of a topology's first binding hook. */
static const char *owner(hwloc_topology_t t)
{
	void *hooks[24];
	Dl_info info;
	int i;

	memcpy(hooks, (char *)t + 456, sizeof(hooks));
	for (i = 0; i < 24; i++)
		if (hooks[i] && dladdr(hooks[i], &info))
			return info.dli_fname;
	return "nobody";
}

/* Writes a machine, and adopts and destroys it, all with this object's copy;
 * answers what failed. */
int use(const char *mine, int fd, int write_it)
{
	static size_t length;
	hwloc_topology_t t, adopted = NULL;
	hwloc_bitmap_t set = hwloc_bitmap_alloc();
	int rc = 0;

	hwloc_topology_init(&t);
	hwloc_topology_set_flags(t, HWLOC_TOPOLOGY_FLAG_IS_THISSYSTEM);
	hwloc_topology_set_synthetic(t, "pack:2 core:4 pu:2");
	hwloc_topology_load(t);
	if (hwloc_shmem_topology_get_length(t, &length, 0)
	    || (write_it && hwloc_shmem_topology_write(t, fd, 0, ADDR, length, 0))
	    || hwloc_shmem_topology_adopt(&adopted, fd, 0, ADDR, length, 0)) {
		rc = errno;
	} else {
		if (!strstr(owner(adopted), mine)) {
			printf("%s adopts for %s\n", mine, owner(adopted));
			rc = 1000;
		}
		if (hwloc_get_nbobjs_by_type(adopted, HWLOC_OBJ_PU) != 16
		    || hwloc_get_cpubind(adopted, set, 0))
			rc = 1001;
	}
	hwloc_topology_destroy(t);
	/* The last topology of this copy: it aborts if it is another's. */
	if (adopted)
		hwloc_topology_destroy(adopted);
	hwloc_bitmap_free(set);
	return rc;
}
#endif

#ifdef HOST
/* HOST MINE MODULE [MINE MODULE...]: each is loaded for itself alone. */
int main(int argc, char **argv)
{
	int (*use[8])(const char *, int, int), i, round, rc, failed = 0;
	int fd = memfd_create("copies", 0);

	for (i = 1; i + 1 < argc; i += 2) {
		void *module = dlopen(argv[i + 1], RTLD_NOW | RTLD_LOCAL);

		if (!module) {
			printf("%s\n", dlerror());
			return 1;
		}
		*(void **)&use[i / 2] = dlsym(module, "use");
	}
	for (round = 0; round < 3; round++)
		for (i = 1; i + 1 < argc; i += 2) {
			rc = use[i / 2](argv[i], fd, round != 1 || !getenv("COPIES_CROSS"));
			if (rc) {
				printf("%s: %s\n", argv[i], rc < 1000 ? strerror(rc) : "wrong");
				failed = 1;
			}
		}
	return failed;
}
#elif !defined(MODULE)
/* PROGRAM MINE ERRNO: what `use` has to answer. */
int main(int argc, char **argv)
{
	int rc = use(argv[1], memfd_create("copies", 0), 1);

	if (argc > 2 && rc != atoi(argv[2]))
		printf("%s instead of %s\n", strerror(rc), strerror(atoi(argv[2])));
	return argc <= 2 || rc != atoi(argv[2]);
}
#endif
