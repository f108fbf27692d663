/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Memory nodes: pages stay where they are, and come from where the owner's policy
 * says. The first call is made on node 1, so that whatever serves it is there, and
 * the peer runs there; then the owner goes to node 0.
 */
#include "harness.h"

#include <sched.h>
#include <sys/syscall.h>

enum { DEFAULT, PREFERRED, BIND, INTERLEAVE, LOCAL, PREFERRED_MANY, WEIGHTED };

#define SIZE (512 * PAGE)

/* Runs on the processors of a node from now on. */
static long run_on(long node, long b, long c, long d)
{
	cpu_set_t all, some;
	unsigned int cpu, found;

	(void)b, (void)c, (void)d;
	CPU_ZERO(&all);
	for (int i = 0; i < CPU_SETSIZE; i++)
		CPU_SET(i, &all);
	sched_setaffinity(0, sizeof all, &all);
	sched_getaffinity(0, sizeof all, &all);
	CPU_ZERO(&some);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		cpu_set_t one;

		CPU_ZERO(&one);
		CPU_SET(i, &one);
		if (CPU_ISSET(i, &all) && sched_setaffinity(0, sizeof one, &one) == 0 &&
		    syscall(SYS_getcpu, &cpu, &found, NULL) == 0 && found == node)
			CPU_SET(i, &some);
	}
	return sched_setaffinity(0, sizeof some, &some);
}

static long policy_of(void *address, unsigned long *nodes)
{
	int mode = -1;

	*nodes = 0;
	EXPECT_EQ(syscall(SYS_get_mempolicy, &mode, nodes, 64, address, 2 /* MPOL_F_ADDR */), 0);
	return mode;
}

/* The node of a page. */
static long node_of(char *page)
{
	void *pages[] = { page };
	int status = -1;

	EXPECT(peek((long)page) >= 0);
	EXPECT_EQ(syscall(SYS_move_pages, 0, 1, pages, NULL, &status, 0), 0);
	return status;
}

static char *small_pages(size_t size)
{
	char *memory = anonymous(size);

	madvise(memory, size, MADV_NOHUGEPAGE);
	return memory;
}

static int balanced(void)
{
	FILE *file = fopen("/proc/sys/kernel/numa_balancing", "r");
	int balanced = 0;

	if (file && fscanf(file, "%d", &balanced) != 1)
		balanced = 0;
	if (file)
		fclose(file);
	return balanced;
}

/* A peer on node 1 for an owner on node 0 that was on node 1 at its first call. */
static struct peer begin(void)
{
	unsigned long nodes = 0;
	struct peer p;

	if (syscall(SYS_get_mempolicy, NULL, &nodes, 64, NULL, 4 /* MPOL_F_MEMS_ALLOWED */) || (nodes & 3) != 3)
		skip_case("one memory node, or none may be asked for");
	if (balanced())
		skip_case("the kernel moves pages to other nodes by itself (numa_balancing)");
	p = spawn();
	if (run_on(1, 0, 0, 0) || call(&p, run_on, 1, 0, 0))
		skip_case("no processor on the second node");
	EXPECT(make_all() > 0);
	EXPECT_EQ(run_on(0, 0, 0, 0), 0);
	return p;
}

static void expect_all_on(char *memory, size_t size, long node)
{
	for (size_t at = 0; at < size; at += PAGE)
		EXPECT_EQ(node_of(memory + at), node);
}

static void touch_all(struct peer *p, long addr, size_t size)
{
	for (size_t at = 0; at < size; at += PAGE)
		EXPECT_EQ(r_poke(p, addr + (long)at, 5), 0);
}

/* Sharing all of it changes the nodes of no page. */
static void stay(struct peer *p, char *memory, size_t size)
{
	static char before[SIZE / PAGE];
	long addr;

	for (size_t at = 0; at < size; at += PAGE)
		before[at / PAGE] = (char)node_of(memory + at);
	addr = share(p, memory, size);
	EXPECT_EQ(r_verify(p, addr, (long)size, 3), 0);
	for (size_t at = 0; at < size; at += PAGE)
		EXPECT_EQ(node_of(memory + at), before[at / PAGE]);
}

CASE(nodes_of_first_touch, "pages that are shared stay on the nodes on which they were touched first")
{
	struct peer p = begin();
	char *memory = small_pages(SIZE), *small = anonymous(16 * PAGE);
	static char data[64 * PAGE] __attribute__((aligned(4096))) = { 1 };
	unsigned long nodes;

	fill(memory, SIZE / 2, 3);
	fill(small, 16 * PAGE, 3);
	fill(data, sizeof data, 3);
	EXPECT_EQ(run_on(1, 0, 0, 0), 0);
	fill(memory, SIZE, 3);
	EXPECT_EQ(run_on(0, 0, 0, 0), 0);
	EXPECT_EQ(node_of(memory), 0);
	EXPECT_EQ(node_of(memory + SIZE / 2), 1);
	stay(&p, small, 16 * PAGE);
	stay(&p, data, sizeof data);
	stay(&p, memory, SIZE);
	EXPECT_EQ(policy_of(memory, &nodes), DEFAULT);
	quit(&p);
}

/* Half touched, with a policy: what is there stays, what the peer touches first
 * comes from where the policy says, and so does what the owner touches later. */
static void with_policy(struct peer *p, int mode, unsigned long nodes, unsigned long wanted)
{
	char *memory = small_pages(SIZE);
	unsigned long found, seen = 0;
	long addr;

	if (syscall(SYS_mbind, memory, SIZE, mode, &nodes, 64, 0)) {
		EXPECT_EQ(errno, EINVAL);
		EXPECT(mode == PREFERRED_MANY || mode == WEIGHTED);
		return;
	}
	fill(memory, SIZE / 4, 3);
	stay(p, memory, SIZE / 4);
	addr = share(p, memory + SIZE / 4, SIZE / 2);
	EXPECT_EQ(r_fill(p, addr, SIZE / 2, 3), 0);
	memset(memory + SIZE / 4 * 3, 3, SIZE / 4);
	if (backend == BACKEND_USER || mode != LOCAL)
		for (size_t at = SIZE / 4; at < SIZE; at += PAGE)
			seen |= 1ul << node_of(memory + at);
	EXPECT_EQ(seen & ~wanted, 0);
	if (mode == INTERLEAVE || mode == WEIGHTED)
		EXPECT_EQ(seen, wanted);
	for (size_t at = 0; at < SIZE; at += SIZE / 8) {
		EXPECT_EQ(policy_of(memory + at, &found), mode);
		EXPECT_EQ(found, nodes);
	}
	EXPECT_EQ(munmap(memory, SIZE), 0);
}

CASE(nodes_of_policies, "the policy of a mapping holds for pages that come later, from owner or peer")
{
	struct peer p = begin();

	with_policy(&p, BIND, 2, 2);
	with_policy(&p, PREFERRED, 2, 2);
	with_policy(&p, PREFERRED_MANY, 2, 2);
	with_policy(&p, INTERLEAVE, 3, 3);
	with_policy(&p, WEIGHTED, 3, 3);
	with_policy(&p, LOCAL, 0, 1);
	with_policy(&p, BIND, 1, 1);
	quit(&p);
}

CASE(nodes_of_untouched, "a page that the owner has not touched is placed as the owner would have it")
{
	struct peer p = begin();
	char *memory = small_pages(SIZE);
	unsigned long nodes = 2;
	long addr = share(&p, memory, SIZE);

	if (backend != BACKEND_USER)
		skip_case("the kernel places it as the peer's thread would have it");
	touch_all(&p, addr, SIZE / 2);
	expect_all_on(memory, SIZE / 2, 0);
	/* Later on the owner thinks better of it. */
	EXPECT_EQ(syscall(SYS_set_mempolicy, BIND, &nodes, 64), 0);
	touch_all(&p, addr + SIZE / 2, SIZE / 2);
	expect_all_on(memory + SIZE / 4 * 3, SIZE / 4, 1);
	EXPECT_EQ(syscall(SYS_set_mempolicy, DEFAULT, NULL, 0), 0);
	/* Small attachments have all their pages at once. */
	memory = anonymous(16 * PAGE);
	share(&p, memory, 16 * PAGE);
	expect_all_on(memory, 16 * PAGE, 0);
	quit(&p);
}

CASE(nodes_bound_later, "a policy that is set after memory was shared holds")
{
	struct peer p = begin();
	char *memory = small_pages(SIZE), *moved;
	unsigned long nodes = 2, found;
	long addr = share(&p, memory, SIZE);

	memset(memory, 3, PAGE);
	EXPECT_EQ(r_peek(&p, addr), 3);
	EXPECT_EQ(syscall(SYS_mbind, memory, SIZE, BIND, &nodes, 64, 0), 0);
	memset(memory + SIZE / 2, 3, SIZE / 4);
	touch_all(&p, addr, SIZE);
	expect_all_on(memory + SIZE / 4, SIZE / 4 * 3, 1);
	EXPECT_EQ(policy_of(memory, &found), BIND);
	/* Private again, it has the same pages of the same nodes, and the policy. */
	moved = mremap(memory, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, small_pages(SIZE));
	if (moved == MAP_FAILED && errno == EFAULT)
		skip_case("this kernel moves one mapping at a time");
	EXPECT(moved != MAP_FAILED);
	EXPECT_EQ(node_of(moved), 0);
	expect_all_on(moved + SIZE / 4, SIZE / 4 * 3, 1);
	EXPECT_EQ(policy_of(moved, &found), BIND);
	/* What is mapped in its place has none of that. */
	memory = mmap(memory, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	fill(memory, SIZE, 3);
	stay(&p, memory, SIZE);
	EXPECT_EQ(policy_of(memory, &found), DEFAULT);
	quit(&p);
}

static long touch_on(long addr, long size, long node, long d)
{
	long done = run_on(node, 0, 0, 0);

	(void)d;
	memset((void *)addr, 3, (size_t)size);
	return done;
}

CASE(nodes_of_shared_anonymous, "shared anonymous memory stays on its nodes, with its policy")
{
	struct peer p = begin();
	unsigned long nodes = 3, found;
	char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	EXPECT(memory != MAP_FAILED);
	EXPECT_EQ(syscall(SYS_mbind, memory + SIZE / 2, SIZE / 2, INTERLEAVE, &nodes, 64, 0), 0);
	EXPECT_EQ(touch_on((long)memory + PAGE, PAGE, 1, 0), 0);
	EXPECT_EQ(run_on(0, 0, 0, 0), 0);
	fill(memory, SIZE, 3);
	EXPECT_EQ(node_of(memory + PAGE), 1);
	stay(&p, memory, SIZE);
	EXPECT_EQ(policy_of(memory + SIZE / 2, &found), INTERLEAVE);
	EXPECT_EQ(policy_of(memory, &found), DEFAULT);
	quit(&p);
}
