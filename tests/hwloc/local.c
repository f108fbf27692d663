/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * local LIBXPMEM: first without any libhwloc in the process, where each call
 * is ENOSYS; then with one that was loaded RTLD_LOCAL, as under a language's
 * loader of modules, where RTLD_NEXT finds nothing.
 */
#define _GNU_SOURCE
#include "../lib/check.h"
#include "ours.h"
#include <sys/mman.h>

int main(int argc, char **argv)
{
	struct ours ours = load_ours(argc > 1 ? argv[1] : "libxpmem.so.0");
	void *hwloc, *t = NULL, *adopted = NULL, *addr = (void *)0x330000000000;
	int (*init)(void **), (*load)(void *), (*synthetic)(void *, const char *);
	void (*destroy)(void *), (*topology_check)(void *);
	char fake[1024] = "";
	size_t length = 0;
	int fd = memfd_create("local", 0);

	CHECK("no libhwloc yet", !dlopen("libhwloc.so.15", RTLD_NOW | RTLD_NOLOAD));
	errno = 0;
	CHECK("get_length", ours.get_length(fake, &length, 0) == -1 && errno == ENOSYS);
	errno = 0;
	CHECK("write", ours.write(fake, fd, 0, addr, 4096, 0) == -1 && errno == ENOSYS);
	errno = 0;
	CHECK("adopt", ours.adopt(&adopted, fd, 0, addr, 4096, 0) == -1 && errno == ENOSYS);

	hwloc = dlopen("libhwloc.so.15", RTLD_NOW | RTLD_LOCAL);
	if (!hwloc) {
		printf("%s\n", dlerror());
		return 77;
	}
	init = dlsym(hwloc, "hwloc_topology_init");
	load = dlsym(hwloc, "hwloc_topology_load");
	synthetic = dlsym(hwloc, "hwloc_topology_set_synthetic");
	destroy = dlsym(hwloc, "hwloc_topology_destroy");
	topology_check = dlsym(hwloc, "hwloc_topology_check");
	CHECK("not global", !dlsym(RTLD_DEFAULT, "hwloc_topology_init"));
	CHECK("load", !init(&t) && !synthetic(t, "numa core:4 pu:2") && !load(t));
	CHECK("get_length", !ours.get_length(t, &length, 0) && length);
	CHECK("write", !ours.write(t, fd, 0, addr, length, 0));
	CHECK("adopt", !ours.adopt(&adopted, fd, 0, addr, length, 0));
	if (adopted) {
		topology_check(adopted);
		destroy(adopted);
	}
	destroy(t);
	/* Pinned: what was learned of it stays good. */
	dlclose(hwloc);
	hwloc = dlopen("libhwloc.so.15", RTLD_NOW | RTLD_LOCAL);
	CHECK("again", hwloc && !init(&t) && !synthetic(t, "pu:2") && !load(t)
	      && !ours.get_length(t, &length, 0));
	return finish();
}
