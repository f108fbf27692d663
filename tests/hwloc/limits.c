/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An adoption needs what stock's needs and no more: no descriptor, no file, no
 * more memory. When there is none the answer is ENOMEM, once. Each case is the
 * first adoption of a process.
 *
 * With noalloc.c preloaded: each allocation of ours fails once.
 */
#include "check.h"
#include "dump.h"
#include "sandbox.h"
#include "../../include/hwloc_shmem.h"
#include <dlfcn.h>
#include <sys/resource.h>

static void *const addr = (void *)0x380000000000;
static int fd;
static size_t length;
static unsigned long sum;

static int adopt(hwloc_topology_t *t)
{
	return hwloc_shmem_topology_adopt(t, fd, 0, addr, length, 0);
}

/* 0: adopted and right; else the errno. */
static int adopts(void)
{
	hwloc_topology_t t;
	int rc;

	if (adopt(&t))
		return errno;
	rc = walk(t) == sum ? 0 : 1000;
	hwloc_topology_destroy(t);
	return rc;
}

static void limit(int what, rlim_t soft)
{
	struct rlimit r;

	getrlimit(what, &r);
	r.rlim_cur = soft < r.rlim_max ? soft : r.rlim_max;
	setrlimit(what, &r);
}

static void descriptors(void)
{
	if (child()) {
		int rc, next = dup(fd);

		close(next);
		limit(RLIMIT_NOFILE, next);
		rc = adopts();
		limit(RLIMIT_NOFILE, RLIM_INFINITY);
		_exit(rc ? rc : adopts());
	}
	CHECK("no descriptor is left", child_passed());
}

static void files(rlim_t bytes)
{
	if (child()) {
		limit(RLIMIT_FSIZE, bytes);
		_exit(adopts());
	}
	CHECK("no file may be made", child_passed());
}

/* A system call that fails, or for which the kernel ends the program. */
static void refused(int number, unsigned answer)
{
	if (child()) {
		refuse(number, answer);
		_exit(adopts());
	}
	CHECK("a system call is refused", child_passed());
}

static size_t size_now(int data)
{
	size_t all, resident, shared, text, lib, own;
	FILE *f = fopen("/proc/self/statm", "r");

	if (fscanf(f, "%zu %zu %zu %zu %zu %zu", &all, &resident, &shared, &text, &lib, &own) != 6)
		_exit(9);
	fclose(f);
	return (data ? own : all) * getpagesize();
}

/* Every amount of memory, from none on; then enough. */
static void memory(int what)
{
	int enough = 0, short_of = 0, steps = 0;
	size_t more;

	for (more = 0; more < length * 3 + (1 << 20); more += 8192, steps++) {
		int status;

		if (child()) {
			int rc;

			limit(RLIMIT_CORE, 0);
			limit(what, size_now(what == RLIMIT_DATA) + more);
			rc = adopts();
			limit(what, RLIM_INFINITY);
			if (adopts())
				_exit(3);
			_exit(rc == 0 ? 0 : rc == ENOMEM ? 1 : 2);
		}
		wait(&status);
		enough += status == 0;
		short_of += WIFEXITED(status) && WEXITSTATUS(status) == 1;
	}
	CHECK("ENOMEM or adopted, and adopted later", enough + short_of == steps);
	CHECK("there is enough at some time", enough > 0);
}

static void environment(const char *name, const char *value)
{
	if (child()) {
		setenv(name, value, 1);
		_exit(adopts());
	}
	CHECK(name, child_passed());
}

/* A topology for the gap, which another process writes: there it is free. */
static int adopt_there(const char *self, hwloc_topology_t t, unsigned long low)
{
	int file = memfd_create("gap", 0), status, tries;
	char where[32], name[32];
	hwloc_topology_t a;
	size_t n;

	hwloc_shmem_topology_get_length(t, &n, 0);
	snprintf(where, sizeof(where), "%#lx", low - n - 65536);
	snprintf(name, sizeof(name), "%d", file);
	/* Its stack may begin there too. */
	for (tries = 0; tries < 20; tries++) {
		if (child()) {
			execl("/proc/self/exe", self, "write", where, name, NULL);
			_exit(9);
		}
		wait(&status);
		if (status == 0)
			break;
	}
	errno = 0;
	return status != 0 || hwloc_shmem_topology_adopt(&a, file, 0, (void *)(low - n - 65536), n, 0) == 0
		|| errno != EBUSY;
}

/* In the gap that the kernel keeps below the stack, asked of a child that was
 * started anew, so that its stack is elsewhere than the writer's. */
static int below_the_stack(const char *self)
{
	char line[512];
	unsigned long low = 0;
	hwloc_topology_t t = machine("pu:2");
	size_t n;
	int file = memfd_create("gap", 0);
	FILE *maps = fopen("/proc/self/maps", "r");
	void *at;

	while (fgets(line, sizeof(line), maps))
		if (strstr(line, "[stack]"))
			low = strtoul(line, NULL, 16);
	fclose(maps);
	hwloc_shmem_topology_get_length(t, &n, 0);
	for (at = (char *)low - n; (char *)at > (char *)low - n - (1 << 20); at = (char *)at - 65536) {
		void *free_there = mmap(at, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		munmap(free_there, n);
		errno = 0;
		if ((hwloc_shmem_topology_write(t, file, 0, at, n, 0) == 0) != (free_there == at)
		    || (free_there != at && errno != EBUSY))
			return 1;
	}
	return adopt_there(self, t, low);
}

/* Behind the heap, where it grows: what mmap says, we say. */
static void behind_the_heap(void)
{
	if (child()) {
		char *at = (char *)(((uintptr_t)sbrk(0) + 4095) & ~4095ul);
		hwloc_topology_t t = machine("pu:2"), a;
		size_t n;
		int file = memfd_create("heap", 0), i, rc;

		hwloc_shmem_topology_get_length(t, &n, 0);
		for (i = 0; i < 64; i++, at += 4096) {
			void *there = mmap(at, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

			munmap(there, n);
			rc = hwloc_shmem_topology_write(t, file, 0, at, n, 0);
			if ((rc == 0) != (there == at))
				_exit(1);
			if (rc == 0) {
				if (hwloc_shmem_topology_adopt(&a, file, 0, at, n, 0))
					_exit(2);
				/* The heap goes around it. */
				free(malloc(100000));
				hwloc_topology_destroy(a);
			}
		}
		_exit(0);
	}
	CHECK("behind the heap", child_passed());
}

/* Each allocation of ours fails once, for each call. */
static void sweep(const char *what, const char *name, const char *value)
{
	long *countdown = dlsym(RTLD_DEFAULT, "noalloc_countdown"), n;
	int (*find)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "noalloc_find");
	int status, errors = 0;

	CHECK("libxpmem is found", find());
	for (n = 0; n < 10000; n++) {
		if (child()) {
			hwloc_topology_t t = machine("pack:2 [numa] core:8 pu:2"), a = NULL, b = NULL;
			struct hwloc_location l = { .type = HWLOC_LOCATION_TYPE_OBJECT };
			int file = memfd_create("sweep", 0), rc;
			pid_t self = getpid();
			void *at;
			size_t size;

			l.location.object = hwloc_get_root_obj(t);
			hwloc_memattr_set_value(t, HWLOC_MEMATTR_ID_BANDWIDTH,
				hwloc_get_obj_by_type(t, HWLOC_OBJ_NUMANODE, 1), &l, 0, 5);
			if (name)
				setenv(name, value, 1);
			if (!strcmp(what, "second") && adopt(&a))
				_exit(9);
			*countdown = n;
			errno = 0;
			if (!strcmp(what, "length"))
				rc = hwloc_shmem_topology_get_length(t, &size, 0);
			else if (!strcmp(what, "write"))
				rc = hwloc_shmem_topology_write(t, file, 0, addr, 1 << 20, 0);
			else if (!strcmp(what, "hole"))
				rc = xpmem_hwloc_hole_find(&self, 1, 4096, &at);
			else
				rc = adopt(&b);
			if (*countdown >= 0)
				_exit(rc == 0 ? 42 : 1);
			/* What failed could be done without, or the call fails. */
			if (rc && errno != ENOMEM)
				_exit(2);
			if (!rc && b && walk(b) != sum)
				_exit(3);
			_exit(0);
		}
		wait(&status);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 42)
			break;
		errors += status != 0;
	}
	printf("%s%s%s: %ld allocations, %d errors\n", what, name ? " " : "", name ? name : "", n, errors);
	CHECK("each allocation may fail", errors == 0 && n < 10000);
}

int main(int argc, char **argv)
{
	static const char *const machines[] = { "pack:2 core:4 pu:2", "pack:4 [numa] core:64 pu:2" };
	int i, status;

	if (argc > 3)
		return !put(machine("pu:2"), atoi(argv[3]), 0, (void *)strtoul(argv[2], NULL, 0));
	if (argc > 1)
		return below_the_stack(argv[0]);
	for (i = 0; i < 2; i++) {
		hwloc_topology_t t = machine(machines[i]);

		sum = walk(t);
		hwloc_topology_destroy(t);
		/* The writer is another process: this one has not used us. */
		fd = memfd_create("limits", 0);
		if (child()) {
			size_t n = put(machine(machines[i]), fd, 0, addr);

			_exit(write(fd, "", 0) || n % 4096 || !n);
		}
		CHECK("written", child_passed());
		pread(fd, &length, sizeof(length), 16);
		if (dlsym(RTLD_DEFAULT, "noalloc_countdown")) {
			sweep("length", NULL, NULL);
			sweep("write", NULL, NULL);
			sweep("adopt", NULL, NULL);
			sweep("adopt", "HWLOC_THISSYSTEM", "0");
			sweep("second", NULL, NULL);
			sweep("hole", NULL, NULL);
			continue;
		}
		descriptors();
		files(0);
		files(4096);
		refused(SYS_memfd_create, SECCOMP_RET_ERRNO | EPERM);
		refused(SYS_memfd_create, SECCOMP_RET_KILL_PROCESS);
		memory(RLIMIT_AS);
		memory(RLIMIT_DATA);
		environment("HWLOC_THISSYSTEM", "0");
		environment("HWLOC_THISSYSTEM", "1");
		environment("HWLOC_COMPONENTS", "-x86,linux,stop");
		environment("HWLOC_SYNTHETIC", "pu:3");
		environment("HWLOC_XMLFILE", "/nonexistent");
		close(fd);
	}
	behind_the_heap();
	for (i = 0; i < 8; i++) {
		if (child()) {
			execl("/proc/self/exe", argv[0], "below the stack", NULL);
			_exit(9);
		}
		wait(&status);
		CHECK("below the stack", status == 0);
	}
	return finish();
}
