/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Two processes attached to each other, both faulting while both churn their
 * own mappings: the deadlock case, and the race that would show a stale page.
 */
#include "t.h"

#define PAGES 512L
#define SIZE (PAGES * PAGE)
#define SLOTS 64

/* Between the processes, outside anything exported. */
static struct shared {
	volatile long segid[2];
	volatile long addr[2];
	volatile long stop;
	long stale, faults, churns, sigbus;
	/* Owner: what each slot holds; odd while it changes. */
	struct { volatile long seq; volatile long value; } slot[2][SLOTS];
	pthread_barrier_t barrier;
} *sh;

struct side { int me; char *mine; char *theirs; unsigned seed; };

static unsigned next(struct side *s)
{
	s->seed = s->seed * 1103515245 + 12345;
	return s->seed >> 8;
}

/* Replaces pages under the other side's feet, and says what is there now. */
static void *churner(void *arg)
{
	struct side *s = arg;

	while (!sh->stop) {
		int k = next(s) % SLOTS;
		char *page = s->mine + k * 8 * PAGE;
		long v = ((long)s->me << 60) | next(s);

		/* Readers do not trust the slot from here ... */
		__atomic_fetch_add(&sh->slot[s->me][k].seq, 1, __ATOMIC_SEQ_CST);
		switch (next(s) % 6) {
		case 0:
			munmap(page, 8 * PAGE);
			mmap(page, 8 * PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
			break;
		case 1:
			mmap(page, 8 * PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
			break;
		case 2:
			madvise(page, 8 * PAGE, MADV_DONTNEED);
			break;
		case 3:
			mprotect(page, 8 * PAGE, PROT_READ);
			mprotect(page, 8 * PAGE, PROT_READ | PROT_WRITE);
			break;
		case 4:
			madvise(page, 8 * PAGE, 21 /* MADV_PAGEOUT */);
			break;
		case 5:
			mremap(page, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			       s->mine + SIZE + k * 8 * PAGE);
			mmap(page, 8 * PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
			break;
		}
		*(volatile long *)page = v;
		sh->slot[s->me][k].value = v;
		/* ... to here. */
		__atomic_fetch_add(&sh->slot[s->me][k].seq, 1, __ATOMIC_SEQ_CST);
		__atomic_fetch_add(&sh->churns, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* Reads and writes what the other side says is there. */
static void *toucher(void *arg)
{
	struct side *s = arg;
	int him = !s->me;

	while (!sh->stop) {
		int k = next(s) % SLOTS;
		char *page = s->theirs + k * 8 * PAGE;
		long before = __atomic_load_n(&sh->slot[him][k].seq, __ATOMIC_SEQ_CST), want, got;
		int sig;

		want = sh->slot[him][k].value;
		sig = rd(page, &got);
		if (!sig)
			wr(page + 8, s->me);
		else
			__atomic_fetch_add(&sh->sigbus, 1, __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (!(before & 1) && before == __atomic_load_n(&sh->slot[him][k].seq, __ATOMIC_SEQ_CST) &&
		    before && (sig || got != want)) {
			__atomic_fetch_add(&sh->stale, 1, __ATOMIC_RELAXED);
			printf("  slot %d: signal %d, got %lx, want %lx\n", k, sig, got, want);
		}
		__atomic_fetch_add(&sh->faults, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* Attaches and detaches windows all the time. */
static void *attacher(void *arg)
{
	struct side *s = arg;
	long a = x_get(sh->segid[!s->me], RW);

	while (!sh->stop) {
		long at = sh->addr[!s->me];
		char *p = (char *)x_attach(a, at + (next(s) % 64) * PAGE, 2 * SIZE - 64 * PAGE);

		if ((long)p > 0) {
			rd(p + (next(s) % 400) * PAGE, NULL);
			/* Split, with the space's lock held, in an exporter. */
			mprotect(p + (next(s) % 400) * PAGE, 3 * PAGE, PROT_READ);
			munmap(p + (next(s) % 400) * PAGE, PAGE);
			if (next(s) & 1)
				x_detach(p);
			else
				munmap(p, 2 * SIZE - 64 * PAGE);
		}
	}
	x_release(a);
	return NULL;
}

static void run_side(int me, int seconds, int threads, int huge)
{
	struct side sides[8];
	pthread_t t[8];
	char *mine;
	long apid, p;

	mine = mmap((void *)(0x300000000000L + me * 0x1000000000L), 2 * SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	madvise(mine, SIZE, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(mine, 0, SIZE);
	sh->addr[me] = (long)mine;
	sh->segid[me] = x_make(NULL, MAXADDR, 0666);
	pthread_barrier_wait(&sh->barrier);
	apid = x_get(sh->segid[!me], RW);
	p = x_attach(apid, sh->addr[!me], SIZE);
	if (p <= 0)
		abort();
	for (int i = 0; i < threads; i++) {
		sides[i] = (struct side){ me, mine, (char *)p, 77 * i + me + 1 };
		/* One churner: the slots have one writer. */
		pthread_create(&t[i], NULL, i == 0 ? churner : i == 1 ? attacher : toucher, &sides[i]);
	}
	/* On a loaded machine a second is not what it was: enough counts. */
	for (int i = 0; i < seconds || (i < 60 && (sh->faults <= 100 || sh->churns <= 100)); i++)
		sleep(1);
	sh->stop = 1;
	for (int i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	pthread_barrier_wait(&sh->barrier);
	x_release(apid);
}

static void both(int seconds, int huge)
{
	pthread_barrierattr_t attr;
	int status;
	pid_t pid;

	memset(sh, 0, sizeof(*sh));
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&sh->barrier, &attr, 2);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		dev = -1;
		dev_open();
		run_side(1, seconds, 4, huge);
		_exit(0);
	}
	dev_open();
	run_side(0, seconds, 4, huge);
	waitpid(pid, &status, 0);
	CHECK(status == 0);
	CHECK(sh->stale == 0);
	printf("  %ld touches, %ld churns, %ld SIGBUS, waited %ld, again %ld\n", sh->faults, sh->churns,
	       sh->sigbus, stat_of("faults_waited"), stat_of("faults_again"));
	CHECK(sh->faults > 100 && sh->churns > 100);
	/* The test is worth something only if the lock was contended. */
	CHECK(stat_of("faults_waited") > 0 && stat_of("faults_again") > 0);
}

static int seconds = 12;
static void mutual_small(void) { both(seconds, 0); }
static void mutual_huge(void) { both(seconds, 1); }

/* Two owner threads write memory that the attacher reads: no lost update. */
static void *incr(void *arg)
{
	for (int i = 0; i < 20000; i++)
		__atomic_fetch_add((long *)arg + (i % 64) * PAGE / 8, 1, __ATOMIC_SEQ_CST);
	return NULL;
}
static long r_incr(long addr, long b, long c) { incr((void *)addr); return 0; }

/* Every page is swapped out again and again while both sides count on it. */
static void counting_under_reclaim(void)
{
	struct peer o = peer_start();
	long at = CALL(&o, r_map, 0, 64 * PAGE, 0);
	long s = CALL(&o, r_make, at, 64 * PAGE, 0666), a = x_get(s, RW), p = x_attach(a, 0, 64 * PAGE);
	long sum = 0, rounds = 10;

	for (int r = 0; r < rounds; r++) {
		pthread_t t;

		CALL(&o, r_madvise, at, 64 * PAGE, 21);
		pthread_create(&t, NULL, incr, (void *)p);
		peer_send(&o, r_incr, at, 0, 0);
		peer_wait(&o);
		pthread_join(t, NULL);
	}
	for (int i = 0; i < 64; i++)
		sum += CALL(&o, r_val, at + i * PAGE, 0, 0);
	CHECK(sum == rounds * 40000);
	CHECK(x_release(a) == 0);
	peer_stop(&o);
}

int main(int argc, char **argv)
{
	t_catch();
	if (argc > 1)
		seconds = atoi(argv[1]);
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	dev_open();
	RUN(mutual_small);
	RUN(mutual_huge);
	RUN(counting_under_reclaim);
	return t_done();
}
