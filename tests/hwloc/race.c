/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * race COUNT SEED: a process changes words of a file, and changes them back,
 * all the time, while another adopts the file COUNT times at the least.
 *
 * What is copied (small files, or HWLOC_SHMEM_PRIVATE=1) is then used in every
 * way: it was checked after it was copied, and nobody can change it. What is
 * mapped is only adopted and destroyed: there our own code must do with
 * whatever it reads, and end. Last, the file is cut to nothing under an
 * adopted copy.
 */
#define _GNU_SOURCE
#include "dump.h"
#include "random.h"
#include "work.h"
#include <errno.h>
#include <hwloc/shmem.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static char *const addr = (void *)0x340000000000;

/* Changes up to three words at a time, for ever. */
static void disturb(volatile uint64_t *words, size_t used)
{
	for (;;) {
		size_t at[3], n = 1 + next() % 3, i;
		uint64_t old[3];
		volatile unsigned spin;

		for (i = 0; i < n; i++) {
			at[i] = 3 + (next() % 4 ? next() % (used - 3) : next() % 105);
			old[i] = words[at[i]];
			switch (next() % 5) {
			case 0: words[at[i]] = words[next() % used]; break;
			case 1: words[at[i]] = (uint64_t)addr + next() % used * 8; break;
			case 2: words[at[i]] = old[i] ^ 1ull << (next() % 64); break;
			case 3: words[at[i]] = next() % 300; break;
			default: words[at[i]] = next();
			}
		}
		for (spin = 0; spin < next() % 20000; spin++)
			;
		while (n--)
			words[at[n]] = old[n];
		for (spin = 0; spin < next() % 20000; spin++)
			;
	}
}

struct result {
	unsigned adopted, refused;
};

/* Adopts until both ends were seen. */
static void adopt_all(int fd, size_t length, unsigned count, int use, struct result *result)
{
	FILE *out = fopen("/dev/null", "w");
	hwloc_topology_t t;

	while (result->adopted + result->refused < count || !result->adopted || !result->refused) {
		if (hwloc_shmem_topology_adopt(&t, fd, 0, addr, length, 0)) {
			if (errno != EINVAL)
				_exit(3);
			result->refused++;
			continue;
		}
		result->adopted++;
		if (use) {
			walk(t);
			if (result->adopted % 16 == 0) {
				dump(t, DUMP_MEMATTRS | DUMP_REFRESH, out);
				rewind(out);
				exercise(t, DUMP_MEMATTRS | DUMP_REFRESH);
			}
		}
		hwloc_topology_destroy(t);
	}
	_exit(0);
}

/* The last word that is not zero, and one more. */
static size_t used(const uint64_t *words, size_t length)
{
	size_t n = length / 8;

	while (n > 128 && !words[n - 1])
		n--;
	return n;
}

static int one(const char *name, const char *machine, unsigned count, int use)
{
	hwloc_topology_t source, t;
	struct result *result = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int fd = memfd_create("race", 0), status, good;
	pid_t writer, adopter;
	uint64_t *words;
	unsigned long sum;
	size_t length;

	hwloc_topology_init(&source);
	hwloc_topology_set_synthetic(source, machine);
	hwloc_topology_load(source);
	sum = walk(source);
	if (hwloc_shmem_topology_get_length(source, &length, 0)
	    || hwloc_shmem_topology_write(source, fd, 0, addr, length, 0)) {
		perror("write");
		return 1;
	}
	words = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	writer = fork();
	if (!writer)
		disturb(words, used(words, length));
	adopter = fork();
	if (!adopter) {
		limit_work(60);
		adopt_all(fd, length, count, use, result);
	}
	waitpid(adopter, &status, 0);
	kill(writer, SIGKILL);
	waitpid(writer, NULL, 0);
	good = status == 0;
	printf("%s %s: %u adopted, %u refused%s\n", good ? "ok" : "FAIL", name, result->adopted,
	       result->refused, good ? "" : WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "");

	if (use) {
		int after = hwloc_shmem_topology_write(source, fd, 0, addr, length, 0)
			|| hwloc_shmem_topology_adopt(&t, fd, 0, addr, length, 0);

		if (!after) {
			if (ftruncate(fd, 0))
				after = 1;
			after |= walk(t) != sum || exercise(t, DUMP_MEMATTRS | DUMP_REFRESH);
			hwloc_topology_destroy(t);
		}
		printf("%s %s: cut to nothing under an adopted topology\n", after ? "FAIL" : "ok", name);
		good &= !after;
	}
	munmap(words, length);
	munmap(result, 4096);
	close(fd);
	hwloc_topology_destroy(source);
	return !good;
}

int main(int argc, char **argv)
{
	const char *large = "pack:2 [numa(memory=68719476736)] l3:8 l2:8 l1d:1 l1i:1 core:1 pu:2";
	unsigned count = argc > 1 ? atoi(argv[1]) : 3000, failed = 0;

	state = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	failed += one("small, copied", "numa(memory=8589934592) core:4 pu:2", count, 1);
	/* Adopted only: that is quick, and a value that changes between two looks is rare. */
	failed += one("large, mapped", large, 4 * count, 0);
	setenv("HWLOC_SHMEM_PRIVATE", "1", 1);
	failed += one("large, copied on request", large, count, 1);
	printf("%u passed, %u failed\n", 3 - failed, failed);
	return failed != 0;
}
