/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Two machines and their files, for cases that put them to stock and to us. */
#ifndef TESTS_HWLOC_FILES_H
#define TESTS_HWLOC_FILES_H
#include "beside.h"

static hwloc_topology_t small, large;
static size_t length, large_length;
/* Written by stock. */
static int fd, large_fd;

static unsigned long both_files(const struct calls *c)
{
	unsigned long sum = adopted(c, fd, 0, addr, length);

	if ((sum & ~0xfffffful) == FAILED)
		return sum;
	return adopted(c, large_fd, 0, addr, large_length);
}

static unsigned long everything(const struct calls *c)
{
	unsigned long sum = both_files(c);

	return (sum & ~0xfffffful) == FAILED ? sum : shared_by(c, small);
}

static int stock_file(hwloc_topology_t t, size_t *n)
{
	int file = memfd_create("stock", 0);

	if (stock.get_length(t, n, 0) || stock.write(t, file, 0, addr, *n, 0)) {
		perror("stock writes");
		exit(1);
	}
	return file;
}

static inline int run_cases(const struct beside *cases, int argc, char **argv)
{
	load_sides(argc > 1 ? argv[1] : "libxpmem.so.0");
	small = machine("pack:2 core:4 pu:2");
	large = machine("pack:4 [numa] core:64 pu:2");
	fd = stock_file(small, &length);
	large_fd = stock_file(large, &large_length);
	beside(cases, argc > 2 ? argv[2] : NULL);
	return finish();
}

#endif
