/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Children of an owner of which much is shared: each page of a copy is right. */
#include "harness.h"

#include <pthread.h>
#include <sys/resource.h>

#define MIB (1ul << 20)
#define SIZE (24 * MIB)

/* Parts of it, from one to the next; each has a pattern of its own. */
enum { FIRST, DROPPED, SECOND, READ_ONLY, THIRD, NO_ACCESS, FOURTH, NOT_TOUCHED, PARTS };
static const size_t begins[PARTS + 1] = {
	0, 4 * MIB, 4 * MIB + 16 * PAGE, 8 * MIB, 9 * MIB, 10 * MIB, 11 * MIB, 20 * MIB, SIZE,
};

static char *memory;

static char *at(int part)
{
	return memory + begins[part];
}

static size_t size_of(int part)
{
	return begins[part + 1] - begins[part];
}

static int zeros(const char *from, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (from[i])
			return 0;
	return 1;
}

/* Which part is not as it should be, plus 1; what may not be read is left out. */
static int wrong_part(void)
{
	for (int part = FIRST; part < PARTS; part++) {
		int empty = part == DROPPED || part == NOT_TOUCHED;

		if (part == NO_ACCESS)
			continue;
		if (empty ? !zeros(at(part), size_of(part)) : verify((long)at(part), (long)size_of(part), part))
			return part + 1;
	}
	return 0;
}

/* In the child: all is there, its stores are its own, and so is what it drops. */
static long child_checks(long grandchild, long b, long c, long d)
{
	char *hidden = at(NO_ACCESS);
	int wrong = wrong_part();

	(void)b, (void)c, (void)d;
	if (wrong)
		return wrong;
	if (grandchild && run_in_child(child_checks, 0, 0, 0, 0))
		return 20;
	if (poke((long)at(READ_ONLY), 9) != -SIGSEGV)
		return 21;
	if (peek((long)hidden) != -SIGSEGV)
		return 22;
	if (mprotect(hidden, MIB, PROT_READ | PROT_WRITE) || verify((long)hidden, MIB, NO_ACCESS))
		return 23;
	memset(memory, 9, begins[READ_ONLY]);
	memset(hidden, 9, SIZE - begins[NO_ACCESS]);
	if (madvise(memory, 8 * PAGE, MADV_DONTNEED) || !zeros(memory, 8 * PAGE))
		return 24;
	return 0;
}

static void no_descriptor_is_left(void)
{
	struct rlimit limit = { 0, 0 };
	int next = dup(0);

	EXPECT(next >= 0);
	EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	close(next);
	limit.rlim_cur = next;
	EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	EXPECT_ERR(dup(0), EMFILE);
}

static void expect_copies(struct peer *p, long addr)
{
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(run_in_child(child_checks, i == 1, 0, 0, 0), 0);
		EXPECT_EQ(wrong_part(), 0);
		EXPECT_EQ(r_verify(p, addr, begins[DROPPED], FIRST), 0);
		EXPECT_EQ(r_verify(p, addr + begins[THIRD], size_of(THIRD), THIRD), 0);
	}
}

/* A part of it is never touched, one is dropped, and not all may be written. */
static long share_all(struct peer *p, int advice)
{
	long addr;

	memory = anonymous(SIZE);
	if (advice && madvise(memory, SIZE, advice))
		skip_case("no huge pages here");
	for (int part = FIRST; part < NOT_TOUCHED; part++)
		fill(at(part), size_of(part), part);
	addr = share(p, memory, SIZE);
	for (int part = FIRST; part < NOT_TOUCHED; part++)
		EXPECT_EQ(r_verify(p, addr + begins[part], size_of(part), part), 0);
	EXPECT_EQ(madvise(at(DROPPED), size_of(DROPPED), MADV_DONTNEED), 0);
	EXPECT_EQ(mprotect(at(READ_ONLY), size_of(READ_ONLY), PROT_READ), 0);
	EXPECT_EQ(mprotect(at(NO_ACCESS), size_of(NO_ACCESS), PROT_NONE), 0);
	return addr;
}

CASE(fork_large, "a child has a copy of each page of much shared memory, and its own from then on")
{
	struct peer p = spawn();
	long addr = share_all(&p, 0);

	expect_copies(&p, addr);
	no_descriptor_is_left();
	expect_copies(&p, addr);
	quit(&p);
}

CASE(fork_large_huge, "as fork_large, of memory that is to be on huge pages")
{
	struct peer p = spawn();
	long addr = share_all(&p, MADV_HUGEPAGE);

	expect_copies(&p, addr);
	quit(&p);
}

static volatile int counting;

/* Two counters, as far apart as can be: the first is ahead by one at most. */
static void *count(void *unused)
{
	volatile unsigned long *first = (unsigned long *)memory, *last = (unsigned long *)(memory + SIZE) - 1;

	(void)unused;
	while (counting) {
		++*first;
		++*last;
	}
	return NULL;
}

static long counters_agree(long a, long b, long c, long d)
{
	unsigned long first = *(unsigned long *)memory, last = *((unsigned long *)(memory + SIZE) - 1);

	(void)a, (void)b, (void)c, (void)d;
	return first - last > 1;
}

CASE(fork_large_moment, "a child's copy of much shared memory is of one moment")
{
	struct peer p = spawn();
	pthread_t thread;
	long addr;

	memory = anonymous(SIZE);
	memset(memory, 0, SIZE);
	addr = share(&p, memory, SIZE);
	for (size_t i = 0; i < SIZE; i += PAGE)
		EXPECT_EQ(r_peek(&p, addr + i), 0);
	counting = 1;
	EXPECT_EQ(pthread_create(&thread, NULL, count, NULL), 0);
	for (int i = 0; i < 10; i++)
		EXPECT_EQ(run_in_child(counters_agree, 0, 0, 0, 0), 0);
	counting = 0;
	EXPECT_EQ(pthread_join(thread, NULL), 0);
	EXPECT_EQ(counters_agree(0, 0, 0, 0), 0);
	quit(&p);
}
