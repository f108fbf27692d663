/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * mutate COUNT SEED FILE...: adopts COUNT damaged copies of each FILE. A copy
 * that is accepted is walked, queried, copied, compared, exported and checked.
 *
 * Each runs in a child process, many to a child; a child that crashes, aborts
 * or takes too long is a failure, and the next goes on behind it. The name of
 * a file is followed by .addr and .length files, as tests/hwloc/files.sh
 * leaves them. A number SEED and an index name a mutation for good:
 * mutate 1 SEED:INDEX FILE does that one in this process.
 */
#define _GNU_SOURCE
#include "dump.h"
#include "random.h"
#include "work.h"
#include <errno.h>
#include <fcntl.h>
#include <hwloc/shmem.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t value(const uint64_t *words, size_t used, uint64_t old, uint64_t addr)
{
	switch (next() % 12) {
	case 0: return 0;
	case 1: return ~0ull;
	case 2: return old ^ (1ull << (next() % 64));
	case 3: return words[next() % used];
	case 4: return addr + next() % (used * 8);
	case 5: return (addr + next() % (used * 8)) & ~7ull;
	case 6: return old + 8 * (next() % 64) - 256;
	case 7: return next();
	case 8: return next() % 300;
	case 9: return (old & 0xffffffff00000000u) | (uint32_t)(next() % 300);
	case 10: return (old & 0xffffffffu) | next() << 32;
	default: return (old & 0xffffffff00000000u) | (uint32_t)next();
	}
}

struct input {
	const char *path;
	uint64_t *words;
	size_t used, length;
	uint64_t addr;
};

static int read_input(struct input *in, const char *path)
{
	char name[4096];
	FILE *f;
	int fd;

	in->path = path;
	snprintf(name, sizeof(name), "%s.length", path);
	f = fopen(name, "r");
	if (!f || fscanf(f, "%zu", &in->length) != 1)
		return -1;
	fclose(f);
	in->words = mmap(NULL, in->length, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE, fd = open(path, O_RDONLY), 0);
	if (in->words == MAP_FAILED)
		return -1;
	close(fd);
	in->addr = in->words[1];
	for (in->used = in->length / 8; in->used > 128 && !in->words[in->used - 1];)
		in->used--;
	return 0;
}

static unsigned accepted;

/* One damaged copy, in the given file. */
static void one(const struct input *in, uint64_t seed, uint64_t index, int fd, FILE *out)
{
	size_t at[3];
	uint64_t old[3];
	unsigned n, i;
	hwloc_topology_t t;

	state = seed * 1000003 + index;
	n = 1 + next() % 3;
	for (i = 0; i < n; i++) {
		uint64_t word;

		/* The structure itself is small and matters most. */
		at[i] = 3 + (next() % 4 ? next() % (in->used - 3) : next() % 105);
		old[i] = in->words[at[i]];
		word = value(in->words, in->used, old[i], in->addr);
		in->words[at[i]] = word;
		pwrite(fd, &word, 8, at[i] * 8);
	}
	if (!hwloc_shmem_topology_adopt(&t, fd, 0, (void *)in->addr, in->length, 0)) {
		accepted++;
		walk(t);
		dump(t, DUMP_MEMATTRS | DUMP_BINDING | DUMP_REFRESH, out);
		rewind(out);
		exercise(t, DUMP_MEMATTRS | DUMP_REFRESH);
		hwloc_topology_destroy(t);
	} else if (errno != EINVAL) {
		fprintf(stderr, "errno %d instead of EINVAL\n", errno);
		abort();
	}
	while (n--) {
		in->words[at[n]] = old[n];
		pwrite(fd, &old[n], 8, at[n] * 8);
	}
}

static void run(const struct input *in, uint64_t seed, uint64_t from, uint64_t to,
		volatile uint64_t *progress)
{
	int fd = memfd_create("mutant", MFD_CLOEXEC);
	FILE *out = fopen("/dev/null", "w");

	/* Ours to the last byte: glibc's checks of the heap must not see the
	 * parent's. */
	if (fd < 0 || ftruncate(fd, in->length)
	    || pwrite(fd, in->words, in->used * 8, 0) != (ssize_t)in->used * 8)
		_exit(3);
	for (; from < to; from++) {
		progress[0] = from;
		limit_work(20);
		one(in, seed, from, fd, out);
		progress[1] = accepted;
	}
}

int main(int argc, char **argv)
{
	uint64_t count, seed, single = 0;
	volatile uint64_t *progress;
	unsigned crashes = 0, passed = 0, files = 0;
	uint64_t total = 0, taken = 0;
	int i;

	if (argc < 4)
		return 2;
	count = strtoull(argv[1], NULL, 0);
	seed = strtoull(argv[2], NULL, 0);
	progress = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (i = 3; i < argc; i++) {
		struct input in;
		uint64_t from = 0;

		if (read_input(&in, argv[i])) {
			printf("FAIL %s: %s\n", argv[i], strerror(errno));
			crashes++;
			continue;
		}
		files++;
		if (strchr(argv[2], ':')) {
			single = strtoull(strchr(argv[2], ':') + 1, NULL, 0);
			run(&in, seed, single, single + 1, progress);
			continue;
		}
		while (from < count) {
			uint64_t to = from + 2000 < count ? from + 2000 : count;
			int status;
			pid_t pid;

			progress[0] = from;
			progress[1] = 0;
			fflush(stdout);
			pid = fork();
			if (!pid) {
				run(&in, seed, from, to, progress);
				_exit(0);
			}
			waitpid(pid, &status, 0);
			taken += progress[1];
			if (status == 0) {
				passed += to - from;
				from = to;
				continue;
			}
			printf("FAIL %s mutation %llu:%llu: %s %d\n", argv[i],
			       (unsigned long long)seed, (unsigned long long)progress[0],
			       WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit",
			       status);
			passed += progress[0] - from;
			crashes++;
			from = progress[0] + 1;
			if (crashes > 40)
				break;
		}
		total += count;
		munmap(in.words, in.length);
	}
	printf("mutations: %llu of %u files, %llu accepted and used\n",
	       (unsigned long long)total, files, (unsigned long long)taken);
	printf("%u passed, %u failed\n", passed, crashes);
	return crashes != 0;
}
