/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An attachment shows the owner's current page, whatever the kernel does with it:
 * zero pages, swap, reclaim, merging, compaction, huge pages.
 */
#include "range.h"

static void freed_then_written(void)
{
	char *p = start(SIZE, 0);

	NEED((long)p > 0);
	/* What the attacher writes after MADV_FREE must survive reclaim. */
	CHECK(CALL(&owner, r_madvise, BASE, SIZE, MADV_FREE) == 0);
	for (int i = 0; i < PAGES; i++)
		CHECK(wr(p + i * PAGE, 8000 + i) == 0);
	CHECK(CALL(&owner, r_madvise, BASE, SIZE, MADV_PAGEOUT) == 0);
	CHECK(all(p, PAGES, 8000));
	for (int i = 0; i < PAGES; i++)
		CHECK(CALL(&owner, r_val, BASE + i * PAGE, 0, 0) == 8000 + i);
	finish(p, SIZE);
}

/* Private memory the owner only read is the zero page. */
static void zero_page(void)
{
	long sizes[] = { SIZE, 2 * HUGE };

	for (int k = 0; k < 2; k++) {
		char *p;

		own(sizes[k], 0);
		p = att(BASE, sizes[k]);
		CHECK(CALL(&owner, r_sum, BASE, sizes[k] / PAGE, 0) == 0);
		CHECK(val(p) == 0 && val(p + 3 * PAGE) == 0);
		CHECK(wr(p + 3 * PAGE, 9) == 0);
		CHECK(CALL(&owner, r_val, BASE + 3 * PAGE, 0, 0) == 9 && val(p + 4 * PAGE) == 0);
		CALL(&owner, r_put, BASE, 8, 0);
		CHECK(val(p) == 8);
		finish(p, sizes[k]);
	}
}

/* What the attacher alone has written outlives reclaim. */
static void write_and_page_out(char *p)
{
	for (int i = 0; i < PAGES; i++)
		CHECK(wr(p + i * PAGE, 7000 + i) == 0);
	CHECK(CALL(&owner, r_madvise, BASE, SIZE, MADV_PAGEOUT) == 0);
	for (int i = 0; i < PAGES; i++)
		CHECK(CALL(&owner, r_val, BASE + i * PAGE, 0, 0) == 7000 + i);
	CHECK(all(p, PAGES, 7000));
	finish(p, SIZE);
}

static void paged_out(void)
{
	char *p = start(SIZE, 0);

	NEED((long)p > 0);
	CHECK(CALL(&owner, r_madvise, BASE, SIZE, MADV_PAGEOUT) == 0);
	CHECK(all(p, PAGES, 1000));
	/* Swapped in for reading, written by the attacher alone, out again. */
	CHECK(CALL(&owner, r_madvise, BASE, SIZE, MADV_PAGEOUT) == 0);
	CHECK(CALL(&owner, r_sum, BASE, PAGES, 0) == PAGES * 1000 + PAGES * (PAGES - 1) / 2);
	write_and_page_out(p);
}

/* Shared memory the owner only read, written by the attacher alone. */
static void shared_paged_out(void)
{
	char *p;

	CHECK(own(SIZE, MAP_SHARED) == BASE);
	CHECK(CALL(&owner, r_sum, BASE, PAGES, 0) == 0);
	p = att(BASE, SIZE);
	write_and_page_out(p);
}

/* More memory than there is: real reclaim, not asked for by anybody. */
static long r_eat(long mib, long b, long c)
{
	char *m = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (m == MAP_FAILED)
		return -errno;
	for (long i = 0; i < mib << 20; i += PAGE)
		*(volatile long *)(m + i) = i;
	return munmap(m, mib << 20);
}

static void under_pressure(void)
{
	long size = 16 * HUGE, pages = size / PAGE, avail = 0, swap = 0;
	struct peer hog;
	char line[128], *p;
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f)) {
		sscanf(line, "MemAvailable: %ld", &avail);
		sscanf(line, "SwapFree: %ld", &swap);
	}
	if (f)
		fclose(f);
	if (getuid())
		SKIP("reclaim does not ask whose pages they are, and takes long");
	if (swap < 300 << 10 || avail > 3 << 20)
		SKIP("no swap, or too much memory");
	p = start(size, 0);
	NEED((long)p > 0);
	for (long i = 0; i < pages; i++)
		CHECK(wr(p + i * PAGE, 7000 + i) == 0);
	hog = peer_start();
	CHECK(CALL(&hog, r_eat, (avail >> 10) + 60, 0, 0) == 0);
	peer_stop(&hog);
	CHECK(all(p, pages, 7000));
	for (long i = 0; i < pages; i += 17)
		CHECK(CALL(&owner, r_val, BASE + i * PAGE, 0, 0) == 7000 + i);
	finish(p, size);
}

static long ksm_shared(void)
{
	char text[32] = "";
	int fd = open("/sys/kernel/mm/ksm/pages_sharing", O_RDONLY);

	if (fd >= 0) {
		if (read(fd, text, sizeof(text) - 1) < 0)
			text[0] = 0;
		close(fd);
	}
	return atol(text);
}

static long r_same(long addr, long pages, long v)
{
	for (long i = 0; i < pages; i++)
		for (long k = 0; k < (long)PAGE; k += 8)
			*(volatile long *)(addr + i * PAGE + k) = v;
	return 0;
}

static void ksm_merged(void)
{
	char *p;

	if (getuid() || access("/sys/kernel/mm/ksm/run", W_OK))
		SKIP("no KSM");
	own(SIZE, 0);
	CALL(&owner, r_madvise, BASE, SIZE, MADV_NOHUGEPAGE);
	CALL(&owner, r_same, BASE, PAGES, 0x1234);
	p = att(BASE, SIZE);
	for (int i = 0; i < PAGES; i++)
		CHECK(val(p + i * PAGE) == 0x1234);
	CALL(&owner, r_madvise, BASE, SIZE, MADV_MERGEABLE);
	write_file("/sys/kernel/mm/ksm/pages_to_scan", "5000");
	write_file("/sys/kernel/mm/ksm/sleep_millisecs", "5");
	write_file("/sys/kernel/mm/ksm/run", "1");
	for (int i = 0; i < 1000 && ksm_shared() < PAGES - 2; i++)
		usleep(10000);
	CHECK(ksm_shared() >= PAGES - 2);
	for (int i = 0; i < PAGES; i++)
		CHECK(val(p + i * PAGE) == 0x1234);
	/* A write must break the sharing in the owner, for that page alone. */
	CHECK(wr(p + 3 * PAGE, 1) == 0);
	CHECK(CALL(&owner, r_val, BASE + 3 * PAGE, 0, 0) == 1);
	CHECK(val(p + 4 * PAGE) == 0x1234 && CALL(&owner, r_val, BASE + 5 * PAGE, 0, 0) == 0x1234);
	CALL(&owner, r_put, BASE + 6 * PAGE, 2, 0);
	CHECK(val(p + 6 * PAGE) == 2 && val(p + 7 * PAGE) == 0x1234);
	write_file("/sys/kernel/mm/ksm/run", "2");
	CHECK(val(p + 9 * PAGE) == 0x1234);
	finish(p, SIZE);
}

static void compacted(void)
{
	char *p = start(SIZE, 0);

	NEED((long)p > 0);
	if (getuid()) {
		finish(p, SIZE);
		SKIP("needs root");
	}
	for (int k = 0; k < 5; k++) {
		CHECK(write_file("/proc/sys/vm/compact_memory", "1") == 0);
		CHECK(all(p, PAGES, 1000 + k));
		CALL(&owner, r_fill, BASE, PAGES, 1001 + k);
	}
	finish(p, SIZE);
}

/* Huge pages of the owner's mapping at BASE: it may not have got them all. */
static long owner_huge(void)
{
	long kb = owner_kb("AnonHugePages", BASE, BASE + 64 * HUGE);

	return kb < 0 ? 0 : kb / 2048;
}

/* Small pages become a huge one and the other way round, under attachments. */
static void huge_pages(void)
{
	long huge = stat_of("huge_pages_mapped"), size = 4 * HUGE, n = size / PAGE;
	char *p, *q;
	long rc;

	own(size, 0);
	CALL(&owner, r_madvise, BASE, size, MADV_HUGEPAGE);
	CALL(&owner, r_fill, BASE, n, 100);
	p = att(BASE, size);
	CHECK(((long)p & (HUGE - 1)) == 0);
	CHECK(all(p, n, 100));
	CHECK(stat_of("huge_pages_mapped") - huge >= owner_huge());
	if (owner_huge() < 4)
		printf("  the owner got only %ld huge pages\n", owner_huge());
	/* Not congruent: small entries of the same huge page. */
	q = att(BASE + PAGE, size - PAGE);
	CHECK(all((char *)((long)q), n - 1, 101));
	/* Split: one page is dropped, one protected, one moved away. */
	CALL(&owner, r_madvise, BASE + 3 * PAGE, PAGE, MADV_DONTNEED);
	CHECK(val(p + 3 * PAGE) == 0 && val(p + 4 * PAGE) == 104 && val(q + 2 * PAGE) == 0);
	CALL(&owner, r_protect, BASE + HUGE + PAGE, PAGE, PROT_READ);
	CHECK(wr(p + HUGE + PAGE, 1) == SIGBUS && wr(p + HUGE, 2) == 0);
	CHECK(CALL(&owner, r_val, BASE + HUGE, 0, 0) == 2 && val(q + HUGE - PAGE) == 2);
	CALL(&owner, r_protect, BASE + HUGE + PAGE, PAGE, PROT_READ | PROT_WRITE);
	CALL(&owner, r_put, BASE + 3 * PAGE, 103, 0);
	CALL(&owner, r_put, BASE + HUGE, 100 + HUGE / PAGE, 0);
	CHECK(all(p, n, 100));
	/* It may find no huge page free; what it leaves must be right. */
	rc = CALL(&owner, r_madvise, BASE, size, MADV_COLLAPSE);
	if (rc)
		printf("  MADV_COLLAPSE: %ld\n", rc);
	CHECK(all(p, n, 100) && all(q, n - 1, 101));
	for (long i = 0; i < n; i++)
		CHECK(wr(p + i * PAGE, 500 + i) == 0);
	CHECK(all(q, n - 1, 501));
	for (long i = 0; i < n; i += 13)
		CHECK(CALL(&owner, r_val, BASE + i * PAGE, 0, 0) == 500 + i);
	CHECK(x_detach(q) == 0);
	/* Swap the whole thing. */
	CHECK(CALL(&owner, r_madvise, BASE, size, MADV_PAGEOUT) == 0);
	CHECK(all(p, n, 500));
	finish(p, size);
}

static void hugetlb(void)
{
	long size = 2 * HUGE, before = stat_of("huge_pages_mapped");
	char *p;

	if (!getuid())
		write_file("/proc/sys/vm/nr_hugepages", "8");
	for (int k = 0; k < 2; k++) {
		if (own(size, MAP_HUGETLB | (k ? MAP_SHARED : MAP_PRIVATE)) != BASE)
			SKIP("no hugetlb pages");
		CALL(&owner, r_fill, BASE, size / PAGE, 50);
		p = att(BASE, size);
		CHECK(all(p, size / PAGE, 50));
		CHECK(wr(p + PAGE, 3) == 0 && CALL(&owner, r_val, BASE + PAGE, 0, 0) == 3);
		CALL(&owner, r_unmap, BASE, size, 0);
		CHECK(rd(p, NULL) == SIGBUS);
		CHECK(x_detach(p) == 0);
	}
	CHECK(stat_of("huge_pages_mapped") - before >= 4);
	if (!getuid())
		write_file("/proc/sys/vm/nr_hugepages", "0");
}

int main(void)
{
	if (owner_begin())
		return 1;
	RUN(freed_then_written);
	RUN(zero_page);
	RUN(huge_pages);
	RUN(paged_out);
	RUN(shared_paged_out);
	RUN(under_pressure);
	RUN(ksm_merged);
	RUN(compacted);
	RUN(hugetlb);
	return owner_end();
}
