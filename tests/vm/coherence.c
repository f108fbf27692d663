/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An attachment shows the owner's current page, whatever the owner does with its
 * mappings. Each case touches the attachment first, so that there is an entry to
 * take away.
 */
#include "range.h"

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

int main(void)
{
	if (owner_begin())
		return 1;
	RUN(both_ways);
	RUN(unmap_and_map_again);
	RUN(mapped_later);
	RUN(dontneed);
	RUN(remapped);
	RUN(protected);
	RUN(fork_of_owner);
	RUN(third_process_writes);
	RUN(atomics);
	return owner_end();
}
