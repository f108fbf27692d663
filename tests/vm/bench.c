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

static void calls(void)
{
	long get[101], attach[101], detach[101], release[101], none[101], t;

	for (int i = 0; i < 101; i++) {
		long a, p;

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
		t = now();
		x_release(a);
		release[i] = now() - t;
	}
	for (int i = 0; i < 101; i++) {
		t = now();
		ioctl(dev, VERSION);
		none[i] = now() - t;
	}
	line("an ioctl that does nothing", median(none, 101), 0, "(part of each below)");
	line("get", median(get, 101), 1000, "");
	line("attach, 64 MiB", median(attach, 101), 6000, "");
	line("detach, untouched", median(detach, 101), 0, "");
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

struct part { char *p; long pages; };
static void *touch_part(void *arg)
{
	struct part *part = arg;

	for (int i = 0; i < 4; i++)
		touch(part->p, part->pages, FORWARD, 0);
	return NULL;
}

/* Only under -smp 2 without -icount. */
static void scaling(void)
{
	for (int n = 1; n <= 2; n++) {
		long best = 1L << 60;

		for (int round = 0; round < 7; round++) {
			char *p = (char *)x_attach(apid, 0, MIB64);
			struct part part[2];
			pthread_t t[2];
			long start = now();

			for (int i = 0; i < n; i++) {
				part[i] = (struct part){ p + i * (MIB64 / n), MIB64 / PAGE / n };
				pthread_create(&t[i], NULL, touch_part, &part[i]);
			}
			for (int i = 0; i < n; i++)
				pthread_join(t[i], NULL);
			if (now() - start < best)
				best = now() - start;
			x_detach(p);
		}
		printf("%d thread(s) fault 64 MiB of 4 KiB pages in %ld us\n", n, best / 1000);
	}
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
		scaling();
	} else {
		calls();
		for (int order = FORWARD; order <= RANDOM; order++)
			for (int write = 0; write < 2; write++)
				one("64 MiB of 4 KiB pages", MIB64, 0, order, write, small * 200, small / 512);
		one("8 MiB of 4 KiB pages", 8UL << 20, 0, FORWARD, 0, 2048 * 200, 4);
		one("1 MiB of 4 KiB pages", 1UL << 20, 0, FORWARD, 0, 256 * 200, 1);
		prepare(1);
		for (int write = 0; write < 2; write++)
			one("64 MiB of 2 MiB pages", MIB64, 1, FORWARD, write, 500000, 32);
		prepare(0);
		owner_cost();
		printf("%d targets missed\n", missed);
	}
	x_release(apid);
	peer_stop(&owner);
	return 0;
}
