/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An attachment shows the owner's current page, whatever happened to it. Each
 * case touches the attachment first, so that there is an entry to take away.
 */
#include "owner.h"
#include <sys/uio.h>
#include <linux/userfaultfd.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define PAGES 64L
#define SIZE (PAGES * PAGE)
static long own(long size, long flags) { return CALL(&owner, r_map, BASE, size, flags); }
static char *att(long addr, long size) { return (char *)x_attach(apid, addr, size); }

/* Everything there, and everything of the expected values? */
static int all(char *p, long pages, long v)
{
	for (long i = 0; i < pages; i++)
		if (val(p + i * PAGE) != v + i) {
			printf("  page %ld is %lx, not %lx\n", i, val(p + i * PAGE), v + i);
			return 0;
		}
	return 1;
}

static char *start(long size, long flags)
{
	char *p;

	if (own(size, flags) != BASE)
		return (char *)-1;
	CALL(&owner, r_fill, BASE, size / PAGE, 1000);
	p = att(BASE, size);
	return all(p, size / PAGE, 1000) ? p : (char *)-1;
}

static void finish(char *p, long size)
{
	CHECK(x_detach(p) == 0);
	CALL(&owner, r_unmap, BASE, size, 0);
}

static void both_ways(void)
{
	char *p = start(SIZE, 0);

	NEED((long)p > 0);
	for (int i = 0; i < PAGES; i++)
		CHECK(wr(p + i * PAGE, 2000 + i) == 0);
	for (int i = 0; i < PAGES; i++)
		CHECK(CALL(&owner, r_val, BASE + i * PAGE, 0, 0) == 2000 + i);
	CALL(&owner, r_fill, BASE, PAGES, 3000);
	CHECK(all(p, PAGES, 3000));
	finish(p, SIZE);
}

static void unmap_and_map_again(void)
{
	char *p = start(SIZE, 0);

	NEED((long)p > 0);
	CALL(&owner, r_unmap, BASE, SIZE, 0);
	CHECK(rd(p, NULL) == SIGBUS && wr(p + SIZE - 8, 1) == SIGBUS);
	own(SIZE, 0);
	CALL(&owner, r_fill, BASE, PAGES, 5000);
	CHECK(all(p, PAGES, 5000));
	/* One page of many. */
	CALL(&owner, r_unmap, BASE + 7 * PAGE, PAGE, 0);
	CHECK(rd(p + 7 * PAGE, NULL) == SIGBUS && val(p + 8 * PAGE) == 5008);
	/* MAP_FIXED over. */
	own(SIZE, 0);
	CALL(&owner, r_fill, BASE, PAGES, 6000);
	CHECK(all(p, PAGES, 6000));
	finish(p, SIZE);
}

static void mapped_later(void)
{
	char *p = att(BASE, 8 * HUGE);

	NEED((long)p > 0);
	CHECK(rd(p, NULL) == SIGBUS);
	own(SIZE, 0);
	CHECK(val(p) == 0 && wr(p + PAGE, 77) == 0);
	CHECK(CALL(&owner, r_val, BASE + PAGE, 0, 0) == 77);
	CALL(&owner, r_put, BASE, 78, 0);
	CHECK(val(p) == 78);
	finish(p, SIZE);
}

static void dontneed(void)
{
	char *p = start(SIZE, 0);

	NEED((long)p > 0);
	CHECK(CALL(&owner, r_madvise, BASE, SIZE, MADV_DONTNEED) == 0);
	CHECK(val(p) == 0 && val(p + SIZE - PAGE) == 0);
	CALL(&owner, r_fill, BASE, PAGES, 4000);
	CHECK(all(p, PAGES, 4000));
	finish(p, SIZE);
}

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

static long r_remap(long from, long to, long size)
{
	return mremap((void *)from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)to) == (void *)to ? 0 : -errno;
}
static long r_grow(long from, long size, long new_size)
{
	return mremap((void *)from, size, new_size, 0) == (void *)from ? 0 : -errno;
}

static void remapped(void)
{
	char *p = start(SIZE, 0), *q = att(BASE + 4 * HUGE, SIZE);

	NEED((long)p > 0);
	CHECK(rd(q, NULL) == SIGBUS);
	CHECK(CALL(&owner, r_remap, BASE, BASE + 4 * HUGE, SIZE) == 0);
	CHECK(rd(p, NULL) == SIGBUS && all(q, PAGES, 1000));
	CHECK(wr(q, 1) == 0 && CALL(&owner, r_val, BASE + 4 * HUGE, 0, 0) == 1);
	CHECK(CALL(&owner, r_grow, BASE + 4 * HUGE, SIZE, 2 * SIZE) == 0);
	CALL(&owner, r_unmap, BASE + 4 * HUGE, 2 * SIZE, 0);
	CHECK(rd(q, NULL) == SIGBUS);
	CHECK(x_detach(q) == 0);
	finish(p, SIZE);
}

static void protected(void)
{
	char *p = start(SIZE, 0);

	NEED((long)p > 0);
	CHECK(wr(p, 1) == 0);
	CHECK(CALL(&owner, r_protect, BASE, SIZE, PROT_READ) == 0);
	CHECK(val(p) == 1 && wr(p, 2) == SIGBUS && val(p) == 1);
	CHECK(CALL(&owner, r_protect, BASE, SIZE, PROT_NONE) == 0);
	CHECK(rd(p, NULL) == SIGBUS);
	CHECK(CALL(&owner, r_protect, BASE, SIZE, PROT_READ | PROT_WRITE) == 0);
	CHECK(val(p) == 1 && wr(p, 3) == 0 && CALL(&owner, r_val, BASE, 0, 0) == 3);
	finish(p, SIZE);
}

/* The owner forks; the child keeps its own copy and can be asked. */
static int kid_to[2], kid_from[2];
static long r_fork(long a, long b, long c)
{
	struct peer_msg m;
	long ret;
	pid_t pid;

	if (pipe(kid_to) || pipe(kid_from))
		return -errno;
	pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(kid_to[0], &m, sizeof(m)) == sizeof(m) && m.fn) {
		ret = m.fn(m.a, m.b, m.c);
		if (write(kid_from[1], &ret, sizeof(ret)) < 0)
			break;
	}
	_exit(0);
}
static long r_kid(long fn, long a, long b)
{
	struct peer_msg m = { (peer_fn)fn, a, b, 0 };
	long ret = -1;

	if (write(kid_to[1], &m, sizeof(m)) < 0 || read(kid_from[0], &ret, sizeof(ret)) < 0)
		return -1;
	return ret;
}
static long r_reap(long pid, long b, long c)
{
	struct peer_msg m = { 0 };

	if (write(kid_to[1], &m, sizeof(m)) < 0)
		return -1;
	waitpid(pid, NULL, 0);
	close(kid_to[0]); close(kid_to[1]); close(kid_from[0]); close(kid_from[1]);
	return 0;
}

static void fork_of_owner(void)
{
	for (int round = 0; round < 2; round++) {
		long size = round ? 2 * HUGE : SIZE;
		char *p = start(size, 0);
		long pid;

		NEED((long)p > 0);
		CHECK(wr(p, 1) == 0 && wr(p + PAGE, 1) == 0 && wr(p + 2 * PAGE, 1) == 0);
		pid = CALL(&owner, r_fork, 0, 0, 0);
		CHECK(pid > 0);
		/* Owner writes: the attacher follows the owner. */
		CALL(&owner, r_put, BASE, 10, 0);
		CHECK(val(p) == 10 && CALL(&owner, r_kid, r_val, BASE, 0) == 1);
		/* Attacher writes: the owner's, not the child's. */
		CHECK(wr(p + PAGE, 20) == 0);
		CHECK(CALL(&owner, r_val, BASE + PAGE, 0, 0) == 20);
		CHECK(CALL(&owner, r_kid, r_val, BASE + PAGE, 0) == 1);
		/* Child writes: nobody else sees it. */
		CHECK(val(p + 2 * PAGE) == 1);
		CALL(&owner, r_kid, r_put, BASE + 2 * PAGE, 30);
		CHECK(val(p + 2 * PAGE) == 1 && CALL(&owner, r_val, BASE + 2 * PAGE, 0, 0) == 1);
		CALL(&owner, r_put, BASE + 2 * PAGE, 31, 0);
		CHECK(val(p + 2 * PAGE) == 31);
		CALL(&owner, r_reap, pid, 0, 0);
		CHECK(val(p + 3 * PAGE) == 1003 && wr(p + 3 * PAGE, 40) == 0);
		CHECK(CALL(&owner, r_val, BASE + 3 * PAGE, 0, 0) == 40);
		finish(p, size);
	}
}

static void third_process_writes(void)
{
	char *p = start(SIZE, 0), path[64];
	long v = 4711;
	int fd;

	NEED((long)p > 0);
	snprintf(path, sizeof(path), "/proc/%d/mem", owner.pid);
	fd = open(path, O_RDWR);
	if (fd < 0) {
		finish(p, SIZE);
		SKIP("no /proc/PID/mem");
	}
	CHECK(pwrite(fd, &v, 8, BASE + 5 * PAGE) == 8 && val(p + 5 * PAGE) == 4711);
	/* Forced through a read-only private mapping: a new page. */
	CALL(&owner, r_protect, BASE, SIZE, PROT_READ);
	v = 4712;
	CHECK(val(p + 6 * PAGE) == 1006);
	/* Newer kernels keep this for debuggers (EIO). */
	if (pwrite(fd, &v, 8, BASE + 6 * PAGE) == 8)
		CHECK(val(p + 6 * PAGE) == 4712);
	else
		CHECK(errno == EIO && val(p + 6 * PAGE) == 1006);
	close(fd);
	finish(p, SIZE);
}

/* Private memory the owner only read is the zero page. */
static long r_sum(long addr, long pages, long c)
{
	long sum = 0;

	for (long i = 0; i < pages; i++)
		sum += *(volatile long *)(addr + i * PAGE);
	return sum;
}

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

static void paged_out(void)
{
	char *p = start(SIZE, 0);

	NEED((long)p > 0);
	CHECK(CALL(&owner, r_madvise, BASE, SIZE, MADV_PAGEOUT) == 0);
	CHECK(all(p, PAGES, 1000));
	/* Swapped in for reading, written by the attacher alone, out again. */
	CHECK(CALL(&owner, r_madvise, BASE, SIZE, MADV_PAGEOUT) == 0);
	CHECK(CALL(&owner, r_sum, BASE, PAGES, 0) == PAGES * 1000 + PAGES * (PAGES - 1) / 2);
	for (int i = 0; i < PAGES; i++)
		CHECK(wr(p + i * PAGE, 7000 + i) == 0);
	CHECK(CALL(&owner, r_madvise, BASE, SIZE, MADV_PAGEOUT) == 0);
	for (int i = 0; i < PAGES; i++)
		CHECK(CALL(&owner, r_val, BASE + i * PAGE, 0, 0) == 7000 + i);
	CHECK(all(p, PAGES, 7000));
	finish(p, SIZE);
}

/* Shared memory the owner only read, written by the attacher alone. */
static void shared_paged_out(void)
{
	char *p;

	CHECK(own(SIZE, MAP_SHARED) == BASE);
	CHECK(CALL(&owner, r_sum, BASE, PAGES, 0) == 0);
	p = att(BASE, SIZE);
	for (int i = 0; i < PAGES; i++)
		CHECK(wr(p + i * PAGE, 7000 + i) == 0);
	CHECK(CALL(&owner, r_madvise, BASE, SIZE, MADV_PAGEOUT) == 0);
	for (int i = 0; i < PAGES; i++)
		CHECK(CALL(&owner, r_val, BASE + i * PAGE, 0, 0) == 7000 + i);
	CHECK(all(p, PAGES, 7000));
	finish(p, SIZE);
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

static long r_file(long prot, long flags, long mode)
{
	int fd = memfd_create("t", 0), use = fd;
	char path[64];
	long addr;

	if (mode == 1) {
		close(fd);
		snprintf(path, sizeof(path), "/tmp/source-%d", getuid());
		fd = use = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	}
	for (int i = 0; i < PAGES; i++) {
		long v = 1000 + i;

		if (pwrite(fd, &v, 8, i * PAGE) != 8)
			return -errno;
	}
	if (ftruncate(fd, SIZE))
		return -errno;
	if (!(prot & PROT_WRITE)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		use = open(path, O_RDONLY);
	}
	addr = (long)mmap((void *)BASE, SIZE, prot, flags | MAP_FIXED, use, 0);
	return addr == BASE ? fd : -errno;
}
static long r_pread(long fd, long off, long c)
{
	long v = BAD;

	return pread(fd, &v, 8, off) == 8 ? v : BAD;
}
static long r_trunc(long fd, long size, long c) { return ftruncate(fd, size); }
static long r_close(long fd, long b, long c) { return close(fd); }

static void files(void)
{
	for (int disk = 0; disk < 2; disk++) {
		long fd = CALL(&owner, r_file, PROT_READ | PROT_WRITE, MAP_SHARED, disk);
		char *p = att(BASE, SIZE);

		CHECK(fd >= 0 && all(p, PAGES, 1000));
		CHECK(wr(p + PAGE, 5) == 0 && CALL(&owner, r_pread, fd, PAGE, 0) == 5);
		/* Truncated, and grown again. */
		CALL(&owner, r_trunc, fd, 4 * PAGE, 0);
		CHECK(val(p) == 1000 && rd(p + 4 * PAGE, NULL) == SIGBUS && rd(p + SIZE - 8, NULL) == SIGBUS);
		CALL(&owner, r_trunc, fd, SIZE, 0);
		CHECK(val(p + 4 * PAGE) == 0);
		CALL(&owner, r_close, fd, 0, 0);
		finish(p, SIZE);

		/* Private: a write is the owner's copy, never the file's. */
		fd = CALL(&owner, r_file, PROT_READ | PROT_WRITE, MAP_PRIVATE, disk);
		p = att(BASE, SIZE);
		CHECK(all(p, PAGES, 1000) && wr(p + PAGE, 6) == 0);
		CHECK(CALL(&owner, r_val, BASE + PAGE, 0, 0) == 6 && CALL(&owner, r_pread, fd, PAGE, 0) == 1001);
		CALL(&owner, r_put, BASE + 2 * PAGE, 7, 0);
		CHECK(val(p + 2 * PAGE) == 7);
		CALL(&owner, r_close, fd, 0, 0);
		finish(p, SIZE);
	}
}

/* Sources that nobody may write: an attacher with RDWR may not either. */
static void read_only_sources(void)
{
	static const struct { int prot, flags, disk; } kind[] = {
		{ PROT_READ, MAP_SHARED, 0 }, { PROT_READ, MAP_PRIVATE, 0 },
		{ PROT_READ, MAP_SHARED, 1 }, { PROT_READ | PROT_EXEC, MAP_PRIVATE, 1 },
	};
	long text = (long)r_sum & ~(PAGE - 1), mine;
	char *p;

	for (int k = 0; k < 4; k++) {
		long fd = CALL(&owner, r_file, kind[k].prot, kind[k].flags, kind[k].disk);

		p = att(BASE, SIZE);
		CHECK(fd >= 0 && all(p, PAGES, 1000));
		CHECK(wr(p + PAGE, 5) == SIGBUS && val(p + PAGE) == 1001);
		CHECK(wr(p + 60 * PAGE, 5) == SIGBUS);
		CHECK(CALL(&owner, r_pread, fd, PAGE, 0) == 1001);
		CALL(&owner, r_close, fd, 0, 0);
		finish(p, SIZE);
	}
	/* Program text, which other processes share. */
	p = att(text, PAGE);
	mine = *(long *)text;
	CHECK(val(p) == mine && wr(p, 0) == SIGBUS && *(volatile long *)text == mine);
	CHECK(x_detach(p) == 0);
}

/* The owner's own faults go to a userfaultfd, in a thread of the owner's. */
static int uffd = -1;
static void *uffd_serve(void *arg)
{
	static char page[PAGE] __attribute__((aligned(4096)));
	struct uffd_msg m;

	while (read(uffd, &m, sizeof(m)) == sizeof(m)) {
		long at = m.arg.pagefault.address & ~(PAGE - 1);
		struct uffdio_copy c = { .dst = at, .src = (long)page, .len = PAGE };

		if (m.event != UFFD_EVENT_PAGEFAULT)
			break;
		*(long *)page = 3000 + (at - BASE) / PAGE;
		usleep(1000);
		ioctl(uffd, UFFDIO_COPY, &c);
	}
	return NULL;
}
static long r_uffd(long addr, long size, long c)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { { addr, size }, UFFDIO_REGISTER_MODE_MISSING };
	pthread_t t;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg))
		return -errno;
	return -pthread_create(&t, NULL, uffd_serve, NULL);
}

static void userfault_source(void)
{
	char *p;

	own(SIZE, 0);
	if (CALL(&owner, r_uffd, BASE, SIZE, 0)) {
		CALL(&owner, r_unmap, BASE, SIZE, 0);
		SKIP("no userfaultfd");
	}
	p = att(BASE, SIZE);
	CHECK(all(p, PAGES, 3000));
	CHECK(wr(p, 1) == 0 && CALL(&owner, r_val, BASE, 0, 0) == 1);
	finish(p, SIZE);
}

static void self_attach(void)
{
	char *m = mmap((void *)BASE, 2 * HUGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), *p;
	long s = x_make(m, 2 * HUGE, 0600), a = x_get(s, RW);

	p = (char *)x_attach(a, 0, 2 * HUGE);
	NEED((long)p > 0);
	r_fill((long)m, 2 * HUGE / PAGE, 1);
	CHECK(all(p, 2 * HUGE / PAGE, 1));
	CHECK(wr(p, 5) == 0 && *(volatile long *)m == 5);
	madvise(m, HUGE, MADV_DONTNEED);
	CHECK(val(p) == 0 && wr(p + PAGE, 6) == 0 && ((volatile long *)m)[PAGE / 8] == 6);
	munmap(m, PAGE);
	CHECK(rd(p, NULL) == SIGBUS && val(p + PAGE) == 6);
	CHECK(x_release(a) == 0 && x_remove(s) == 0);
	munmap(m, 2 * HUGE);
}

/* Attachments are not sources. */
static void no_chain(void)
{
	char *p = start(SIZE, 0), *q;
	long s = x_make(NULL, MAXADDR, 0600), a = x_get(s, RW);

	NEED((long)p > 0);
	q = (char *)x_attach(a, (long)p, SIZE);
	CHECK((long)q > 0 && rd(q, NULL) == SIGBUS && wr(q, 1) == SIGBUS);
	CHECK(val(p) == 1000);
	CHECK(x_release(a) == 0 && x_remove(s) == 0);
	finish(p, SIZE);
}

static long r_attach_back(long seg, long offset, long size)
{
	long a = x_get(seg, RW);

	return a < 0 ? a : x_attach_at(a, offset, size, (void *)BASE);
}

/* Two processes that attach each other's attachment: revoking must end. */
static void ring(void)
{
	char *p = att(BASE, SIZE);
	long s = x_make(NULL, MAXADDR, 0600);

	NEED((long)p > 0);
	CHECK(CALL(&owner, r_attach_back, s, p, SIZE) == BASE);
	CHECK(rd(p, NULL) == SIGBUS);
	CHECK(CALL(&owner, r_val, BASE, 0, 0) == BAD);
	CHECK(munmap(p + PAGE, PAGE) == 0);
	CHECK(mprotect(p, PAGE, PROT_READ) == 0);
	CHECK(CALL(&owner, r_protect, BASE, PAGE, PROT_READ) == 0);
	CHECK(CALL(&owner, r_unmap, BASE, SIZE, 0) == 0);
	CHECK(x_detach(p) == 0 && x_remove(s) == 0);
}

/* Atomics across processes on one page, both sides at once. */
static long r_count(long addr, long n, long c)
{
	for (long i = 0; i < n; i++)
		__atomic_fetch_add((long *)addr, 1, __ATOMIC_SEQ_CST);
	return 0;
}

static void atomics(void)
{
	char *p = start(SIZE, MAP_SHARED);

	NEED((long)p > 0);
	CALL(&owner, r_put, BASE, 0, 0);
	peer_send(&owner, r_count, BASE, 200000, 0);
	r_count((long)p, 200000, 0);
	peer_wait(&owner);
	CHECK(val(p) == 400000);
	finish(p, SIZE);
}

/* System calls on attached memory, and a debugger. */
static void calls_on(long flags)
{
	char *p = start(SIZE, flags), path[64];
	long v = 0;
	int fds[2], fd;

	NEED((long)p > 0);
	CHECK(pipe(fds) == 0);
	CHECK(write(fds[1], p + PAGE, 8) == 8 && read(fds[0], &v, 8) == 8 && v == 1001);
	v = 66;
	CHECK(write(fds[1], &v, 8) == 8 && read(fds[0], p + PAGE, 8) == 8);
	CHECK(CALL(&owner, r_val, BASE + PAGE, 0, 0) == 66);
	/* get_user_pages() is refused; so it was with every XPMEM. */
	struct iovec local = { &v, 8 }, remote = { p, 8 };

	CHECK(process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == -1 && errno == EFAULT);
	remote.iov_len = PAGE;
	CHECK(vmsplice(fds[1], &remote, 1, 0) == -1 && errno == EFAULT);
	CHECK(syscall(SYS_futex, p, 1, 1, NULL, NULL, 0) == -1 && errno == EFAULT);
	close(fds[0]);
	close(fds[1]);
	/* vm_ops->access: read, write, and not past what the owner may. */
	snprintf(path, sizeof(path), "/proc/%d/mem", getpid());
	fd = open(path, O_RDWR);
	CHECK(fd >= 0);
	CHECK(pread(fd, &v, 8, (long)p + 2 * PAGE) == 8 && v == 1002);
	v = 67;
	CHECK(pwrite(fd, &v, 8, (long)p + 2 * PAGE) == 8 && val(p + 2 * PAGE) == 67);
	CALL(&owner, r_protect, BASE, SIZE, PROT_READ);
	CHECK(pwrite(fd, &v, 8, (long)p + 3 * PAGE) != 8 && val(p + 3 * PAGE) == 1003);
	close(fd);
	finish(p, SIZE);
}

static void system_calls(void)
{
	calls_on(0);
	calls_on(MAP_SHARED);
}

int main(void)
{
	if (owner_begin())
		return 1;
	RUN(both_ways);
	RUN(unmap_and_map_again);
	RUN(mapped_later);
	RUN(dontneed);
	RUN(freed_then_written);
	RUN(remapped);
	RUN(protected);
	RUN(fork_of_owner);
	RUN(third_process_writes);
	RUN(zero_page);
	RUN(huge_pages);
	RUN(paged_out);
	RUN(shared_paged_out);
	RUN(under_pressure);
	RUN(ksm_merged);
	RUN(compacted);
	RUN(hugetlb);
	RUN(files);
	RUN(read_only_sources);
	RUN(userfault_source);
	RUN(self_attach);
	RUN(no_chain);
	RUN(ring);
	RUN(atomics);
	RUN(system_calls);
	return owner_end();
}
