/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory on huge pages stays on huge pages, for owner and peer. */
#include "harness.h"

#define HUGE (2ul << 20)
#define PAGES 8
#define SIZE (PAGES * HUGE)

/* How much of [memory, memory + size) is mapped by huge pages, as smaps tells. */
static long huge_bytes(long memory, long size, long c, long d)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long start = 0, end = 0;
	long total = 0, kb;
	char line[512];

	(void)c, (void)d;
	EXPECT(file);
	while (fgets(line, sizeof line, file)) {
		char *dash = strchr(line, '-'), *space = strchr(line, ' ');

		if (dash && space && dash < space && sscanf(line, "%lx-%lx ", &start, &end) == 2)
			continue;
		if (start >= (unsigned long)memory + (unsigned long)size || end <= (unsigned long)memory)
			continue;
		if (sscanf(line, "AnonHugePages: %ld", &kb) == 1 || sscanf(line, "ShmemPmdMapped: %ld", &kb) == 1 ||
		    sscanf(line, "FilePmdMapped: %ld", &kb) == 1)
			total += kb << 10;
	}
	fclose(file);
	return total;
}

/* How often the kernel has found no room for a huge page. */
static long out_of_room(void)
{
	FILE *file = fopen("/proc/vmstat", "r");
	char line[128];
	long count = 0;

	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "thp_collapse_alloc_failed %ld", &count) == 1)
			break;
	if (file)
		fclose(file);
	return count;
}

static long failed_before;

/* Memory on huge pages, where there are any. */
static char *huge_pages(int advice)
{
	char *memory = anonymous(SIZE + HUGE);

	failed_before = out_of_room();
	memory += -(unsigned long)memory % HUGE;
	if (madvise(memory, SIZE, advice))
		skip_case("no huge pages here");
	fill(memory, SIZE, 1);
	if (advice == MADV_HUGEPAGE && huge_bytes((long)memory, SIZE, 0, 0) < (long)SIZE)
		skip_case("no huge pages here");
	return memory;
}

/* The kernel puts pages together, and tells of them in one call, since Linux 6.7. */
static void expect_huge(char *memory, long least)
{
	if (out_of_room() != failed_before)
		skip_case("the kernel has no room for huge pages");
	if (backend == BACKEND_USER && excused("source_pinned_huge", backend))
		skip_case("huge pages become small ones before Linux 6.8");
	EXPECT(huge_bytes((long)memory, SIZE, 0, 0) >= least);
}

CASE(huge_stay_huge, "huge pages that a peer has touched are huge pages, at the owner and at the peer")
{
	struct peer p = spawn();
	char *memory = huge_pages(MADV_HUGEPAGE);
	long addr = share(&p, memory, SIZE);

	for (size_t at = 0; at < SIZE; at += HUGE / 8)
		EXPECT_EQ(r_peek(&p, addr + (long)at), (unsigned char)memory[at]);
	expect_huge(memory, SIZE / 100 * 95);
	if (backend == BACKEND_USER)
		EXPECT(call(&p, huge_bytes, addr, SIZE, 0) >= (long)SIZE / 100 * 95);
	EXPECT_EQ(r_verify(&p, addr, SIZE, 1), 0);
	EXPECT_EQ(r_fill(&p, addr, SIZE, 2), 0);
	EXPECT_EQ(verify((long)memory, SIZE, 2), 0);
	expect_huge(memory, SIZE / 100 * 95);
	quit(&p);
}

CASE(huge_in_part, "a peer that touches a part of a huge page leaves it a huge page")
{
	struct peer p = spawn();
	char *memory = huge_pages(MADV_HUGEPAGE);
	long addr = share(&p, memory + HUGE / 2 + PAGE, 3 * PAGE);

	EXPECT_EQ(r_peek(&p, addr), (unsigned char)memory[HUGE / 2 + PAGE]);
	addr = share(&p, memory + HUGE + HUGE / 2, HUGE);
	EXPECT_EQ(r_peek(&p, addr), (unsigned char)memory[HUGE + HUGE / 2]);
	EXPECT_EQ(r_peek(&p, addr + HUGE - PAGE), (unsigned char)memory[2 * HUGE + HUGE / 2 - PAGE]);
	expect_huge(memory, SIZE);
	EXPECT_EQ(verify((long)memory, SIZE, 1), 0);
	quit(&p);
}

CASE(huge_dropped_in_part, "a part of a huge page that is shared can be dropped, and unmapped")
{
	struct peer p = spawn();
	char *memory = huge_pages(MADV_HUGEPAGE);
	long addr = share(&p, memory, SIZE);

	EXPECT_EQ(r_verify(&p, addr, SIZE, 1), 0);
	EXPECT_EQ(madvise(memory + 3 * PAGE, PAGE, MADV_DONTNEED), 0);
	EXPECT_EQ(memory[3 * PAGE], 0);
	EXPECT_EQ(r_peek(&p, addr + 3 * PAGE), 0);
	EXPECT_EQ(r_poke(&p, addr + 3 * PAGE, 9), 0);
	EXPECT_EQ(memory[3 * PAGE], 9);
	EXPECT_EQ(munmap(memory + 2 * HUGE - PAGE, 2 * PAGE), 0);
	EXPECT(FAULTED(r_peek(&p, addr + 2 * HUGE - PAGE)) && FAULTED(r_peek(&p, addr + 2 * HUGE)));
	for (size_t at = 4 * PAGE; at < SIZE; at += PAGE)
		if (at != 2 * HUGE && at != 2 * HUGE - PAGE)
			EXPECT_EQ(r_peek(&p, addr + (long)at), (unsigned char)memory[at]);
	EXPECT_EQ(verify((long)memory, 3 * PAGE, 1), 0);
	quit(&p);
}

CASE(huge_forbidden, "memory that is to have no huge pages has none when it is shared")
{
	struct peer p = spawn();
	char *memory = huge_pages(MADV_NOHUGEPAGE);
	long addr = share(&p, memory, SIZE);

	EXPECT_EQ(r_verify(&p, addr, SIZE, 1), 0);
	EXPECT_EQ(huge_bytes((long)memory, SIZE, 0, 0), 0);
	EXPECT_EQ(call(&p, huge_bytes, addr, SIZE, 0), 0);
	quit(&p);
}
