/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Many processes and threads at once. */
#include "harness.h"

#include <pthread.h>
#include <setjmp.h>
#include <sys/time.h>

CASE(all_to_all, "four processes, each an owner and an attacher of all others")
{
	enum { N = 4 };
	struct peer p[N];
	char *source = anonymous(4 * PAGE);
	long segid[N];

	for (int i = 0; i < N; i++)
		p[i] = spawn();
	for (int i = 0; i < N; i++) {
		EXPECT_EQ(r_fill(&p[i], (long)source, 4 * PAGE, i), 0);
		segid[i] = call(&p[i], f_make_all, 0, 0, 0);
		EXPECT(segid[i] > 0);
		for (int k = 0; k < i; k++)
			EXPECT(segid[k] != segid[i]);
	}
	for (int i = 0; i < N; i++)
		for (int k = 0; k < N; k++) {
			long addr;

			if (i == k)
				continue;
			addr = r_attach(&p[i], r_get(&p[i], segid[k], XPMEM_RDWR), (long)source,
					4 * PAGE);
			EXPECT_EQ(r_verify(&p[i], addr, 4 * PAGE, k), 0);
		}
	for (int i = 0; i < N; i++)
		EXPECT_EQ(r_verify(&p[i], (long)source, 4 * PAGE, i), 0);
	for (int i = 0; i < N; i++)
		quit(&p[i]);
}

struct hammer {
	long segid;
	char *source;
	int rounds, id;
};

static void *hammer(void *argument)
{
	struct hammer *h = argument;

	for (int i = 0; i < h->rounds; i++) {
		long apid = api->get(h->segid, XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL);
		long addr = attach(apid, (long)h->source, 4 * PAGE, 0), seen;

		if (apid <= 0 || addr == -1)
			return (void *)1;
		seen = peek(addr + 9);
		if (seen != 0x5e)
			return (void *)(1000 + seen);
		if (poke(addr + 64 + h->id, i))
			return (void *)3;
		if (i % 2 && api->detach((void *)(addr + PAGE)))
			return (void *)4;
		if (api->release(apid))
			return (void *)5;
	}
	return NULL;
}

static long f_hammer(long segid, long source, long rounds, long d)
{
	enum { THREADS = 6 };
	struct hammer h[THREADS];
	pthread_t threads[THREADS];
	long bad = 0;

	(void)d;
	for (int i = 0; i < THREADS; i++) {
		h[i] = (struct hammer){ segid, (char *)source, rounds, i };
		if (pthread_create(&threads[i], NULL, hammer, &h[i]))
			return 100;
	}
	for (int i = 0; i < THREADS; i++) {
		void *result;

		pthread_join(threads[i], &result);
		if (result)
			bad = (long)result;
	}
	return bad;
}

CASE(threads, "six threads get, attach, touch, detach and release at once, first call included")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long segid = make_all();

	memset(source, 0x5e, 64);
	EXPECT_EQ(call(&p, f_hammer, segid, (long)source, 50), 0);
	quit(&p);
}

struct maker {
	long made;
};

static void *maker(void *argument)
{
	struct maker *m = argument;

	for (int i = 0; i < 50; i++) {
		m->made = f_make_all(0, 0, 0, 0);
		if (m->made <= 0)
			return (void *)1;
		if (api->remove(m->made))
			return (void *)2;
	}
	m->made = f_make_all(0, 0, 0, 0);
	return NULL;
}

CASE(threads_make, "six threads make and remove at once")
{
	enum { THREADS = 6 };
	struct maker m[THREADS];
	pthread_t threads[THREADS];
	void *result;

	for (int i = 0; i < THREADS; i++)
		EXPECT_EQ(pthread_create(&threads[i], NULL, maker, &m[i]), 0);
	for (int i = 0; i < THREADS; i++) {
		EXPECT_EQ(pthread_join(threads[i], &result), 0);
		EXPECT_EQ((long)result, 0);
		for (int k = 0; k < i; k++)
			EXPECT(m[k].made != m[i].made);
	}
	for (int i = 0; i < THREADS; i++)
		EXPECT_EQ(api->remove(m[i].made), 0);
}

static void *forker(void *argument)
{
	long *bad = argument;

	for (int i = 0; i < 30 && !*bad; i++) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			long segid = f_make_all(0, 0, 0, 0);

			_exit(segid > 0 && api->remove(segid) == 0 ? 0 : 1);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
			*bad = 1;
	}
	return NULL;
}

CASE(fork_among_threads, "a fork while other threads are inside calls: the child can call at once")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long segid = make_all(), bad = 0;
	pthread_t thread;

	memset(source, 0x5e, 64);
	EXPECT_EQ(pthread_create(&thread, NULL, forker, &bad), 0);
	EXPECT_EQ(f_hammer(segid, (long)source, 20, 0), 0);
	EXPECT_EQ(pthread_join(thread, NULL), 0);
	EXPECT_EQ(bad, 0);
	quit(&p);
}

/* ---- a signal's handler that jumps out of calls */

static sigjmp_buf back;
static volatile sig_atomic_t may_jump;

static void jump(int sig)
{
	(void)sig;
	if (may_jump)
		siglongjmp(back, 1);
}

/* More calls that nobody comes back to than there are places for calls. */
#define JUMPS 300

CASE(jumps_out_of_calls, "a program whose handlers jump out of the library's calls can go on calling")
{
	size_t size = 64 * PAGE;
	char *source = anonymous(size);
	long segid = make_range(source, size), apid = get_rw(segid), addr = attach(apid, 0, size, 0);
	volatile int jumps = 0, i = 0;

	EXPECT(addr != -1);
	signal(SIGALRM, jump);
	for (; jumps < JUMPS && i < 100000; i++) {
		struct itimerval soon = { .it_value.tv_usec = 20 + i * 37 % 300 };

		if (sigsetjmp(back, 1)) {
			jumps++;
			continue;
		}
		may_jump = 1;
		setitimer(ITIMER_REAL, &soon, NULL);
		while (may_jump) {
			mprotect(source, PAGE, PROT_READ);
			mprotect(source, PAGE, PROT_READ | PROT_WRITE);
		}
	}
	may_jump = 0;
	EXPECT_EQ(jumps, JUMPS);
	EXPECT_EQ(mprotect(source, size, PROT_READ | PROT_WRITE), 0);
	source = anonymous(size);
	fill(source, size, 5);
	addr = attach(get_rw(make_range(source, size)), 0, size, 0);
	EXPECT_EQ(verify(addr, size, 5), 0);
	EXPECT_EQ(munmap(source, size), 0);
	EXPECT(FAULTED(peek(addr)));
}
