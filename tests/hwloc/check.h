/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the programs here share: an account of checks, machines, files. */
#ifndef TESTS_HWLOC_CHECK_H
#define TESTS_HWLOC_CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../lib/check.h"
#include <fcntl.h>
#include <hwloc.h>
#include <hwloc/shmem.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static inline hwloc_topology_t machine(const char *description)
{
	hwloc_topology_t t;

	if (hwloc_topology_init(&t) || hwloc_topology_set_synthetic(t, description)
	    || hwloc_topology_set_all_types_filter(t, HWLOC_TYPE_FILTER_KEEP_ALL)
	    || hwloc_topology_load(t)) {
		perror(description);
		exit(1);
	}
	return t;
}

/* Writes a topology, and answers the length; 0 if it cannot be. */
static inline size_t put(hwloc_topology_t t, int fd, uint64_t offset, void *addr)
{
	size_t length;

	if (hwloc_shmem_topology_get_length(t, &length, 0)
	    || hwloc_shmem_topology_write(t, fd, offset, addr, length, 0))
		return 0;
	return length;
}

/* A file without a name that holds a machine for an address. */
static inline int file_of(const char *description, void *addr, size_t *length)
{
	hwloc_topology_t t = machine(description);
	int fd = memfd_create("machine", MFD_CLOEXEC);

	*length = put(t, fd, 0, addr);
	if (!*length) {
		perror("write");
		exit(1);
	}
	hwloc_topology_destroy(t);
	return fd;
}

/* Runs what follows in a child, whose exit status 0 is a pass. */
static inline int child(void)
{
	fflush(stdout);
	return fork() == 0;
}

static inline int child_passed(void)
{
	int status;

	return wait(&status) > 0 && status == 0;
}

#endif
