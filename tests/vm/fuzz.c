/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Random ioctls with random arguments, and random touching, mapping and
 * forking in between: fuzz SEED CALLS. The verdict is the kernel log's, the
 * counters', and that the process is still here.
 */
#include "t.h"

static __thread uint64_t seed;
static uint64_t next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

#define MEM (4 * HUGE)
static char *mem;
#define IDS 64
static long segids[IDS], apids[IDS], atts[IDS];
static long done, answered;

static long some(long *ids)
{
	switch (next() % 12) {
	case 0: return (long)next();
	case 1: return (long)(next() % 3) - 1;
	case 2: return ids[next() % IDS] ^ (1L << (next() % 63));
	default: return ids[next() % IDS];
	}
}

static uint64_t size_of_some(void)
{
	switch (next() % 8) {
	case 0: return next();
	case 1: return 0;
	case 2: return MAXADDR;
	case 3: return next() % MEM;
	default: return (next() % (MEM / PAGE)) * PAGE;
	}
}

static uint64_t addr_of_some(void)
{
	switch (next() % 8) {
	case 0: return next();
	case 1: return 0;
	case 2: return atts[next() % IDS] + next() % MEM;
	case 3: return atts[next() % IDS];
	case 4: return (uint64_t)mem + next() % MEM;
	default: return (uint64_t)mem + (next() % (MEM / PAGE)) * PAGE;
	}
}

static void touch_some(void)
{
	char *p = (char *)(addr_of_some() & ~7UL);

	/* Only what is ours to break. */
	if (!(p >= mem && p < mem + MEM)) {
		int k = next() % IDS;

		p = (char *)atts[k] + (next() % MEM & ~7UL);
		if (atts[k] <= 0)
			return;
		rd(p, NULL);
		return;
	}
	if (next() & 1)
		rd(p, NULL);
	else
		wr(p, next());
}

static void change_some(void)
{
	char *p = mem + (next() % (MEM / PAGE)) * PAGE;
	size_t n = (1 + next() % 64) * PAGE;

	if (p + n > mem + MEM)
		n = mem + MEM - p;
	switch (next() % 6) {
	case 0: munmap(p, n); /* fall through */
	case 1:
		mmap(p, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		break;
	case 2: madvise(p, n, MADV_DONTNEED); break;
	case 3: mprotect(p, n, next() & 1 ? PROT_READ : PROT_NONE);
		mprotect(p, n, PROT_READ | PROT_WRITE); break;
	case 4: madvise(p, n, 21); break;
	case 5: madvise(p, n, next() & 1 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE); break;
	}
}

/* The attachment, or a part of it, is the attacher's to change too. */
static void operate_some(void)
{
	long at = atts[next() % IDS];
	size_t n = (1 + next() % 32) * PAGE;

	if (at <= 0)
		return;
	at += (next() % 32) * PAGE;
	/* Never over what is not an attachment. */
	if (x_detach(NULL) || rd((void *)at, NULL) == SIGSEGV)
		return;
	switch (next() % 3) {
	case 0: mprotect((void *)at, n, PROT_READ); break;
	case 1: mprotect((void *)at, PAGE, PROT_READ | PROT_WRITE); break;
	case 2: mremap((void *)at, PAGE, PAGE, MREMAP_MAYMOVE); break;
	}
}

static void call_some(void)
{
	int k = next() % IDS;
	long ret = -1;

	switch (next() % 10) {
	case 0: {
		struct make m = { addr_of_some(), size_of_some(), next() % 9 ? 1 : (int)next(),
				  next() % 9 ? next() % 01000 : next(), 0 };
		ret = ioctl(dev, MAKE, &m);
		if (!ret)
			segids[k] = m.segid;
		break;
	}
	case 1: ret = x_remove(some(segids)); break;
	case 2:
	case 3: {
		struct get g = { some(segids), next() % 9 ? 1 + (int)(next() & 1) : (int)next(),
				 next() % 9 ? 1 : (int)next(), next() % 9 ? 0 : next(), 0 };
		ret = ioctl(dev, GET, &g);
		if (!ret)
			apids[k] = g.apid;
		break;
	}
	case 4: ret = x_release(some(apids)); break;
	case 5:
	case 6: {
		struct attach a = { some(apids), next() % 3 ? (int64_t)size_of_some() : 0, size_of_some(),
				    0, (int)next(), (int)next() };
		ret = ioctl(dev, ATTACH, &a);
		if (!ret)
			atts[k] = a.vaddr;
		break;
	}
	case 7:
		ret = x_detach(atts[next() % IDS] + next() % PAGE);
		break;
	case 8: ret = ioctl(dev, next() % 4 ? 0x7800 + next() % 12 : next(), next() % 2 ? NULL : (void *)next()); break;
	case 9:
		if (next() % 200 == 0) {
			close(dev);
			dev = -1;
			dev_open();
		}
		break;
	}
	answered += ret >= 0;
	done++;
}

static volatile int over;
static void *second(void *arg)
{
	seed = (uint64_t)arg;
	while (!over) {
		change_some();
		usleep(200);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	long calls = argc > 2 ? atol(argv[2]) : 100000;
	pthread_t t;

	t_catch();
	seed = argc > 1 ? strtoul(argv[1], NULL, 0) : 1;
	seed = seed * 0x9e3779b97f4a7c15UL | 1;
	mem = mmap((void *)0x400000000000L, MEM, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	dev_open();
	pthread_create(&t, NULL, second, (void *)(seed ^ 0x5555));
	while (done < calls) {
		call_some();
		for (int i = next() % 3; i > 0; i--)
			touch_some();
		if (next() % 50 == 0)
			operate_some();
		if (next() % 5000 == 0) {
			pid_t pid = fork();

			if (!pid) {
				for (int i = 0; i < 200; i++) {
					call_some();
					touch_some();
				}
				_exit(0);
			}
			waitpid(pid, NULL, 0);
		}
	}
	over = 1;
	pthread_join(t, NULL);
	printf("  %ld calls, %ld answered\n", done, answered);
	t_case = "fuzz";
	CHECK(answered > calls / 20);
	close(dev);
	CHECK(stat_settles("segments", 0) && stat_settles("permits", 0));
	t_passed = !t_failed;
	return t_done();
}
