// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "api.h"

#include <dlfcn.h>
#include <stdio.h>

struct xpmem_api xp;

bool xpmem_api_load(const char *path)
{
	void *lib = RTLD_DEFAULT;

	if (!dlsym(lib, "xpmem_make")) {
		lib = dlopen(path ? path : "libxpmem.so.0", RTLD_NOW | RTLD_LOCAL);
		if (!lib) {
			fprintf(stderr, "stress: %s\n", dlerror());
			return false;
		}
	}
	*(void **)&xp.make = dlsym(lib, "xpmem_make");
	*(void **)&xp.remove = dlsym(lib, "xpmem_remove");
	*(void **)&xp.get = dlsym(lib, "xpmem_get");
	*(void **)&xp.release = dlsym(lib, "xpmem_release");
	*(void **)&xp.attach = dlsym(lib, "xpmem_attach");
	*(void **)&xp.detach = dlsym(lib, "xpmem_detach");
	return xp.make && xp.remove && xp.get && xp.release && xp.attach && xp.detach;
}
