/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Whoever waits waits alone: for a file server that does not answer (spoken to
 * over /dev/fuse), for memory that is being changed. Nothing else of the
 * attacher or the owner waits with it, and SIGKILL ends it.
 */
#include "owner.h"
#include "fuse.h"

/* An attacher with two threads: one touches, one goes on mapping. */
static volatile long *turns, *value;
static void *mapper(void *arg)
{
	for (;;) {
		void *p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		munmap(p, PAGE);
		++*turns;
		usleep(1000);
	}
	return NULL;
}

static long r_mapper(long a, long b, long c)
{
	pthread_t t;

	return pthread_create(&t, NULL, mapper, NULL);
}

/* With a path, one that maps the file itself: the measure of the others. */
static pid_t attacher_start(const char *path)
{
	pid_t pid;

	*turns = *value = 0;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		long a, p;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dev = -1;
		dev_open();
		if (path) {
			p = BASE;
			if (r_file((long)path, p, 0))
				_exit(1);
		} else {
			a = x_get(segid, RW);
			p = x_attach(a, BASE, FILE_SIZE);
		}
		r_mapper(0, 0, 0);
		*value = val((void *)p);
		pause();
	}
	return pid;
}

static int goes_on(void)
{
	long had = *turns;

	for (int i = 0; i < 1000; i++) {
		if (*turns > had + 10)
			return 1;
		usleep(10000);
	}
	return 0;
}

static void server_without_answer(void)
{
	struct server s;
	pid_t pid;

	if (getuid() || access("/dev/fuse", W_OK))
		SKIP("no FUSE, or not root");
	for (int who = 0; who < 5; who++) {
		NEED(server_start(&s) == 0);
		struct peer o = peer_start();
		NEED(CALL(&o, r_file, s.path, BASE, 0) == 0);
		segid = CALL(&o, r_make, 0, MAXADDR, 0666);
		NEED(segid > 0);
		pid = attacher_start(who == 4 ? s.path : NULL);
		for (int i = 0; i < 500 && !*turns; i++)
			usleep(10000);
		usleep(300000);
		CHECK(*value == 0 && goes_on());
		CHECK(readable(pid, "cmdline") && readable(pid, "maps") && readable(pid, "status"));
		CHECK(readable(o.pid, "cmdline") && readable(o.pid, "maps"));
		/* The owner's mmap goes on. */
		CHECK(CALL(&o, r_map, 0, 16 * PAGE, 0) > 0);
		switch (who) {
		case 0:	/* The attacher is killed. */
		case 4:
			kill(pid, SIGKILL);
			CHECK(ends(pid));
			break;
		case 1:	/* The owner is killed: it ends; and so does the attacher. */
			kill(o.pid, SIGKILL);
			CHECK(ends(o.pid));
			kill(pid, SIGKILL);
			CHECK(ends(pid));
			break;
		case 2:	/* The server answers: so it was no more than a wait. */
			CHECK(write(s.go[1], "x", 1) == 1);
			for (int i = 0; i < 1000 && !*value; i++)
				usleep(10000);
			CHECK(*value == 4000);
			kill(pid, SIGKILL);
			CHECK(ends(pid));
			break;
		case 3:	/* The server dies: an error, as if the file were mapped. */
			kill(s.pid, SIGKILL);
			for (int i = 0; i < 1000 && !*value; i++)
				usleep(10000);
			CHECK(*value == BAD);
			kill(pid, SIGKILL);
			CHECK(ends(pid));
		}
		server_stop(&s);
		peer_kill(&o);
	}
}

/* The owner changes other memory all the time: a fault does not wait for it. */
#define OTHER (64L << 20)
static volatile int churning;
static void *churn(void *arg)
{
	char *m = arg;

	while (churning) {
		for (long i = 0; i < OTHER; i += PAGE)
			*(volatile char *)(m + i) = 1;
		madvise(m, OTHER, MADV_FREE);
		madvise(m, OTHER, MADV_DONTNEED);
	}
	return NULL;
}
static long r_churn(long on, long b, long c)
{
	static pthread_t t;

	if (on) {
		void *m = mmap(NULL, OTHER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		madvise(m, OTHER, MADV_NOHUGEPAGE);
		churning = 1;
		return pthread_create(&t, NULL, churn, m);
	}
	churning = 0;
	return pthread_join(t, NULL);
}

#define ROUNDS 400
static void unrelated_changes(void)
{
	long waited, again, changed;

	CALL(&owner, r_map, BASE, 16 * PAGE, 0);
	CALL(&owner, r_fill, BASE, 16, 1);
	CALL(&owner, r_churn, 1, 0, 0);
	usleep(100000);
	waited = stat_of("faults_waited");
	again = stat_of("faults_again");
	changed = stat_of("invalidations");
	for (int i = 0; i < ROUNDS || stat_of("invalidations") < changed + 4; i++) {
		char *p = (char *)x_attach(apid, BASE + (i % 16) * PAGE, PAGE);

		CHECK(val(p) == 1 + i % 16);
		x_detach(p);
		usleep(2000);
	}
	waited = stat_of("faults_waited") - waited;
	again = stat_of("faults_again") - again;
	changed = stat_of("invalidations") - changed;
	CALL(&owner, r_churn, 0, 0, 0);
	printf("  %d faults and more, %ld changes of other memory meanwhile: waited %ld times, looked again %ld times\n",
	       ROUNDS, changed, waited, again);
	/*
	 * Counted, not timed: a virtual processor may be away for long. Some come again
	 * because the owner's mmap_lock was taken at that moment.
	 */
	CHECK(changed > 3 && waited == 0 && again <= ROUNDS / 4);
	CALL(&owner, r_unmap, BASE, 16 * PAGE, 0);
}

/* Many threads at once, the memory itself among what is changed: never stale. */
static volatile int storming;
static void *storm(void *arg)
{
	long i = (long)arg;

	while (storming) {
		madvise((void *)(BASE + (i % 64) * PAGE), PAGE, MADV_DONTNEED);
		i = i * 5 + 1;
	}
	return NULL;
}
static pthread_t storm_threads[40];
static long r_storm(long on, long threads, long c)
{
	storming = on;
	for (long i = 0; i < threads; i++)
		if (on)
			pthread_create(&storm_threads[i], NULL, storm, (void *)i);
		else
			pthread_join(storm_threads[i], NULL);
	return 0;
}

/* More changes at a time than the module keeps apart, and then none: all in order. */
static void many_changes_at_once(void)
{
	char *p;

	CALL(&owner, r_map, BASE, 64 * PAGE, 0);
	p = (char *)x_attach(apid, BASE, 64 * PAGE);
	CALL(&owner, r_storm, 1, 40, 0);
	for (long k = 0; k < 2000; k++)
		CHECK(wr(p + k % 64 * PAGE, k) == 0);
	CALL(&owner, r_storm, 0, 40, 0);
	for (long k = 0; k < 64; k++) {
		CHECK(wr(p + k * PAGE, 900 + k) == 0);
		CHECK(CALL(&owner, r_val, BASE + k * PAGE, 0, 0) == 900 + k);
		CALL(&owner, r_put, BASE + k * PAGE, 700 + k, 0);
		CHECK(val(p + k * PAGE) == 700 + k);
	}
	CHECK(x_detach(p) == 0);
	CALL(&owner, r_unmap, BASE, 64 * PAGE, 0);
}

int main(void)
{
	t_catch();
	turns = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	value = turns + 1;
	dev_open();
	owner = peer_start();
	RUN(server_without_answer);
	segid = CALL(&owner, r_make, 0, MAXADDR, 0666);
	apid = x_get(segid, RW);
	RUN(unrelated_changes);
	RUN(many_changes_at_once);
	x_release(apid);
	peer_stop(&owner);
	return t_done();
}
