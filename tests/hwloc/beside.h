/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * One case after the other, each twice and in a process of its own: with stock's
 * functions and with ours. A case answers a number, in which an errno is what
 * `answer` makes of it. Wherever stock succeeds we do, and say the same of what was
 * adopted; where it fails, so do we, unless the case is marked BETTER; and where it
 * dies we do not.
 */
#ifndef TESTS_HWLOC_BESIDE_H
#define TESTS_HWLOC_BESIDE_H
#include "check.h"
#include "dump.h"
#include "work.h"
#include <dlfcn.h>

struct calls {
	int (*get_length)(hwloc_topology_t, size_t *, unsigned long);
	int (*write)(hwloc_topology_t, int, uint64_t, void *, size_t, unsigned long);
	int (*adopt)(hwloc_topology_t *, int, uint64_t, void *, size_t, unsigned long);
};

/* Ours may succeed, or fail for another reason, where stock fails. */
#define BETTER 1
/* Both fail, each for its own reason, or succeed alike. */
#define UNLIKE 2
/* Stock takes it, or dies of it; ours does not. */
#define REFUSED 4

struct beside {
	const char *name;
	unsigned long (*run)(const struct calls *);
	int flags;
};

static char *const addr = (void *)0x340000000000;
static struct calls stock, ours;

#define FAILED 0x1000000ul
/* Neither an errno nor 0. */
#define SUCCESS (1ul << 63)
static inline unsigned long answer(int rc)
{
	return rc ? FAILED + errno : 0;
}

/* Adopts, reads everything, destroys. */
static inline unsigned long adopted(const struct calls *c, int fd, uint64_t offset, void *at, size_t length)
{
	hwloc_topology_t t;
	unsigned long sum;

	errno = 0;
	if (c->adopt(&t, fd, offset, at, length, 0))
		return answer(-1);
	sum = walk(t);
	hwloc_topology_destroy(t);
	return sum | SUCCESS;
}

/* Writes with the same side, and adopts; the topology stays. */
static inline unsigned long shared_by(const struct calls *c, hwloc_topology_t t)
{
	int fd = memfd_create("beside", MFD_CLOEXEC);
	unsigned long got;
	size_t length;

	if (c->get_length(t, &length, 0))
		return answer(-1) + 0x10000;
	if (c->write(t, fd, 0, addr, length, 0))
		return answer(-1) + 0x20000;
	got = adopted(c, fd, 0, addr, length);
	close(fd);
	return got;
}

static inline void load_sides(const char *path)
{
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!lib) {
		printf("%s\n", dlerror());
		exit(1);
	}
	stock = (struct calls){ hwloc_shmem_topology_get_length, hwloc_shmem_topology_write,
				hwloc_shmem_topology_adopt };
	*(void **)&ours.get_length = dlsym(lib, "hwloc_shmem_topology_get_length");
	*(void **)&ours.write = dlsym(lib, "hwloc_shmem_topology_write");
	*(void **)&ours.adopt = dlsym(lib, "hwloc_shmem_topology_adopt");
}

static inline int one_side(const struct beside *b, const struct calls *c, unsigned long *got)
{
	int ends[2], high, status;

	*got = 0;
	if (pipe2(ends, O_CLOEXEC))
		return -1;
	/* What a case closes or takes up is not this. */
	high = fcntl(ends[1], F_DUPFD_CLOEXEC, 900);
	close(ends[1]);
	ends[1] = high;
	if (child()) {
		unsigned long said;

		limit_work(60);
		said = b->run(c);
		_exit(write(ends[1], &said, sizeof(said)) != sizeof(said));
	}
	close(ends[1]);
	if (read(ends[0], got, sizeof(*got)) < 0)
		*got = 0;
	close(ends[0]);
	wait(&status);
	return status;
}

static inline int alike(int flags, int dies, unsigned long with_stock, unsigned long with_ours)
{
	if (flags & REFUSED)
		return !(with_ours & SUCCESS);
	if (flags & UNLIKE && !(with_stock & SUCCESS))
		return !(with_ours & SUCCESS);
	if (flags & BETTER && (with_stock & ~0xfffffful) == FAILED)
		return 1;
	return dies || with_ours == with_stock;
}

static inline void beside(const struct beside *list, const char *only)
{
	for (; list->name; list++) {
		unsigned long with_stock, with_ours;
		int dies, status;

		if (only && strcmp(only, list->name))
			continue;
		dies = one_side(list, &stock, &with_stock);
		status = one_side(list, &ours, &with_ours);
		if (getenv("BESIDE_SHOW"))
			printf("%-40s stock %x %lx, ours %x %lx\n", list->name, dies, with_stock,
			       status, with_ours);
		errno = 0;
		CHECK(list->name, status == 0 && alike(list->flags, dies, with_stock, with_ours));
	}
}

#endif
