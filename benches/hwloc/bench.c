/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * bench LIBXPMEM: stock's functions beside ours, in one process, in turns.
 *
 * Both sides get the same topology; each figure is the median of many runs,
 * in microseconds of processor time: a busy machine disturbs it less.
 * "adopt+walk" is an adoption and one reading of every object
 * and every set, from untouched pages.
 *
 * Then what a process pays that adopts or loads for the first time, and what
 * copying a file costs beside mapping it, by size (COPY_LIMIT).
 */
#define _GNU_SOURCE
#include "../../tests/hwloc/dump.h"
#include <dlfcn.h>
#include <errno.h>
#include <hwloc/export.h>
#include <hwloc/shmem.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TURNS 5
#define ADDR ((void *)0x310000000000)

struct side {
	const char *name;
	int (*get_length)(hwloc_topology_t, size_t *, unsigned long);
	int (*write)(hwloc_topology_t, int, uint64_t, void *, size_t, unsigned long);
	int (*adopt)(hwloc_topology_t *, int, uint64_t, void *, size_t, unsigned long);
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int order(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *all, int n)
{
	qsort(all, n, sizeof(*all), order);
	return all[n / 2];
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/*
 * What an adopt cannot do without that looks at all of the file: a structure
 * made by the running library, the mapping, and one look at each line of the
 * cache. No comparison yet.
 */
static double bare(int fd, size_t length, size_t used, int runs)
{
	double *times = calloc(runs, sizeof(double)), m;
	volatile unsigned long sink = 0;
	int i;

	for (i = 0; i < runs; i++) {
		hwloc_topology_t t;
		double begin = now();
		const char *file;
		size_t at;

		hwloc_topology_init(&t);
		file = mmap(ADDR, length, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
		if (file != ADDR)
			die("mmap");
		for (at = 0; at < used; at += 64)
			sink += file[at];
		times[i] = now() - begin;
		munmap(ADDR, length);
		hwloc_topology_destroy(t);
	}
	m = median(times, runs);
	free(times);
	return m;
}

static void one(const char *name, const char *synthetic, int runs, struct side *sides)
{
	hwloc_topology_t t, adopted;
	double *times[2][5], m[2][5], begin, xml_time, xml_times[21], least = 0;
	size_t length, blocks[2] = { 0, 0 };
	char *xml;
	int s, i, k, turn, xml_length;
	volatile unsigned long sink = 0;

	begin = now();
	hwloc_topology_init(&t);
	hwloc_topology_set_synthetic(t, synthetic);
	hwloc_topology_load(t);
	if (hwloc_topology_export_xmlbuffer(t, &xml, &xml_length, 0))
		die("xml");
	for (s = 0; s < 2; s++)
		for (k = 0; k < 5; k++)
			times[s][k] = calloc(runs, sizeof(double));
	/* In turns of many runs: one side's work on the heap and the caches
	 * would otherwise be the other's. */
	for (turn = 0; turn < 2 * TURNS; turn++) {
		s = turn % 2;
		for (i = turn / 2; i < runs; i += TURNS) {
			int fd = memfd_create("bench", 0);
			struct stat st;

			begin = now();
			if (sides[s].get_length(t, &length, 0))
				die("get_length");
			times[s][0][i] = now() - begin;
			begin = now();
			if (sides[s].write(t, fd, 0, ADDR, length, 0))
				die("write");
			times[s][1][i] = now() - begin;
			begin = now();
			if (sides[s].adopt(&adopted, fd, 0, ADDR, length, 0))
				die("adopt");
			times[s][2][i] = now() - begin;
			sink += walk(adopted);
			times[s][3][i] = now() - begin;
			begin = now();
			hwloc_topology_destroy(adopted);
			times[s][4][i] = now() - begin;
			fstat(fd, &st);
			blocks[s] = st.st_blocks * 512;
			if (s == 1 && turn == 2 * TURNS - 1 && i + TURNS >= runs)
				least = bare(fd, length, blocks[s], runs);
			close(fd);
		}
	}
	for (i = 0; i < (runs < 50 ? 3 : 21); i++) {
		hwloc_topology_t again;

		begin = now();
		hwloc_topology_init(&again);
		hwloc_topology_set_xmlbuffer(again, xml, xml_length);
		hwloc_topology_load(again);
		xml_times[i] = now() - begin;
		hwloc_topology_destroy(again);
	}
	xml_time = median(xml_times, i);
	for (s = 0; s < 2; s++)
		for (k = 0; k < 5; k++)
			m[s][k] = median(times[s][k], runs);
	for (s = 0; s < 2; s++)
		printf("%-10s %-6s %10.1f %10.1f %10.1f %10.1f %10.1f %10zu\n", name,
		       sides[s].name, m[s][0], m[s][1], m[s][2], m[s][3], m[s][4], blocks[s]);
	printf("%-10s ratio  %9.2fx %9.2fx %9.2fx %9.2fx %9.2fx %9.2fx   load from XML %.0f us = %.0fx an adopt (stock's: %.0fx; one that only maps and reads: %.0fx)\n",
	       name, m[0][0] / m[1][0], m[0][1] / m[1][1], m[0][2] / m[1][2],
	       m[0][3] / m[1][3], m[0][4] / m[1][4], (double)blocks[0] / blocks[1],
	       xml_time, xml_time / m[1][2], xml_time / m[0][2], least ? xml_time / least : 0);
	fflush(stdout);
	hwloc_free_xmlbuffer(t, xml);
	hwloc_topology_destroy(t);
	for (s = 0; s < 2; s++)
		for (k = 0; k < 5; k++)
			free(times[s][k]);
}

static void *find(void *handle, const char *name)
{
	void *found = dlsym(handle, name);

	if (!found) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	return found;
}

/* The first thing that a process does with hwloc; its microseconds go to
 * standard output. */
static int first(int argc, char **argv)
{
	void *handle = NULL;
	hwloc_topology_t t;
	double begin;
	int fd = atoi(argv[3]), failed, n = 0;
	size_t length = strtoul(argv[4], NULL, 0);
	char *xml = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, 0);

	if (argc > 5)
		handle = dlopen(argv[5], RTLD_NOW | RTLD_LOCAL);
	begin = now();
	if (!strcmp(argv[2], "xml")) {
		n = length;
		failed = hwloc_topology_init(&t) || hwloc_topology_set_xmlbuffer(t, xml, n)
			|| hwloc_topology_load(t);
	} else {
		int (*adopt)(hwloc_topology_t *, int, uint64_t, void *, size_t, unsigned long) =
			handle ? dlsym(handle, "hwloc_shmem_topology_adopt")
			       : hwloc_shmem_topology_adopt;

		failed = adopt(&t, fd, 0, ADDR, length, 0);
	}
	printf("%f\n", now() - begin);
	return failed;
}

static double first_of(const char *self, const char *what, int fd, size_t length, const char *lib)
{
	double all[41];
	char command[4096];
	int i, n = getenv("BENCH_QUICK") ? 11 : 41;

	snprintf(command, sizeof(command), "%s first %s %d %zu %s", self, what, fd, length, lib);
	for (i = 0; i < n; i++) {
		FILE *out = popen(command, "r");

		if (!out || fscanf(out, "%lf", &all[i]) != 1 || pclose(out))
			die(command);
	}
	return median(all, n);
}

static void firsts(const char *self, const char *lib, const char *name, const char *synthetic,
		   struct side *sides)
{
	int i, fds[3], xml_length;
	hwloc_topology_t t;
	double us[3];
	size_t length;
	char *xml;

	hwloc_topology_init(&t);
	hwloc_topology_set_synthetic(t, synthetic);
	hwloc_topology_load(t);
	for (i = 0; i < 2; i++) {
		fds[i] = memfd_create("first", 0);
		if (sides[i].get_length(t, &length, 0)
		    || sides[i].write(t, fds[i], 0, ADDR, length, 0))
			die("write");
	}
	if (hwloc_topology_export_xmlbuffer(t, &xml, &xml_length, 0))
		die("xml");
	fds[2] = memfd_create("xml", 0);
	if (write(fds[2], xml, xml_length) != xml_length)
		die("xml");
	us[0] = first_of(self, "adopt", fds[0], length, "");
	us[1] = first_of(self, "adopt", fds[1], length, lib);
	us[2] = first_of(self, "xml", fds[2], xml_length, "");
	printf("%-10s first in a process: adopt stock %.0f, ours %.0f; load from XML %.0f = %.1fx ours (stock's: %.1fx)\n",
	       name, us[0], us[1], us[2], us[2] / us[1], us[2] / us[0]);
	fflush(stdout);
	for (i = 0; i < 3; i++)
		close(fds[i]);
	hwloc_free_xmlbuffer(t, xml);
	hwloc_topology_destroy(t);
}

/* Adopt, walk, destroy: of a copy and of a mapping. */
static void copied(const char *synthetic, int runs, struct side *sides)
{
	double *times[3], m[3], begin;
	volatile unsigned long sink = 0;
	hwloc_topology_t t, adopted;
	int i, s, fds[2];
	size_t length;
	struct stat st;

	hwloc_topology_init(&t);
	hwloc_topology_set_synthetic(t, synthetic);
	hwloc_topology_load(t);
	for (s = 0; s < 2; s++) {
		fds[s] = memfd_create("copied", 0);
		if (sides[s].get_length(t, &length, 0)
		    || sides[s].write(t, fds[s], 0, ADDR, length, 0))
			die("write");
	}
	for (s = 0; s < 3; s++) {
		times[s] = calloc(runs, sizeof(double));
		setenv("HWLOC_SHMEM_PRIVATE", s == 2 ? "1" : "0", 1);
		for (i = 0; i < runs; i++) {
			begin = now();
			if (sides[!!s].adopt(&adopted, fds[!!s], 0, ADDR, length, 0))
				die("adopt");
			sink += walk(adopted);
			hwloc_topology_destroy(adopted);
			times[s][i] = now() - begin;
		}
		m[s] = median(times[s], runs);
		free(times[s]);
	}
	unsetenv("HWLOC_SHMEM_PRIVATE");
	fstat(fds[1], &st);
	printf("%7zu bytes: stock %6.1f, ours mapped %6.1f (%.2fx), copied %6.1f (%.2fx)\n",
	       (size_t)st.st_blocks * 512, m[0], m[1], m[1] / m[0], m[2], m[2] / m[0]);
	for (s = 0; s < 2; s++)
		close(fds[s]);
	hwloc_topology_destroy(t);
}

int main(int argc, char **argv)
{
	static const char *const sizes[] = {
		"numa core:2 pu:1", "numa core:4 pu:2", "numa core:8 pu:2",
		"numa l2:8 l1:1 core:1 pu:2", "numa l2:16 l1:1 core:1 pu:2",
		"numa l2:32 l1:1 core:1 pu:2", "numa l2:64 l1:1 core:1 pu:2",
		"pack:2 [numa(memory=68719476736)] l3:8 l2:8 l1d:1 l1i:1 core:1 pu:2",
	};
	const char *small = "numa(memory=8589934592) core:4 pu:2";
	const char *large = "pack:2 [numa(memory=68719476736)] l3:8 l2:8 l1d:1 l1i:1 core:1 pu:2";
	struct side sides[2] = { { .name = "stock" }, { .name = "ours" } };
	void *handles[2];
	int s, scale = getenv("BENCH_QUICK") ? 10 : 1;
	size_t i;

	if (argc < 2)
		return 2;
	if (!strcmp(argv[1], "first"))
		return first(argc, argv);
	handles[0] = dlopen("libhwloc.so.15", RTLD_NOW);
	handles[1] = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
	if (!handles[1]) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	for (s = 0; s < 2; s++) {
		sides[s].get_length = find(handles[s], "hwloc_shmem_topology_get_length");
		sides[s].write = find(handles[s], "hwloc_shmem_topology_write");
		sides[s].adopt = find(handles[s], "hwloc_shmem_topology_adopt");
	}
	printf("hwloc %#x; microseconds, medians; bytes of the file in use\n",
	       hwloc_get_api_version());
	printf("%-10s %-6s %10s %10s %10s %10s %10s %10s\n", "machine", "", "get_length",
	       "write", "adopt", "adopt+walk", "destroy", "file");
	one("8 PUs", small, 2001 / scale, sides);
	one("256 PUs", large, 1001 / scale, sides);
	firsts(argv[0], argv[1], "8 PUs", small, sides);
	firsts(argv[0], argv[1], "256 PUs", large, sides);
	if (getenv("BENCH_QUICK"))
		return 0;
	one("10240 PUs", "pack:4 [numa] l3:16 l2:20 l1d:1 core:1 pu:8", 21, sides);
	one("2048 flat", "pu:2048", 51, sides);
	one("10000 flat", "pu:10000", 21, sides);
	printf("adopt, walk and destroy, by how much of the file is in use:\n");
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		copied(sizes[i], 501, sides);
	return 0;
}
