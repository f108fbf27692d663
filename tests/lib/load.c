/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _GNU_SOURCE
#include "load.h"

#include <dlfcn.h>
#include <stdio.h>

struct xpmem_api xp;

bool xpmem_api_load(const char *path)
{
	const struct {
		const char *name;
		void *to;
	} functions[] = {
		{ "xpmem_version", &xp.version }, { "xpmem_init", &xp.init },	    { "xpmem_ioctl", &xp.ioctl },
		{ "xpmem_make", &xp.make },	  { "xpmem_remove", &xp.remove },   { "xpmem_get", &xp.get },
		{ "xpmem_release", &xp.release }, { "xpmem_attach", &xp.attach },   { "xpmem_detach", &xp.detach },
	};
	void *lib = RTLD_DEFAULT;

	if (!dlsym(lib, "xpmem_make")) {
		lib = dlopen(path ? path : "libxpmem.so.0", RTLD_NOW | RTLD_LOCAL);
		if (!lib) {
			fprintf(stderr, "%s\n", dlerror());
			return false;
		}
	}
	for (unsigned i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		void *found = dlsym(lib, functions[i].name);

		if (!found) {
			fprintf(stderr, "no %s\n", functions[i].name);
			return false;
		}
		*(void **)functions[i].to = found;
	}
	return true;
}
