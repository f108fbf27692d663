/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Guest instructions of each operation. Under -icount shift=0 a nanosecond of
 * the guest's clock is one instruction; without it, nanoseconds are printed
 * and only the thread-scaling line means anything.
 */
#include "t.h"

#define MIB64 (64UL << 20)

static struct peer owner;
static long base, segid, apid;
static int missed, counted;

static long now(void)
{
#ifdef __x86_64__
	/* The guest's clock, without the kernel's opinion of it. */
	if (counted)
		return __builtin_ia32_rdtsc();
#endif
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
	return *(const long *)a < *(const long *)b ? -1 : 1;
}

static long median(long *v, int n)
{
	qsort(v, n, sizeof(*v), by_size);
	return v[n / 2];
}

static void line(const char *what, long value, long target, const char *more)
{
	int bad = target && value > target;

	missed += bad;
	if (target)
		printf("%-44s %12ld  target %9ld  %s %s\n", what, value, target, bad ? "MISSED" : "met", more);
	else
		printf("%-44s %12ld  %s\n", what, value, more);
}

enum { FORWARD, BACKWARD, RANDOM };
static const char *const order_name[] = { "forward", "backward", "random" };

static long touch(char *p, long pages, int order, int write)
{
	long start = now(), i, k;

	for (i = 0; i < pages; i++) {
		/* pages is a power of two, the factor odd: each page once. */
		k = order == FORWARD ? i : order == BACKWARD ? pages - 1 - i : (i * 40503 + 7) & (pages - 1);
		if (write)
			*(volatile long *)(p + k * PAGE) = i;
		else
			(void)*(volatile long *)(p + k * PAGE);
	}
	return now() - start;
}

static long faults(void)
{
	return stat_of("faults_read") + stat_of("faults_write") + stat_of("faults_upgrade");
}

/*
 * The timer interrupt and what the kernel does then fall into some runs: the
 * least of several is the operation's own cost.
 */
#define ROUNDS 9

static void one(const char *name, unsigned long size, int huge, int order, int write, long target, long most)
{
	long pages = size / PAGE, n = 0, first = 1L << 60, again = first, detach = first, t;
	char what[128], more[128], *p;

	for (int round = 0; round < ROUNDS; round++) {
		p = (char *)x_attach(apid, 0, size);
		n -= faults();
		t = touch(p, pages, order, write);
		first = t < first ? t : first;
		n += faults();
		t = touch(p, pages, order, write);
		again = t < again ? t : again;
		t = now();
		if (x_detach(p))
			abort();
		t = now() - t;
		detach = t < detach ? t : detach;
	}
	/* More than one fault where one is due shows as a fraction rounded up. */
	n = (n + ROUNDS - 1) / ROUNDS;
	snprintf(what, sizeof(what), "first %s, %s, %s", write ? "write" : "read", name, order_name[order]);
	snprintf(more, sizeof(more), "(%ld faults; loop alone %ld subtracted; %ld a page)", n, again,
		 (first - again) / pages);
	line(what, first - again, target, more);
	if (most && n > most) {
		missed++;
		printf("  MISSED: %ld faults, at most %ld\n", n, most);
	}
	if (order == FORWARD && !write && size == MIB64)
		line(huge ? "detach, owner on 2 MiB pages" : "detach, owner on 4 KiB pages", detach,
		     huge ? 12000 : 2000000, "");
}

/*
 * What the kernel itself takes for the same: a mapping of a memfd made and
 * dropped, and memory of the process's own, touched and dropped.
 */
static void floor_calls(int memfd, long *map, long *unmap)
{
	long t = now();
	char *p = mmap(NULL, MIB64, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);

	*map = now() - t;
	t = now();
	munmap(p, MIB64);
	*unmap = now() - t;
}

enum { ANON_SMALL, ANON_HUGE, MEMFD };
static long floor_unmap(int kind)
{
	int fd = kind == MEMFD ? memfd_create("floor", 0) : -1;
	long least = 1L << 60, t;

	if (fd >= 0 && ftruncate(fd, MIB64))
		abort();
	for (int round = 0; round < 5; round++) {
		char *p = mmap((void *)0x300000000000L, MIB64, PROT_READ | PROT_WRITE,
			       fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);

		if (fd < 0)
			madvise(p, MIB64, kind == ANON_HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		r_fill((long)p, MIB64 / PAGE, 1);
		t = now();
		munmap(p, MIB64);
		t = now() - t;
		least = t < least ? t : least;
	}
	if (fd >= 0)
		close(fd);
	return least;
}

static void floors(void)
{
	line("  the kernel's own: munmap, memfd, 4 KiB", floor_unmap(MEMFD), 0, "(64 MiB, touched)");
	line("  the kernel's own: munmap, anonymous, 4 KiB", floor_unmap(ANON_SMALL), 0, "(64 MiB, touched)");
	line("  the kernel's own: munmap, anonymous, 2 MiB", floor_unmap(ANON_HUGE), 0, "(64 MiB, touched)");
}

static void calls(void)
{
	static long get[101], attach[101], detach[101], release[101], none[101], map[101], unmap[101];
	int memfd = memfd_create("floor", 0);
	long t;

	if (ftruncate(memfd, MIB64))
		abort();
	for (int i = 0; i < 101; i++) {
		long a, p;

		/*
		 * One more mapping each round: what the kernel's tree of them
		 * costs depends on how full its nodes are.
		 */
		mmap(NULL, PAGE, i & 1 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		t = now();
		a = x_get(segid, RW);
		get[i] = now() - t;
		p = x_attach(a, 0, PAGE);
		x_detach(p);
		t = now();
		p = x_attach(a, 0, MIB64);
		attach[i] = now() - t;
		t = now();
		x_detach(p);
		detach[i] = now() - t;
		floor_calls(memfd, &map[i], &unmap[i]);
		t = now();
		x_release(a);
		release[i] = now() - t;
	}
	for (int i = 0; i < 101; i++) {
		t = now();
		ioctl(dev, VERSION);
		none[i] = now() - t;
	}
	close(memfd);
	line("an ioctl that does nothing", median(none, 101), 0, "(part of each below)");
	line("get", median(get, 101), 1000, "");
	line("attach, 64 MiB", median(attach, 101), 6000, "");
	line("  the kernel's own: mmap of a memfd, 64 MiB", median(map, 101), 0, "");
	line("detach, untouched", median(detach, 101), 0, "");
	line("  the kernel's own: munmap of it, untouched", median(unmap, 101), 0, "");
	line("release", median(release, 101), 0, "");
}

static long r_churn(long rounds, long pages, long c)
{
	long start = now();

	for (long i = 0; i < rounds; i++) {
		char *m = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		for (long k = 0; k < pages; k++)
			*(volatile char *)(m + k * PAGE) = 1;
		munmap(m, pages * PAGE);
	}
	return (now() - start) / rounds;
}

/* The owner pays nothing for attachments elsewhere. */
static void owner_cost(void)
{
	static long at[20000];
	long none, many, a = x_get(segid, RW);
	char more[64];

	CALL(&owner, r_churn, 20, 16, 0);
	none = CALL(&owner, r_churn, 400, 16, 0);
	for (int i = 0; i < 20000; i++) {
		at[i] = x_attach(a, (i % 16384) * PAGE, PAGE);
		(void)*(volatile long *)at[i];
	}
	many = CALL(&owner, r_churn, 400, 16, 0);
	snprintf(more, sizeof(more), "(%ld with none; %ld.%02ldx)", none, many / none, many * 100 / none % 100);
	line("owner's mmap+touch+munmap, 20,000 attached", many, none * 3 / 2, more);
	x_release(a);
}

/*
 * Do faults of two threads wait for each other? Each thread touches its half,
 * either of one attachment or of an attachment of its own: any lock that an
 * attachment's faults share makes the first slower than the second. Only under
 * -smp 2 without -icount.
 */
struct part { char *p; long pages, took; int n; };
static volatile int part_go;
static void *touch_part(void *arg)
{
	struct part *part = arg;

	__atomic_fetch_add(&part_go, 1, __ATOMIC_SEQ_CST);
	while (part_go < part->n)
		;
	part->took = touch(part->p, part->pages, FORWARD, 0);
	return NULL;
}

static long touched_by(int n, int attachments)
{
	long pages = MIB64 / PAGE, took = 0;
	struct part part[2];
	pthread_t t[2];
	char *p[2];

	for (int i = 0; i < attachments; i++)
		p[i] = (char *)x_attach(apid, 0, MIB64);
	part_go = 0;
	for (int i = 0; i < n; i++) {
		part[i] = (struct part){ p[i % attachments] + i * (MIB64 / n), pages / n, 0, n };
		pthread_create(&t[i], NULL, touch_part, &part[i]);
	}
	for (int i = 0; i < n; i++) {
		pthread_join(t[i], NULL);
		took = part[i].took > took ? part[i].took : took;
	}
	for (int i = 0; i < attachments; i++)
		x_detach(p[i]);
	return took;
}

static void scaling(const char *what)
{
	long one = 1L << 60, two = one, apart = one, t;

	/* Taken in turn, so that a busy machine spoils all three alike. */
	for (int round = 0; round < 41; round++) {
		t = touched_by(1, 1);
		one = t < one ? t : one;
		t = touched_by(2, 1);
		two = t < two ? t : two;
		t = touched_by(2, 2);
		apart = t < apart ? t : apart;
	}
	printf("64 MiB of %s, us: 1 thread %ld, 2 threads %ld (%ld.%02ldx), on an attachment each %ld\n",
	       what, one / 1000, two / 1000, one / two, one * 100 / two % 100, apart / 1000);
}

/* Memory that its owner never touched: a fault of the owner's for each page, too. */
static void untouched(const char *name, long flags)
{
	long size = 8UL << 20, best = 1L << 60, own = best, t;
	char what[64], more[96], *p;

	for (int round = 0; round < 5; round++) {
		CALL(&owner, r_unmap, base, size, 0);
		CALL(&owner, r_map, base, size, flags);
		CALL(&owner, r_madvise, base, size, MADV_NOHUGEPAGE);
		p = (char *)x_attach(apid, 0, size);
		t = touch(p, size / PAGE, FORWARD, 1);
		best = t < best ? t : best;
		x_detach(p);
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
		madvise(p, size, MADV_NOHUGEPAGE);
		t = touch(p, size / PAGE, FORWARD, 1);
		own = t < own ? t : own;
		munmap(p, size);
	}
	snprintf(what, sizeof(what), "first write, 8 MiB, owner never there, %s", name);
	snprintf(more, sizeof(more), "(%ld a page; %ld in memory of one's own)", best * PAGE / size, own * PAGE / size);
	line(what, best, 0, more);
}

static void prepare(int huge)
{
	/* Mapped anew: an old page table would keep huge pages out. */
	CALL(&owner, r_unmap, base, MIB64, 0);
	CALL(&owner, r_map, base, MIB64, 0);
	CALL(&owner, r_madvise, base, MIB64, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	CALL(&owner, r_fill, base, MIB64 / PAGE, 1);
}

int main(int argc, char **argv)
{
	long small = MIB64 / PAGE;

	t_catch();
	counted = argc == 1 && getenv("VM_ICOUNT") && *getenv("VM_ICOUNT");
	/* Printing goes through the console's interrupts: all of it at the end. */
	setvbuf(stdout, malloc(1 << 16), _IOFBF, 1 << 16);
	dev_open();
	owner = peer_start();
	base = CALL(&owner, r_map, 0x200000000000L, MIB64, 0);
	segid = CALL(&owner, r_make, base, MIB64, 0666);
	apid = x_get(segid, RW);
	prepare(0);
	if (argc > 1) {
		scaling("4 KiB pages");
		prepare(1);
		scaling("2 MiB pages");
	} else {
		calls();
		for (int order = FORWARD; order <= RANDOM; order++)
			for (int write = 0; write < 2; write++)
				one("64 MiB of 4 KiB pages", MIB64, 0, order, write, small * 170, small / 512);
		one("8 MiB of 4 KiB pages", 8UL << 20, 0, FORWARD, 0, 2048 * 170, 4);
		one("1 MiB of 4 KiB pages", 1UL << 20, 0, FORWARD, 0, 256 * 170, 1);
		prepare(1);
		for (int write = 0; write < 2; write++)
			one("64 MiB of 2 MiB pages", MIB64, 1, FORWARD, write, 300000, 32);
		untouched("anonymous", MAP_PRIVATE);
		untouched("shared", MAP_SHARED);
		floors();
		prepare(0);
		owner_cost();
		printf("%d targets missed\n", missed);
	}
	x_release(apid);
	peer_stop(&owner);
	return 0;
}
