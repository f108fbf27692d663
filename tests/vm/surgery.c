/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the attacher does to its own mappings: they are mappings like any. */
#include "t.h"

static struct peer owner;
static long segid, apid, base;
#define PAGES 1024L		/* 4 MiB: huge entries too */
#define SIZE (PAGES * PAGE)

static char *fresh(void)
{
	char *p = (char *)x_attach(apid, 0, SIZE);

	CALL(&owner, r_fill, base, PAGES, 100);
	for (long i = 0; (long)p > 0 && i < PAGES; i++)
		if (val(p + i * PAGE) != 100 + i)
			return (char *)-1;
	return p;
}

static void partial_munmap(void)
{
	char *p = fresh();
	long n = stat_of("attachments");

	NEED((long)p > 0);
	CHECK(munmap(p + PAGE, PAGE) == 0 && munmap(p, PAGE) == 0);
	CHECK(munmap(p + SIZE - PAGE, PAGE) == 0 && munmap(p + HUGE, 3 * PAGE) == 0);
	CHECK(rd(p, NULL) == SIGSEGV && rd(p + HUGE, NULL) == SIGSEGV);
	CHECK(val(p + 2 * PAGE) == 102 && val(p + HUGE + 3 * PAGE) == 100 + 512 + 3);
	CHECK(stat_of("attachments") == n);
	/* Any piece stands for the whole. */
	CHECK(x_detach(p + 5 * PAGE) == 0);
	CHECK(rd(p + HUGE + 3 * PAGE, NULL) == SIGSEGV && stat_of("attachments") == n - 1);
}

static void whole_munmap(void)
{
	long n = stat_of("attachments");
	char *p = fresh();

	CHECK((long)p > 0 && munmap(p, SIZE) == 0);
	CHECK(stat_of("attachments") == n && x_detach(p) == 0);
}

static void protect(void)
{
	char *p = fresh();

	NEED((long)p > 0);
	CHECK(wr(p, 1) == 0 && mprotect(p, PAGE, PROT_READ) == 0 && wr(p, 2) == SIGSEGV);
	CHECK(mprotect(p, PAGE, PROT_NONE) == 0 && rd(p, NULL) == SIGSEGV);
	CHECK(mprotect(p, SIZE, PROT_READ | PROT_WRITE) == 0 && val(p) == 1 && wr(p, 3) == 0);
	CHECK(mprotect(p, SIZE, PROT_READ | PROT_EXEC) == -1 && errno == EACCES);
	/* Dropped and raised while the owner's page became read-only. */
	CHECK(mprotect(p, SIZE, PROT_READ) == 0);
	CHECK(CALL(&owner, r_protect, base, SIZE, PROT_READ) == 0);
	CHECK(mprotect(p, SIZE, PROT_READ | PROT_WRITE) == 0);
	CHECK(val(p) == 3 && wr(p, 4) == SIGBUS);
	CHECK(CALL(&owner, r_protect, base, SIZE, PROT_READ | PROT_WRITE) == 0);
	CHECK(wr(p, 5) == 0 && CALL(&owner, r_val, base, 0, 0) == 5);
	CHECK(x_detach(p) == 0);
}

static void move(void)
{
	char *p = fresh(), *to, *odd;

	NEED((long)p > 0);
	to = mmap(NULL, SIZE + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	odd = (char *)(((long)to & ~(HUGE - 1)) + PAGE * 3 + HUGE);
	CHECK(mremap(p, HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, odd) == odd);
	CHECK(rd(p, NULL) == SIGSEGV && val(odd) == 100 && val(p + HUGE) == 100 + 512);
	CHECK(wr(odd + 7 * PAGE, 1) == 0 && CALL(&owner, r_val, base + 7 * PAGE, 0, 0) == 1);
	CALL(&owner, r_madvise, base, SIZE, MADV_DONTNEED);
	CHECK(val(odd) == 0 && val(odd + 7 * PAGE) == 0 && val(p + HUGE) == 0);
	/* Growing, and doubling with old size 0, are refused. */
	CHECK(mremap(odd, HUGE, 2 * HUGE, MREMAP_MAYMOVE) == MAP_FAILED);
	CHECK(mremap(odd, 0, HUGE, MREMAP_MAYMOVE) == MAP_FAILED);
	CHECK(mremap(odd, HUGE, PAGE, 0) == odd && rd(odd + PAGE, NULL) == SIGSEGV);
	/* The moved piece is still part of it. */
	CHECK(x_detach(p + HUGE) == 0 && rd(odd, NULL) == SIGSEGV);
	munmap(to, SIZE + HUGE);
}

static void mapped_over(void)
{
	char *p = fresh(), *q;

	NEED((long)p > 0);
	q = mmap(p + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CHECK(q == p + PAGE && *q == 0);
	*q = 1;
	CHECK(CALL(&owner, r_val, base + PAGE, 0, 0) == 101 && val(p) == 100 && val(p + 2 * PAGE) == 102);
	CHECK(x_detach(q) == -EINVAL);
	/* Detaching leaves what is not its. */
	CHECK(x_detach(p) == 0 && *q == 1 && rd(p + 2 * PAGE, NULL) == SIGSEGV);
	munmap(q, PAGE);
	p = fresh();
	CHECK(mmap(p, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
	CHECK(x_detach(p) == -EINVAL);
	munmap(p, SIZE);
}

/* remap_file_pages() must not reach outside the segment. */
static void remapped_file_pages(void)
{
	long small = CALL(&owner, r_make, base + 4 * PAGE, 4 * PAGE, 0666);
	long a = x_get(small, RW), pg = (base + 4 * PAGE) / PAGE;
	char *p = (char *)x_attach(a, 0, 4 * PAGE);

	CALL(&owner, r_fill, base, PAGES, 100);
	CHECK(val(p) == 104);
	CHECK(syscall(SYS_remap_file_pages, p, PAGE, 0, pg - 1, 0) == -1);
	CHECK(syscall(SYS_remap_file_pages, p, PAGE, 0, pg + 4, 0) == -1);
	CHECK(syscall(SYS_remap_file_pages, p, 2 * PAGE, 0, pg + 3, 0) == -1);
	CHECK(syscall(SYS_remap_file_pages, p, PAGE, 0, 0L, 0) == -1);
	p = (char *)x_attach(a, 0, 4 * PAGE);
	if (syscall(SYS_remap_file_pages, p, PAGE, 0, pg + 2, 0) == 0)
		CHECK(val(p) == 106 && val(p + PAGE) == 105);
	CHECK(x_release(a) == 0 && rd(p + PAGE, NULL) == SIGSEGV && rd(p, NULL) == SIGSEGV);
	CHECK(CALL(&owner, r_remove, small, 0, 0) == 0);
}

static void advice(void)
{
	char *p = fresh(), vec[PAGES];
	int status;
	pid_t pid;

	NEED((long)p > 0);
	CHECK(madvise(p, SIZE, MADV_DOFORK) == -1);
	for (int a = 0; a < 30; a++)
		if (a != MADV_DOFORK && a != MADV_REMOVE)
			madvise(p + PAGE, PAGE, a);
	mlock(p, SIZE);
	munlock(p, SIZE);
	msync(p, SIZE, MS_SYNC);
	mincore(p, SIZE, (unsigned char *)vec);
	CHECK(val(p) == 100 && val(p + PAGE) == 101);
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(rd(p, NULL) != SIGSEGV || x_detach(p) != 0);
	waitpid(pid, &status, 0);
	CHECK(status == 0 && val(p) == 100);
	CHECK(x_detach(p) == 0);
}

/* /proc/self/map_files would be a way round the permit. */
static void map_files(void)
{
	char *p = fresh(), path[96];
	int fd;

	NEED((long)p > 0);
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (long)p, (long)p + SIZE);
	fd = open(path, O_RDWR);
	CHECK(fd < 0);
	CHECK(x_detach(p) == 0);
}

static void exec_with_attachments(void)
{
	char *p = fresh();
	pid_t pid;
	int status;

	NEED((long)p > 0);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		dev = -1;
		dev_open();
		p = fresh();
		char *args[] = { "true", NULL };
		execv("/bin/true", args);
		_exit(1);
	}
	waitpid(pid, &status, 0);
	CHECK(status == 0);
	CHECK(x_detach(p) == 0);
}

/*
 * An attachment to oneself, split inside a huge page: the kernel notifies the
 * owner, who is us, with the lock held that revoking takes. Found by fuzz.c.
 */
static void split_own(void)
{
	char *m = (char *)r_map(0, SIZE, 0), *p;
	long s = x_make(m, SIZE, 0600), a = x_get(s, RW);

	p = (char *)x_attach(a, 0, SIZE);
	NEED((long)p > 0);
	CHECK(wr(p, 1) == 0 && wr(p + HUGE, 2) == 0);
	CHECK(mprotect(p + PAGE, PAGE, PROT_READ) == 0);
	CHECK(munmap(p + HUGE + 5 * PAGE, PAGE) == 0);
	CHECK(val(p) == 1 && val(p + HUGE) == 2 && wr(p + PAGE, 1) == SIGSEGV);
	/* The exemption ends with the mapping: what comes there is a source. */
	long s2 = x_make(p, SIZE, 0600), a2 = x_get(s2, RW), q;
	CHECK(mmap(p, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
	madvise(p, SIZE, MADV_HUGEPAGE);
	r_fill((long)p, PAGES, 50);
	q = x_attach(a2, 0, SIZE);
	CHECK(val((char *)q + PAGE) == 51);
	CHECK(madvise(p, SIZE, MADV_DONTNEED) == 0 && val((char *)q + PAGE) == 0);
	r_fill((long)p, PAGES, 60);
	CHECK(munmap(p + PAGE, PAGE) == 0 && rd((char *)q + PAGE, NULL) == SIGBUS && val((char *)q) == 60);
	CHECK(x_release(a) == 0 && x_release(a2) == 0 && x_remove(s) == 0 && x_remove(s2) == 0);
	munmap(m, SIZE);
	munmap(p, SIZE);
}

/*
 * An attachment and exported memory in one 2 MiB range: what was split there
 * may not hide that the memory goes.
 */
static void split_beside_source(void)
{
	char *raw = (char *)r_map(0, 2 * HUGE, 0), *m = (char *)(((long)raw + HUGE - 1) & ~(HUGE - 1));
	char *at = m + HUGE / 2;
	long s = x_make(m, HUGE, 0600), a = x_get(s, RW), q = x_attach(a, 0, HUGE);

	NEED(q > 0);
	for (int i = 0; i < 2; i++) {
		r_fill((long)m, 16, 70);
		CHECK(x_attach_at(apid, 0, 64 * PAGE, at) == (long)at);
		CHECK(mprotect(at + 3 * PAGE, PAGE, PROT_READ) == 0);
		CHECK(val((char *)q + PAGE) == 71);
		if (i)
			CHECK(munmap(m, HUGE) == 0 && rd((char *)q + PAGE, NULL) == SIGBUS);
		CHECK(mmap(m, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == m);
		CHECK(val((char *)q + PAGE) == 0);
	}
	CHECK(x_release(a) == 0 && x_remove(s) == 0);
	munmap(raw, 2 * HUGE);
}

/* Where the kernel is asked for an address: free, and of the source's phase. */
static void placed(void)
{
	char *a = fresh(), *b = fresh(), *c, *m;
	long guard = 256 * PAGE;

	NEED((long)a > 0 && (long)b > 0);
	CHECK(!(((long)a ^ base) & (HUGE - 1)) && !(((long)b ^ base) & (HUGE - 1)));
	CHECK(b + SIZE <= a || a + SIZE <= b);
	/* The place of the last one, no longer free. */
	CHECK(x_detach(b) == 0);
	m = mmap(b + SIZE - PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	NEED(m == b + SIZE - PAGE);
	CHECK(wr(m, 77) == 0);
	c = fresh();
	CHECK((long)c > 0 && (c + SIZE <= m || m + PAGE <= c) && val(m) == 77 && val(a) == 100);
	CHECK(munmap(m, PAGE) == 0 && x_detach(c) == 0 && x_detach(a) == 0);
	/* Free again, but a stack above would have no room to grow. */
	b = fresh();
	a = fresh();
	NEED((long)a > 0 && (long)b > 0);
	CHECK(x_detach(b) == 0 && x_detach(a) == 0);
	m = mmap(a + SIZE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE,
		 -1, 0);
	NEED(m == a + SIZE);
	c = fresh();
	CHECK((long)c > 0 && (c + SIZE <= m - guard || m + PAGE <= c));
	CHECK(x_detach(c) == 0 && munmap(m, PAGE) == 0);
}

/*
 * One thread releases the permit, another unmaps the same attachments and maps
 * its own memory in their place: the release must leave that alone.
 */
#define TAKEN 64
static char *taken[TAKEN];
static volatile int taken_go;
static void *take_over(void *arg)
{
	while (!taken_go)
		;
	for (long i = TAKEN - 1 - (long)arg; i >= 0; i--) {
		munmap(taken[i], PAGE);
		char *q = mmap(taken[i], PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		if (q != taken[i]) {
			if (q != MAP_FAILED)
				munmap(q, PAGE);
			taken[i] = NULL;
		}
	}
	return NULL;
}

static void released_while_unmapped(void)
{
	long lost = 0, kept = 0, n = stat_of("attachments");
	long two = stat_of("releases_in_two_steps");

	for (long round = 0; round < 300; round++) {
		long a = x_get(segid, RW);
		pthread_t t;

		taken_go = 0;
		for (int i = 0; i < TAKEN; i++)
			taken[i] = (char *)x_attach(a, (i % 8) * PAGE, PAGE);
		NEED(!pthread_create(&t, NULL, take_over, (void *)(round % 8)));
		taken_go = 1;
		if (round & 1)
			sched_yield();
		CHECK(x_release(a) == 0);
		pthread_join(t, NULL);
		for (int i = 0; i < TAKEN; i++) {
			if (!taken[i])
				continue;
			if (i > TAKEN - 1 - round % 8)
				CHECK(rd(taken[i], NULL) == SIGSEGV);
			else if (wr(taken[i], 1))
				lost++;
			else
				kept++;
			munmap(taken[i], PAGE);
		}
	}
	CHECK(lost == 0 && kept > 0);
	CHECK(two >= 0 && stat_of("releases_in_two_steps") == two);
	if (lost)
		printf("  %ld fresh mappings gone, %ld kept\n", lost, kept);
	CHECK(stat_settles("attachments", n));
}

int main(void)
{
	long n;

	t_catch();
	dev_open();
	owner = peer_start();
	base = CALL(&owner, r_map, 0, SIZE + HUGE, 0);
	base = (base + HUGE - 1) & ~(HUGE - 1);
	segid = CALL(&owner, r_make, base, SIZE, 0666);
	apid = x_get(segid, RW);
	n = stat_of("attachments");
	for (int huge = 0; huge < 2; huge++) {
		CALL(&owner, r_madvise, base, SIZE, MADV_DONTNEED);
		CALL(&owner, r_madvise, base, SIZE, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		RUN(partial_munmap);
		RUN(whole_munmap);
		RUN(protect);
		RUN(move);
		RUN(mapped_over);
		RUN(remapped_file_pages);
		RUN(advice);
		RUN(map_files);
		RUN(exec_with_attachments);
		RUN(split_own);
		RUN(split_beside_source);
		RUN(placed);
	}
	RUN(released_while_unmapped);
	if (!stat_settles("attachments", n))
		t_failed++;
	x_release(apid);
	peer_stop(&owner);
	return t_done();
}
