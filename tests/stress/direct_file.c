// SPDX-License-Identifier: MIT OR Apache-2.0
// The file that devices read from, past the page cache.
#define _GNU_SOURCE
#include "pattern.h"
#include "worker.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

int direct_file = -1;

// Since Linux 6.8 pins can be told; before, a limit says so.
static bool pins_can_be_told(void)
{
	unsigned major = 0, minor = 0;
	struct utsname u;

	return !uname(&u) && sscanf(u.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 6 || (major == 6 && minor >= 8));
}

void direct_file_prepare(void)
{
	const char *dir = getenv("STRESS_FILES");
	char name[300];
	int plain;

	snprintf(name, sizeof(name), "%s/direct.XXXXXX", dir ? dir : "/tmp");
	plain = pins_can_be_told() ? mkostemp(name, O_CLOEXEC) : -1;
	if (plain >= 0) {
		direct_file = open(name, O_RDWR | O_DIRECT | O_CLOEXEC);
		unlink(name);
		close(plain);
	}
}

bool direct_store(struct worker *w, uint64_t *from, uint64_t len, uint32_t gen)
{
	pattern_fill(from, len / 8, w->key, gen);
	return pwrite(direct_file, from, len, w->id * DIRECT_PART) == (ssize_t)len;
}
