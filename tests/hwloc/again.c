/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Adopt, destroy, adopt, in any order, number and place: each succeeds where
 * the addresses are free or held by the same file, and nothing stays.
 */
#include "check.h"
#include "dump.h"
#include <hwloc/export.h>
#include <pthread.h>

static char *const addr = (void *)0x350000000000;
static const char *const machines[] = {
	"pack:2 core:4 pu:2",	/* is copied */
	"pack:4 core:64 pu:2",	/* is mapped */
};

static int adopt(int fd, uint64_t offset, void *at, size_t length, hwloc_topology_t *t)
{
	return hwloc_shmem_topology_adopt(t, fd, offset, at, length, 0);
}

/* Whether nothing is mapped in a range. */
static int is_free(void *at, size_t length)
{
	void *got = mmap(at, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	munmap(got, length);
	return got == at;
}

/* Twice, destroyed in both orders, then another file in its place. */
static void reuse(const char *one, const char *two)
{
	size_t length, other;
	int fd = file_of(one, addr, &length), fd2 = file_of(two, addr, &other), order;
	hwloc_topology_t a, b, c;
	unsigned long sum;

	for (order = 0; order < 2; order++) {
		CHECK("first", !adopt(fd, 0, addr, length, &a));
		CHECK("second", !adopt(fd, 0, addr, length, &b));
		sum = walk(a);
		CHECK("equal", walk(b) == sum);
		CHECK("another file is refused", adopt(fd2, 0, addr, other, &c) && errno == EBUSY);
		hwloc_topology_destroy(order ? b : a);
		CHECK("the other stays", walk(order ? a : b) == sum);
		hwloc_topology_destroy(order ? a : b);
		CHECK("nothing stays", is_free(addr, length));
		CHECK("another file", !adopt(fd2, 0, addr, other, &c));
		hwloc_topology_destroy(c);
		CHECK("nothing stays", is_free(addr, other));
	}
	close(fd);
	close(fd2);
}

/* Several topologies in one file, at addresses in a row. */
static void adjacent(const char *description)
{
	hwloc_topology_t t = machine(description), a[6];
	int fd = memfd_create("adjacent", MFD_CLOEXEC), i;
	size_t length = put(t, fd, 0, addr);
	unsigned long sum = walk(t);

	for (i = 1; i < 3; i++)
		CHECK("written", put(t, fd, i * length, addr + i * length) == length);
	for (i = 0; i < 6; i++)
		CHECK("adopted", !adopt(fd, i % 3 * length, addr + i % 3 * length, length, &a[i]));
	for (i = 0; i < 6; i++) {
		CHECK("as written", walk(a[i]) == sum);
		hwloc_topology_destroy(a[i]);
	}
	CHECK("nothing stays", is_free(addr, 3 * length));
	hwloc_topology_destroy(t);
	close(fd);
}

/* More files at a time than any table has room for. */
static void many(void)
{
	enum { FILES = 300 };
	static hwloc_topology_t a[FILES], b[FILES];
	static int fds[FILES];
	hwloc_topology_t t = machine(machines[0]);
	unsigned long sum = walk(t);
	size_t length = 0;
	int i;

	for (i = 0; i < FILES; i++) {
		fds[i] = memfd_create("many", MFD_CLOEXEC);
		length = put(t, fds[i], 0, addr + i * (1l << 24));
	}
	for (i = 0; i < FILES; i++)
		CHECK("adopted", !adopt(fds[i], 0, addr + i * (1l << 24), length, &a[i]));
	for (i = 0; i < FILES; i++)
		CHECK("again", !adopt(fds[i], 0, addr + i * (1l << 24), length, &b[i]));
	for (i = 0; i < FILES; i++) {
		CHECK("as written", walk(a[i]) == sum && walk(b[i]) == sum);
		hwloc_topology_destroy(a[i]);
		hwloc_topology_destroy(b[i]);
		CHECK("nothing stays", is_free(addr + i * (1l << 24), length));
		close(fds[i]);
	}
	hwloc_topology_destroy(t);
}

struct thread {
	int fd, fails;
	size_t length;
	unsigned long sum;
};

static void *adopter(void *data)
{
	struct thread *me = data;
	hwloc_topology_t t;
	int i;

	for (i = 0; i < 400; i++) {
		if (adopt(me->fd, 0, addr, me->length, &t)) {
			me->fails++;
			continue;
		}
		if (walk(t) != me->sum)
			me->fails++;
		hwloc_topology_destroy(t);
	}
	return NULL;
}

/* Threads at once, all on one file. None may be refused. */
static void threads(const char *description)
{
	enum { THREADS = 8 };
	struct thread me[THREADS];
	pthread_t threads[THREADS];
	hwloc_topology_t t = machine(description), keep;
	size_t length;
	int fd = file_of(description, addr, &length), i;

	/* hwloc itself does not allow its components to come and go at once. */
	hwloc_topology_init(&keep);
	for (i = 0; i < THREADS; i++) {
		me[i] = (struct thread){ fd, 0, length, walk(t) };
		pthread_create(&threads[i], NULL, adopter, &me[i]);
	}
	for (i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		CHECK("no thread is refused", me[i].fails == 0);
	}
	CHECK("nothing stays", is_free(addr, length));
	hwloc_topology_destroy(keep);
	hwloc_topology_destroy(t);
	close(fd);
}

/* A child has its parent's topologies, and its own. */
static void forks(const char *description)
{
	size_t length;
	int fd = file_of(description, addr, &length);
	hwloc_topology_t a, b;
	unsigned long sum;

	CHECK("adopted", !adopt(fd, 0, addr, length, &a));
	sum = walk(a);
	if (child()) {
		if (walk(a) != sum || adopt(fd, 0, addr, length, &b) || walk(b) != sum)
			_exit(1);
		hwloc_topology_destroy(a);
		if (adopt(fd, 0, addr, length, &a) || walk(a) != sum || walk(b) != sum)
			_exit(2);
		hwloc_topology_destroy(b);
		hwloc_topology_destroy(a);
		_exit(!is_free(addr, length));
	}
	CHECK("in a child", child_passed());
	CHECK("the parent's stays", walk(a) == sum);
	hwloc_topology_destroy(a);
	CHECK("nothing stays", is_free(addr, length));
	close(fd);
}

/* A file that is deleted is gone with the last topology. */
static void deleted(void)
{
	char name[] = "/tmp/again.XXXXXX", line[512];
	hwloc_topology_t t = machine(machines[1]), a, b;
	int fd = mkstemp(name), left = 0;
	size_t length = put(t, fd, 0, addr);
	FILE *maps;

	CHECK("adopted", !adopt(fd, 0, addr, length, &a) && !adopt(fd, 0, addr, length, &b));
	unlink(name);
	close(fd);
	hwloc_topology_destroy(a);
	hwloc_topology_destroy(b);
	maps = fopen("/proc/self/maps", "r");
	while (fgets(line, sizeof(line), maps))
		left += strstr(line, name) != NULL;
	fclose(maps);
	CHECK("not held", left == 0);
	hwloc_topology_destroy(t);
}

/* What a program put at the address is not taken for the file. */
static void foreign(void)
{
	size_t length;
	int fd = file_of(machines[0], addr, &length), i;
	hwloc_topology_t t;
	void *map;

	for (i = 0; i < 4; i++) {
		map = mmap(addr + (i & 1 ? length - 4096 : 0), 4096, i & 2 ? PROT_NONE : PROT_READ,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK("taken", adopt(fd, 0, addr, length, &t) && errno == EBUSY);
		munmap(map, 4096);
	}
	CHECK("free again", !adopt(fd, 0, addr, length, &t));
	hwloc_topology_destroy(t);
	close(fd);
}

/* A restriction that takes nothing but a processor that may not be used can put
 * packages in another order: hwloc changes the list of children, and leaves ranks,
 * the way back and the array as they were. */
static void reordered(void)
{
	hwloc_topology_t all, t, a, b;
	hwloc_bitmap_t left = hwloc_bitmap_alloc();
	int fd = memfd_create("reordered", MFD_CLOEXEC), xml_length;
	size_t length;
	char *xml;

	hwloc_bitmap_set_range(left, 1, 3);
	hwloc_topology_init(&all);
	hwloc_topology_set_flags(all, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
	hwloc_topology_set_synthetic(all, "pack:2 core:2 pu:1(indexes=0,2,1,3)");
	hwloc_topology_load(all);
	hwloc_topology_allow(all, left, NULL, HWLOC_ALLOW_FLAG_CUSTOM);
	hwloc_topology_export_xmlbuffer(all, &xml, &xml_length, 0);
	hwloc_topology_init(&t);
	hwloc_topology_set_xmlbuffer(t, xml, xml_length);
	hwloc_topology_load(t);
	hwloc_free_xmlbuffer(all, xml);
	hwloc_topology_destroy(all);
	CHECK("restricted", !hwloc_topology_restrict(t, left, 0));
	CHECK("written", (length = put(t, fd, 0, addr)) != 0);
	CHECK("adopted", !adopt(fd, 0, addr, length, &a));
	CHECK("as written", walk(a) == walk(t));
	CHECK("adopted elsewhere", !adopt(fd, 0, addr, length, &b));
	CHECK("as written", walk(b) == walk(t));
	hwloc_topology_destroy(a);
	hwloc_topology_destroy(b);
	hwloc_topology_destroy(t);
	hwloc_bitmap_free(left);
	close(fd);
}

int main(void)
{
	int i;

	for (i = 0; i < 2; i++) {
		reuse(machines[i], machines[!i]);
		reuse(machines[i], "pack:1 core:6 pu:2");
		adjacent(machines[i]);
		threads(machines[i]);
		forks(machines[i]);
	}
	many();
	deleted();
	foreign();
	reordered();
	return finish();
}
