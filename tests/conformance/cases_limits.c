/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory that cannot be shared: the owner must not notice that it was tried. */
#include "harness.h"

#include <sys/syscall.h>

#ifndef __NR_mseal
#define __NR_mseal 462
#endif

CASE(sealed_memory, "memory that may not be replaced keeps its content")
{
	struct peer p = spawn();
	char *sealed = anonymous(16 * PAGE), *other = anonymous(PAGE);
	long addr, result;

	setenv("XPMEM_WAIT", "0", 1);
	fill(sealed, 16 * PAGE, 1);
	fill(other, PAGE, 2);
	if (syscall(__NR_mseal, sealed, 16 * PAGE, 0))
		skip_case("no mseal");
	EXPECT(make_all() > 0);
	addr = share(&p, other, PAGE);
	EXPECT_EQ(r_verify(&p, addr, PAGE, 2), 0);
	/* A window large enough to be lazy. */
	addr = share(&p, sealed - 1024 * PAGE, 2048 * PAGE) + 1024 * PAGE;
	result = r_verify(&p, addr, 16 * PAGE, 1);
	EXPECT(result == 0 || FAULTED(result));
	EXPECT_EQ(verify((long)sealed, 16 * PAGE, 1), 0);
	quit(&p);
}

#define SEALED (16 * PAGE)

/* Memory that the peer has, and that has been sealed since: where, and where there. */
static char *seal_shared(struct peer *p, long *there)
{
	char *memory = anonymous(3 * SEALED);

	/* A hole on both sides: nothing is joined with it. */
	EXPECT_EQ(munmap(memory, PAGE), 0);
	EXPECT_EQ(munmap(memory + 3 * SEALED - PAGE, PAGE), 0);
	memory += SEALED;
	fill(memory, SEALED, 1);
	*there = share(p, memory, SEALED);
	EXPECT_EQ(r_verify(p, *there, SEALED, 1), 0);
	if (syscall(__NR_mseal, memory, SEALED, 0))
		skip_case("no mseal");
	return memory;
}

CASE(sealed_then_unmapped, "a call that is refused for sealed memory changes nothing of what is shared")
{
	struct peer p = spawn();
	long there, beside;
	char *memory = seal_shared(&p, &there);

	beside = share(&p, memory - 4 * PAGE, 4 * PAGE);
	fill(memory - 4 * PAGE, 4 * PAGE, 2);
	EXPECT_EQ(r_verify(&p, beside, 4 * PAGE, 2), 0);
	EXPECT_ERR(munmap(memory, SEALED), EPERM);
	EXPECT_EQ(verify((long)memory, SEALED, 1), 0);
	EXPECT_EQ(r_verify(&p, there, SEALED, 1), 0);
	/* Nor what is beside it and is not sealed. */
	EXPECT_ERR(munmap(memory - 4 * PAGE, 4 * PAGE + SEALED), EPERM);
	EXPECT_EQ(verify((long)memory - 4 * PAGE, 4 * PAGE, 2), 0);
	EXPECT_EQ(r_verify(&p, beside, 4 * PAGE, 2), 0);
	EXPECT_ERR(mremap(memory, SEALED, SEALED / 2, 0), EPERM);
	EXPECT_ERR(mremap(memory, SEALED, 2 * SEALED, MREMAP_MAYMOVE), EPERM);
	EXPECT_ERR(mprotect(memory, SEALED, PROT_READ), EPERM);
	EXPECT_ERR(mmap(memory, SEALED, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EPERM);
	EXPECT_EQ(verify((long)memory, SEALED, 1), 0);
	EXPECT_EQ(r_verify(&p, there, SEALED, 1), 0);
	EXPECT_EQ(r_poke(&p, there, 9), 0);
	EXPECT_EQ(memory[0], 9);
	quit(&p);
}

CASE(sealed_then_dropped, "what may only be read, and is sealed, is not dropped")
{
	struct peer p = spawn();
	char *memory = anonymous(SEALED);
	long there;

	fill(memory, SEALED, 1);
	there = share(&p, memory, SEALED);
	EXPECT_EQ(r_verify(&p, there, SEALED, 1), 0);
	EXPECT_EQ(mprotect(memory, SEALED, PROT_READ), 0);
	if (syscall(__NR_mseal, memory, SEALED, 0))
		skip_case("no mseal");
	EXPECT_ERR(madvise(memory, SEALED, MADV_DONTNEED), EPERM);
	EXPECT_EQ(verify((long)memory, SEALED, 1), 0);
	EXPECT_EQ(r_verify(&p, there, SEALED, 1), 0);
	quit(&p);
}

CASE(sealed_then_forked, "a child has a copy of what was shared and is sealed")
{
	struct peer p = spawn();
	long there;
	char *memory = seal_shared(&p, &there);
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	EXPECT(pid >= 0);
	if (pid == 0) {
		if (verify((long)memory, SEALED, 1))
			_exit(1);
		fill(memory, SEALED, 2);
		_exit(verify((long)memory, SEALED, 2) != 0);
	}
	EXPECT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(verify((long)memory, SEALED, 1), 0);
	EXPECT_EQ(r_verify(&p, there, SEALED, 1), 0);
	quit(&p);
}

/*
 * Maps single pages until the kernel refuses, in such a way that none can be
 * joined, and goes on with those of last time.
 */
static long exhaust(char **pages, long n)
{
	while (n < 300000) {
		int prot = n & 1 ? PROT_READ : PROT_NONE;
		char *p = mmap(NULL, PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			return n;
		pages[n++] = p;
	}
	skip_case("there is no limit to the number of mappings");
}

#define CHUNKS 120
#define CHUNK (16 * PAGE)

CASE(limit_of_mappings, "the owner keeps its bytes where it has as many mappings as it may have")
{
	struct peer p = spawn();
	static char *pages[300000];
	/* Chunks that are not promoted with their neighbours. */
	char *base = anonymous(8 * CHUNKS * CHUNK);
	long addr, result, n = 0;

	setenv("XPMEM_WAIT", "0", 1);
	for (long i = 0; i < CHUNKS; i++)
		fill(base + 8 * i * CHUNK, CHUNK, i);
	addr = share(&p, base, 8 * CHUNKS * CHUNK);
	EXPECT_EQ(r_verify(&p, addr, CHUNK, 0), 0);
	for (long i = 1; i < CHUNKS; i++) {
		n = exhaust(pages, n);
		for (int k = 0; k < i % 20; k++)
			EXPECT_EQ(munmap(pages[--n], PAGE), 0);
		result = r_verify(&p, addr + 8 * i * CHUNK, PAGE, i);
		EXPECT(result == 0 || FAULTED(result));
		EXPECT_EQ(verify((long)base + 8 * i * CHUNK, CHUNK, i), 0);
	}
	while (n > 0)
		munmap(pages[--n], PAGE);
	for (long i = 0; i < CHUNKS; i++)
		EXPECT_EQ(verify((long)base + 8 * i * CHUNK, CHUNK, i), 0);
	quit(&p);
}

static long f_poke_scattered(long base, long size, long count, long seed)
{
	unsigned long state = seed;
	long served = 0;

	for (long i = 0; i < count; i++) {
		state = state * 6364136223846793005ul + 1442695040888963407ul;
		served += poke(base + (long)((state >> 20) % (size / PAGE)) * PAGE, 'x') == 0;
	}
	return served;
}

static long f_poke_each(long base, long distance, long count, long d)
{
	long served = 0;

	(void)d;
	for (long i = 0; i < count; i++)
		served += poke(base + i * distance, 'x') == 0;
	return served;
}

static long mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	long n = 0;
	int c;

	EXPECT(maps);
	while ((c = getc(maps)) != EOF)
		n += c == '\n';
	fclose(maps);
	return n;
}

CASE(scattered_pages, "a peer reaches as many places as it likes, and the owner keeps its mappings")
{
	struct peer p = spawn();
	const char *ranges = getenv("XPMEM_TEST_RANGES");
	/* As dense as 40,000 pages in 32 GiB, where the limit is lower, too. */
	long size = ranges ? atol(ranges) << 21 : 8l << 30;
	long count = 1000, most = ranges ? atol(ranges) : 65530 / 4, before, addr;
	char *heap;
	unsigned long state = 5;

	if (getenv("CASES_ROUNDS"))
		count = atol(getenv("CASES_ROUNDS"));
	if (getenv("CASES_HEAP"))
		size = atol(getenv("CASES_HEAP")) << 30;
	heap = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (heap == MAP_FAILED)
		skip_case("no room for a heap");
	/* Each place is a page and no huge one: a small machine has not so much. */
	madvise(heap, size, MADV_NOHUGEPAGE);
	/* Some of it is in use. */
	for (long at = 0; at < size; at += 997 * PAGE)
		heap[at] = 'y';
	addr = share(&p, heap, size);
	before = mappings();
	EXPECT_EQ(call4(&p, f_poke_scattered, addr, size, count, 5), count);
	EXPECT(mappings() <= before + 2 * most + 32);
	for (long i = 0; i < count; i++) {
		state = state * 6364136223846793005ul + 1442695040888963407ul;
		EXPECT_EQ(heap[(state >> 20) % (size / PAGE) * PAGE], 'x');
	}
	for (long at = 0; at < size; at += 997 * PAGE)
		EXPECT(heap[at] == 'y' || heap[at] == 'x');
	quit(&p);
}

/* With XPMEM_TEST_RANGES=100 the owner is short of mappings. Without, these show
 * that the places are reached. */
#define FAR (512l << 20)

CASE(scattered_far_apart, "places half a GiB apart cost the owner no more mappings than others")
{
	struct peer p = spawn();
	const char *ranges = getenv("XPMEM_TEST_RANGES");
	long count = ranges ? atol(ranges) * 5 / 4 : 20, most = ranges ? atol(ranges) : count, before, addr;
	char *heap = mmap(NULL, count * FAR, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (heap == MAP_FAILED)
		skip_case("no room for a heap");
	madvise(heap, count * FAR, MADV_NOHUGEPAGE);
	addr = share(&p, heap, count * FAR);
	before = mappings();
	EXPECT_EQ(call4(&p, f_poke_each, addr + FAR / 2, FAR, count, 0), count);
	if (getenv("CASES_VERBOSE"))
		printf("  %ld mappings more, %ld ranges\n", mappings() - before, most);
	EXPECT(mappings() <= before + 2 * most + 32);
	for (long i = 0; i < count; i++)
		EXPECT_EQ(heap[FAR / 2 + i * FAR], 'x');
	quit(&p);
}

CASE(scattered_mappings, "memory that is many mappings already costs none more where they are short")
{
	enum { SPAN = 256 };
	struct peer p = spawn();
	const char *ranges = getenv("XPMEM_TEST_RANGES");
	long count = ranges ? atol(ranges) * 2 : 20, most = ranges ? atol(ranges) : count, before, addr;
	char *heap = anonymous(count * SPAN * PAGE);

	madvise(heap, count * SPAN * PAGE, MADV_NOHUGEPAGE);
	for (long i = 0; i < count; i++)
		EXPECT_EQ(mprotect(heap + i * SPAN * PAGE, PAGE, PROT_NONE), 0);
	addr = share(&p, heap, count * SPAN * PAGE);
	before = mappings();
	EXPECT_EQ(call4(&p, f_poke_each, addr + SPAN / 2 * PAGE, SPAN * PAGE, count, 0), count);
	if (getenv("CASES_VERBOSE"))
		printf("  %ld mappings more, %ld ranges\n", mappings() - before, most);
	EXPECT(mappings() <= before + 2 * most + 32);
	for (long i = 0; i < count; i++)
		EXPECT_EQ(heap[(i * SPAN + SPAN / 2) * PAGE], 'x');
	quit(&p);
}

CASE(unmap_refused, "a munmap that is refused for want of mappings changes nothing of what is shared")
{
	struct peer p = spawn();
	static char *pages[300000];
	char *memory = anonymous(48 * PAGE);
	long addr, n, done;

	fill(memory, 48 * PAGE, 1);
	addr = share(&p, memory, 48 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 48 * PAGE, 1), 0);
	n = exhaust(pages, 0);
	/* One would become two. */
	done = munmap(memory + 16 * PAGE, 16 * PAGE);
	EXPECT(done == 0 || errno == ENOMEM);
	while (n > 0)
		munmap(pages[--n], PAGE);
	if (done)
		EXPECT_EQ(verify((long)memory, 48 * PAGE, 1), 0);
	if (done)
		EXPECT_EQ(r_verify(&p, addr, 48 * PAGE, 1), 0);
	quit(&p);
}
