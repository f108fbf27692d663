/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Random ioctls with random arguments, and random touching, mapping and
 * forking in between, by two processes that attach each other's memory and
 * their own: fuzz SEED CALLS, of each. The verdict is the kernel log's, the
 * counters', and that the processes are still here.
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
/* Both processes know all segments. */
static long *segids;
static long apids[IDS], atts[IDS], sizes[IDS];
static long done, answered, holds;
/* Where attachments go that may be written and operated on: nothing else is here. */
#define SLOT (2 * MEM)
#define ARENA 0x500000000000L
#define IN_ARENA(p) ((long)(p) >= ARENA && (long)(p) < ARENA + IDS * (long)SLOT)

static long some(long *ids)
{
	switch (next() % 24) {
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
	case 4:
	case 5: return (next() % 5) * HUGE;
	default: return (next() % (MEM / PAGE)) * PAGE;
	}
}

static uint64_t addr_of_some(void)
{
	switch (next() % 8) {
	case 0: return next();
	case 1: return 0;
	case 2: return atts[next() % IDS] + next() % MEM;
	case 3: return next() & 1 ? (uint64_t)atts[next() % IDS] : ARENA + next() % (IDS * SLOT);
	case 4: return (uint64_t)mem + next() % MEM;
	case 5:
	case 6: return (uint64_t)mem + (next() % 4) * HUGE;
	default: return (uint64_t)mem + (next() % (MEM / PAGE)) * PAGE;
	}
}

static void touch_some(void)
{
	char *p = (char *)(addr_of_some() & ~7UL);
	int k = next() % IDS;

	if (atts[k] > 0 && next() % 4)
		p = (char *)atts[k] + (next() % (sizes[k] + PAGE) & ~7UL);
	/* Only what is ours to break is written. */
	if ((p >= mem && p < mem + MEM) || IN_ARENA(p)) {
		if (next() & 1)
			rd(p, NULL);
		else
			wr(p, next());
	} else if (atts[k] > 0) {
		rd((void *)(atts[k] & ~7UL), NULL);
	}
}

static void change_some(void)
{
	char *p = mem + (next() % (MEM / PAGE)) * PAGE;
	size_t n = (1 + next() % 64) * PAGE;

	if (p + n > mem + MEM)
		n = mem + MEM - p;
	switch (next() % 7) {
	case 0: munmap(p, n); /* fall through */
	case 1:
		mmap(p, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		break;
	case 2: madvise(p, n, MADV_DONTNEED); break;
	case 3: mprotect(p, n, next() & 1 ? PROT_READ : PROT_NONE);
		mprotect(p, n, PROT_READ | PROT_WRITE); break;
	case 4: madvise(p, n, 21); break;
	case 5: madvise(p, n, next() & 1 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE); break;
	case 6: /* Huge again. */
		p = mem + (next() % 4) * HUGE;
		mmap(p, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		madvise(p, HUGE, MADV_HUGEPAGE);
		wr(p, 1);
		break;
	}
}

/* The attachment, or a part of it, is the attacher's to change too. */
static void operate_some(void)
{
	static const int advice[] = { MADV_DONTNEED, MADV_DONTFORK, MADV_DOFORK, MADV_HUGEPAGE, MADV_MERGEABLE,
				      20 /* COLD */, 21 /* PAGEOUT */, 22, 23 /* POPULATE_READ, _WRITE */ };
	long at = atts[next() % IDS], to;
	size_t n = (1 + next() % 32) * PAGE;
	int pipes[2];

	at = (at + (next() % (MEM / PAGE)) * PAGE) & ~(PAGE - 1);
	to = ARENA + (next() % (IDS * (SLOT / PAGE))) * PAGE;
	if (!IN_ARENA(at) || !IN_ARENA(at + n) || !IN_ARENA(to + n))
		return;
	switch (next() % 8) {
	case 0: mprotect((void *)at, n, PROT_READ); break;
	case 1: mprotect((void *)at, PAGE, PROT_READ | PROT_WRITE); break;
	case 2: mremap((void *)at, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)to); break;
	case 3: munmap((void *)at, n); break;
	case 4: madvise((void *)at, n, advice[next() % (sizeof(advice) / sizeof(*advice))]); break;
	case 5: mlock((void *)at, n); munlock((void *)at, n); break;
	case 6: mremap((void *)at, n, PAGE, 0); break;
	case 7: /* The kernel touches it. */
		if (pipe2(pipes, O_NONBLOCK))
			return;
		if (write(pipes[1], (void *)at, n) > 0 && read(pipes[0], (void *)to, n) > 0)
			;
		close(pipes[0]);
		close(pipes[1]);
		break;
	}
}

static void call_some(void)
{
	int k = next() % IDS;
	long ret = -1;

	switch (next() % 32) {
	case 0 ... 3: {
		struct make m = { addr_of_some(), size_of_some(), next() % 9 ? 1 : (int)next(),
				  next() % 9 ? 0666 : next(), 0 };

		ret = ioctl(dev, MAKE, &m);
		if (!ret)
			segids[k] = m.segid;
		break;
	}
	case 4: ret = x_remove(some(segids)); break;
	case 5 ... 11: {
		struct get g = { some(segids), next() % 9 ? 1 + (next() % 4 > 0) : (int)next(),
				 next() % 9 ? 1 : (int)next(), next() % 9 ? 0 : next(), 0 };

		ret = ioctl(dev, GET, &g);
		if (!ret)
			apids[k] = g.apid;
		break;
	}
	case 12: ret = x_release(some(apids)); break;
	case 13 ... 23: {
		struct attach a = { some(apids), next() % 2 ? (int64_t)size_of_some() : 0, size_of_some(),
				    0, (int)next(), (int)next() };

		if (next() % 8)
			a.vaddr = ARENA + k * SLOT + (next() & 1 ? 0 : (next() % 512) * PAGE);
		else if (next() & 1)
			a.vaddr = (uint64_t)mem + (next() % (MEM / PAGE)) * PAGE;
		/* Over what is not ours it must not go. */
		if (a.vaddr && a.size > SLOT / 2)
			a.size = SLOT / 2;
		if (a.vaddr >= (uint64_t)mem && a.vaddr < (uint64_t)mem + MEM && a.size > (uint64_t)mem + MEM - a.vaddr)
			a.size = PAGE;
		ret = ioctl(dev, ATTACH, &a);
		if (!ret) {
			atts[k] = a.vaddr;
			sizes[k] = a.size;
		}
		break;
	}
	case 24:
	case 25: ret = x_detach(atts[next() % IDS] + next() % PAGE); break;
	case 26 ... 30:
		ret = ioctl(dev, next() % 4 ? 0x7800 + next() % 20 : next(), next() % 2 ? NULL : (void *)next());
		break;
	case 31:
		if (next() % 200 == 0) {
			close(dev);
			dev = -1;
			dev_open();
			break;
		}
		ret = x_hold(next() % 9 ? 1 : next() % 3 ? 0 : (long)next());
		holds += ret >= 0;
		break;
	}
	answered += ret >= 0;
	done++;
}

/*
 * By chance alone a huge page is attached too seldom to be counted on: this makes one,
 * attaches it as it must stand for that, and leaves the three numbers to chance.
 */
static void attach_huge(void)
{
	int k = next() % IDS;
	long segid = x_make(mem, MEM, 0666), apid, at;

	if (segid < 0)
		return;
	segids[k] = segid;
	apid = x_get(segid, RW);
	if (apid < 0)
		return;
	apids[k] = apid;
	at = x_attach_at(apid, 0, MEM, (void *)(ARENA + k * (long)SLOT));
	if (at < 0)
		return;
	atts[k] = at;
	sizes[k] = MEM;
	for (char *p = mem; p < mem + MEM; p += HUGE) {
		mmap(p, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		madvise(p, HUGE, MADV_HUGEPAGE);
		wr(p, 1);
		wr((void *)(at + (p - mem)), next());
	}
}

static volatile int over;
static void *second(void *arg)
{
	seed = (uint64_t)arg;
	while (!over) {
		change_some();
		usleep(1000);
	}
	return NULL;
}

/* Whoever waits for one that holds its memory may be waited for by it: not for long. */
static void *let_go(void *arg)
{
	while (!over) {
		x_hold(0);
		usleep(1000);
	}
	return NULL;
}

/* One of the two processes. */
static void fuzz(long calls)
{
	long told = calls / 4;
	pthread_t t, u;

	dev_open();
	pthread_create(&t, NULL, second, (void *)(seed ^ 0x5555));
	pthread_create(&u, NULL, let_go, NULL);
	while (done < calls) {
		call_some();
		/* Slow, and not stuck: who waits for it is told. */
		if (done >= told) {
			printf("  %ld calls of %ld\n", done, calls);
			told += calls / 4;
		}
		/* A fault that waits for the other process costs as much as many calls. */
		for (int i = next() % 16 ? 0 : 1 + next() % 3; i > 0; i--)
			touch_some();
		if (next() % 16 == 0)
			operate_some();
		if (next() % 500 == 0)
			attach_huge();
		if (next() % 5000 == 0) {
			pid_t pid = fork();

			if (!pid) {
				pthread_create(&u, NULL, let_go, NULL);
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
	pthread_join(u, NULL);
	printf("  %ld calls, %ld answered, %ld holds\n", done, answered, holds);
	CHECK(answered > calls / 20 && holds > calls / 100);
	close(dev);
}

int main(int argc, char **argv)
{
	long calls = argc > 2 ? atol(argv[2]) : 100000;
	long huge = stat_of("huge_pages_mapped"), writes = stat_of("faults_write"), waits = stat_of("faults_waited");
	int status;
	pid_t pid;

	t_catch();
	t_case = "fuzz";
	seed = argc > 1 ? strtoul(argv[1], NULL, 0) : 1;
	seed = seed * 0x9e3779b97f4a7c15UL | 1;
	mem = mmap((void *)0x400000000000L, MEM, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	segids = mmap(NULL, IDS * sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		seed ^= 0xaaaa0000;
		fuzz(calls);
		fflush(stdout);
		_exit(t_failed != 0);
	}
	fuzz(calls);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(stat_settles("segments", 0) && stat_settles("permits", 0));
	huge = stat_of("huge_pages_mapped") - huge;
	writes = stat_of("faults_write") - writes;
	waits = stat_of("faults_waited") - waits;
	printf("  %ld write faults, %ld huge pages, waited %ld times\n", writes, huge, waits);
	/* It reached what it is for. */
	CHECK(writes > calls / 200 && waits > 0 && huge > 0);
	t_passed = !t_failed;
	return t_done();
}
