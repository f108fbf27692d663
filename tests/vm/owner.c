/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What an attacher's touch takes from the owner: what the owner's own touch
 * would, of the page touched and no other.
 */
#include "owner.h"
#include <sys/sysmacros.h>
#include <linux/userfaultfd.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

/* A field of the owner's mapping at BASE, in kB. */
static long of_owner(const char *field) { return owner_kb(field, BASE, BASE + 1); }

static char *att(long size) { return (char *)x_attach(apid, BASE, size); }

static void finish(char *p, long size)
{
	CHECK(x_detach(p) == 0);
	CALL(&owner, r_unmap, BASE, size, 0);
}

static void untouched_anonymous(void)
{
	for (int write = 0; write < 2; write++) {
		char *p;

		CALL(&owner, r_map, BASE, HUGE, 0);
		CALL(&owner, r_madvise, BASE, HUGE, MADV_NOHUGEPAGE);
		p = att(HUGE);
		NEED((long)p > 0);
		CHECK(write ? wr(p + 100 * PAGE, 1) == 0 : val(p + 100 * PAGE) == 0);
		/* The zero page, which a read maps, counts for nothing. */
		CHECK(of_owner("Rss") == (write ? 4 : 0));
		CHECK(wr(p + 300 * PAGE, 1) == 0 && of_owner("Rss") == (write ? 8 : 4));
		finish(p, HUGE);
	}
}

static void one_page_touched(void)
{
	char *p;

	CALL(&owner, r_map, BASE, HUGE, 0);
	CALL(&owner, r_madvise, BASE, HUGE, MADV_NOHUGEPAGE);
	CALL(&owner, r_put, BASE + 5 * PAGE, 55, 0);
	p = att(HUGE);
	CHECK(val(p + 5 * PAGE) == 55 && of_owner("Rss") == 4);
	CHECK(wr(p + 6 * PAGE, 66) == 0 && of_owner("Rss") == 8);
	finish(p, HUGE);
}

static long r_memfd(long size, long addr, long c)
{
	int fd = memfd_create("owner", 0);

	if (fd < 0 || ftruncate(fd, size) ||
	    mmap((void *)addr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != (void *)addr)
		return -errno;
	return fd;
}
static long r_blocks(long fd, long b, long c)
{
	struct stat st;

	return fstat(fd, &st) ? -errno : st.st_blocks / 8;
}

static void untouched_memfd(void)
{
	long fd = CALL(&owner, r_memfd, HUGE, BASE, 0);
	char *p = att(HUGE);

	NEED(fd >= 0 && (long)p > 0);
	CHECK(wr(p + 7 * PAGE, 77) == 0 && CALL(&owner, r_blocks, fd, 0, 0) == 1);
	CHECK(val(p + 9 * PAGE) == 0 && CALL(&owner, r_blocks, fd, 0, 0) == 2);
	CHECK(CALL(&owner, r_val, BASE + 7 * PAGE, 0, 0) == 77);
	finish(p, HUGE);
	CALL(&owner, close, fd, 0, 0);
}

static void swapped_out(void)
{
	long swap;
	char *p;

	CALL(&owner, r_map, BASE, HUGE, 0);
	CALL(&owner, r_madvise, BASE, HUGE, MADV_NOHUGEPAGE);
	CALL(&owner, r_fill, BASE, 512, 1000);
	p = att(HUGE);
	CALL(&owner, r_madvise, BASE, HUGE, MADV_PAGEOUT);
	swap = of_owner("Swap");
	if (swap < 2000) {
		finish(p, HUGE);
		SKIP("no swap");
	}
	CHECK(val(p + 200 * PAGE) == 1200);
	/* As many as the kernel reads at a time for anybody. */
	printf("  in swap: %ld kB, %ld kB after one touch\n", swap, of_owner("Swap"));
	CHECK(of_owner("Swap") >= swap - 64 && of_owner("Rss") <= 64);
	finish(p, HUGE);
}

static long r_sleeper(long a, long b, long c)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
	}
	return pid;
}
static long r_reap(long pid, long b, long c)
{
	kill(pid, SIGKILL);
	return waitpid(pid, NULL, 0);
}

/* A store while parent and child share a huge page copies what theirs would. */
static void store_after_fork(void)
{
	long pid, own, mine;
	char *p;

	for (int who = 0; who < 2; who++) {
		CALL(&owner, r_map, BASE, HUGE, 0);
		CALL(&owner, r_madvise, BASE, HUGE, MADV_HUGEPAGE);
		CALL(&owner, r_fill, BASE, 512, 1000);
		p = att(HUGE);
		CHECK(val(p) == 1000);
		pid = CALL(&owner, r_sleeper, 0, 0, 0);
		if (who)
			CHECK(wr(p + 3 * PAGE, 3) == 0);
		else
			CALL(&owner, r_put, BASE + 3 * PAGE, 3, 0);
		*(who ? &mine : &own) = of_owner("Private_Dirty");
		CHECK(CALL(&owner, r_val, BASE + 3 * PAGE, 0, 0) == 3 && val(p + 4 * PAGE) == 1004);
		CALL(&owner, r_reap, pid, 0, 0);
		finish(p, HUGE);
	}
	printf("  copied: %ld kB by the owner's store, %ld kB by the attacher's\n", own, mine);
	CHECK(mine == own);
}

/* Each page of a hugetlb mapping is one fault, one entry, and no detour. */
static void hugetlb_pages(void)
{
	long slow, faults, n = 4;
	char *p;

	if (getuid() || write_file("/proc/sys/vm/nr_hugepages", "8"))
		SKIP("no hugetlb pages");
	if (CALL(&owner, r_map, BASE, n * HUGE, MAP_PRIVATE | MAP_HUGETLB) != BASE)
		SKIP("no hugetlb pages");
	p = att(n * HUGE);
	slow = stat_of("faults_slow");
	for (long i = 0; i < n; i++)
		CHECK(wr(p + i * HUGE, 100 + i) == 0);
	CHECK(stat_of("faults_slow") == slow);
	faults = stat_of("faults_read") + stat_of("faults_write") + stat_of("faults_upgrade");
	for (long i = 0; i < n * 512; i++)
		CHECK(val(p + i * PAGE) == (i % 512 ? 0 : 100 + i / 512));
	CHECK(stat_of("faults_read") + stat_of("faults_write") + stat_of("faults_upgrade") == faults);
	CHECK(CALL(&owner, r_val, BASE + HUGE, 0, 0) == 101);
	finish(p, n * HUGE);
	write_file("/proc/sys/vm/nr_hugepages", "0");
}

/* What the owner's pages need before a store, they get by the attacher's too. */
static long r_clear_soft_dirty(long a, long b, long c)
{
	return write_file("/proc/self/clear_refs", "4");
}
static long r_soft_dirty(long addr, long b, long c)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry = 0;
	long ok = pread(fd, &entry, 8, addr / PAGE * 8) == 8;

	close(fd);
	return ok ? (long)(entry >> 55 & 1) : -1;
}

static void soft_dirty(void)
{
	char *p;

	CALL(&owner, r_map, BASE, 16 * PAGE, 0);
	CALL(&owner, r_fill, BASE, 16, 1);
	p = att(16 * PAGE);
	CHECK(wr(p, 5) == 0 && wr(p + PAGE, 5) == 0);
	/* Where there are none, the bit is never set. */
	if (CALL(&owner, r_clear_soft_dirty, 0, 0, 0) || CALL(&owner, r_put, BASE + 2 * PAGE, 1, 0) ||
	    CALL(&owner, r_soft_dirty, BASE + 2 * PAGE, 0, 0) != 1 || CALL(&owner, r_soft_dirty, BASE, 0, 0) != 0) {
		finish(p, 16 * PAGE);
		SKIP("no soft-dirty bits");
	}
	CHECK(wr(p, 6) == 0 && val(p + PAGE) == 5);
	CHECK(CALL(&owner, r_soft_dirty, BASE, 0, 0) == 1);
	CHECK(CALL(&owner, r_soft_dirty, BASE + PAGE, 0, 0) == 0);
	finish(p, 16 * PAGE);
}

/* An owner whose userfaultfd protects pages: its handler decides on a store. */
static int uffd, uffd_seen;
static void *uffd_serve(void *arg)
{
	struct uffd_msg m;

	while (read(uffd, &m, sizeof(m)) == sizeof(m)) {
		struct uffdio_writeprotect wp = {
			.range = { m.arg.pagefault.address & -PAGE, PAGE },
		};

		uffd_seen++;
		usleep(20000);
		ioctl(uffd, UFFDIO_WRITEPROTECT, &wp);
	}
	return NULL;
}
static long r_protect_by_uffd(long addr, long size, long c)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	struct uffdio_register reg = { { addr, size }, UFFDIO_REGISTER_MODE_WP, 0 };
	struct uffdio_writeprotect wp = { { addr, size }, UFFDIO_WRITEPROTECT_MODE_WP };
	pthread_t t;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg) ||
	    ioctl(uffd, UFFDIO_WRITEPROTECT, &wp))
		return -errno;
	return pthread_create(&t, NULL, uffd_serve, NULL);
}
static long r_seen(long a, long b, long c) { return uffd_seen; }

static void userfaultfd_protected(void)
{
	char *p;

	CALL(&owner, r_map, BASE, 16 * PAGE, 0);
	CALL(&owner, r_fill, BASE, 16, 1);
	p = att(16 * PAGE);
	CHECK(wr(p, 5) == 0);
	if (CALL(&owner, r_protect_by_uffd, BASE, 16 * PAGE, 0)) {
		finish(p, 16 * PAGE);
		SKIP("no userfaultfd write protection");
	}
	CHECK(val(p) == 5 && CALL(&owner, r_seen, 0, 0, 0) == 0);
	CHECK(wr(p, 6) == 0 && CALL(&owner, r_seen, 0, 0, 0) == 1);
	CHECK(CALL(&owner, r_val, BASE, 0, 0) == 6 && val(p + PAGE) == 2);
	finish(p, 16 * PAGE);
}

int main(void)
{
	if (owner_begin())
		return 1;
	RUN(untouched_anonymous);
	RUN(one_page_touched);
	RUN(untouched_memfd);
	RUN(swapped_out);
	RUN(store_after_fork);
	RUN(hugetlb_pages);
	RUN(soft_dirty);
	RUN(userfaultfd_protected);
	return owner_end();
}
