/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Preloaded in front of stock libhwloc or of libxpmem: one line of the file
 * SPY_FILE for each adoption, as a client sees it: "adopted", or the errno.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*adopt_fn)(void **, int, uint64_t, void *, size_t, unsigned long);

int hwloc_shmem_topology_adopt(void **t, int fd, uint64_t offset, void *addr, size_t length,
			       unsigned long flags);

int hwloc_shmem_topology_adopt(void **t, int fd, uint64_t offset, void *addr, size_t length,
			       unsigned long flags)
{
	adopt_fn next = (adopt_fn)dlsym(RTLD_NEXT, "hwloc_shmem_topology_adopt");
	int rc = next(t, fd, offset, addr, length, flags), saved = errno, out;
	char line[128];

	snprintf(line, sizeof(line), "pid %d: %s\n", (int)getpid(),
		 rc ? strerrorname_np(saved) : "adopted");
	out = open(getenv("SPY_FILE"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	if (out < 0 || write(out, line, strlen(line)) < 0)
		abort();
	close(out);
	errno = saved;
	return rc;
}
