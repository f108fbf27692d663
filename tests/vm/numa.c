/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The owner's pages go from one memory node to the other, by move_pages(),
 * migrate_pages() and the kernel's own balancing, while both sides count on them.
 */
#include "count.h"

#define MPOL_MF_MOVE 2

/* With nodes, moves the owner's pages to them; without, says where they are. */
static void pages_of_owner(const int *nodes, int *status)
{
	void *pages[PAGES];

	for (long i = 0; i < PAGES; i++)
		pages[i] = (void *)(BASE + i * PAGE);
	CHECK(syscall(SYS_move_pages, owner.pid, PAGES, pages, nodes, status, nodes ? MPOL_MF_MOVE : 0) >= 0);
}

static long on_node(int node)
{
	int status[PAGES];
	long n = 0;

	pages_of_owner(NULL, status);
	for (long i = 0; i < PAGES; i++)
		n += status[i] == node;
	return n;
}

static long move_pages(int turn)
{
	int nodes[PAGES], status[PAGES];

	for (long i = 0; i < PAGES; i++)
		nodes[i] = turn & 1;
	pages_of_owner(nodes, status);
	return on_node(turn & 1);
}

static long migrate_pages(int turn)
{
	unsigned long from = turn & 1 ? 1 : 2, to = turn & 1 ? 2 : 1;

	CHECK(syscall(SYS_migrate_pages, owner.pid, 3, &from, &to) >= 0);
	return on_node(turn & 1);
}

/* The owner's threads run on the node. */
static long r_run_on(long node, long b, long c)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (int i = 0; i < 8; i++) {
		char path[64];

		snprintf(path, sizeof(path), "/sys/devices/system/node/node%ld/cpu%d", node, i);
		if (!access(path, F_OK))
			CPU_SET(i, &set);
	}
	return sched_setaffinity(0, sizeof(set), &set) || (counter && pthread_setaffinity_np(counter, sizeof(set), &set));
}

/* The kernel moves one by one what the owner touches: some are there in the end. */
static long balance(int turn)
{
	long n;

	CHECK(CALL(&owner, r_run_on, turn & 1, 0, 0) == 0);
	while ((n = on_node(turn & 1)) < PAGES / 4)
		usleep(10000);
	return n;
}

static long r_map_file(long size, long b, long c)
{
	int fd = memfd_create("numa", 0);

	if (fd < 0 || ftruncate(fd, size))
		return -errno;
	return (long)mmap((void *)BASE, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
}

static void map(int advice)
{
	CALL(&owner, r_map, BASE, SIZE, 0);
	CALL(&owner, r_madvise, BASE, SIZE, advice);
}

static void set_balancing(const char *on)
{
	CHECK(write_file("/proc/sys/kernel/numa_balancing", on) == 0);
	/* Soon, and often. */
	write_file("/sys/kernel/debug/sched/numa_balancing/scan_delay_ms", "50");
	write_file("/sys/kernel/debug/sched/numa_balancing/scan_period_min_ms", "50");
	write_file("/sys/kernel/debug/sched/numa_balancing/scan_period_max_ms", "200");
}

/* A page that somebody looks at at that moment stays where it is. */
#define MOST (PAGES / 2)
static void moved_small(void)
{
	map(MADV_NOHUGEPAGE);
	CHECK(count_while(move_pages) >= MOST);
}
static void moved_large(void)
{
	map(MADV_HUGEPAGE);
	CHECK(count_while(move_pages) >= MOST);
}
static void moved_file(void)
{
	CHECK(CALL(&owner, r_map_file, SIZE, 0, 0) == BASE);
	CHECK(count_while(move_pages) >= MOST);
}
static void migrated(void)
{
	map(MADV_NOHUGEPAGE);
	CHECK(count_while(migrate_pages) >= MOST);
}
static void migrated_large(void)
{
	map(MADV_HUGEPAGE);
	CHECK(count_while(migrate_pages) >= MOST);
}
static void balanced(void)
{
	set_balancing("1");
	for (int large = 0; large < 2; large++) {
		map(large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		CHECK(count_while(balance) > 0);
	}
	set_balancing("0");
}

int main(void)
{
	if (access("/sys/devices/system/node/node1", F_OK)) {
		printf("one memory node\n0 passed, 0 failed, 1 skipped\n");
		return 77;
	}
	count_begin();
	if (owner_begin())
		return 1;
	RUN(moved_small);
	RUN(moved_large);
	RUN(moved_file);
	RUN(migrated);
	RUN(migrated_large);
	RUN(balanced);
	return owner_end();
}
