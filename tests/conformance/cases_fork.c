/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Forks of an owner and of an attacher. */
#include "harness.h"

#include <pthread.h>
#include <sys/prctl.h>

static long child_of_attacher(long addr, long apid, long segid, long d)
{
	long mine, there;

	(void)d;
	if (peek(addr) != -SIGSEGV)
		return 1;
	errno = 0;
	if (attach(apid, 0, PAGE, 0) != -1 || errno != EACCES)
		return 2;
	errno = 0;
	if (api->release(apid) != -1 || errno != EACCES)
		return 3;
	/* Its own work at once. */
	mine = api->get(segid, XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL);
	if (mine <= 0)
		return 4;
	there = attach(mine, 0, PAGE, 0);
	if (there == -1)
		return 5;
	if (peek(there) != 0x3c)
		return 6;
	if (f_make_all(0, 0, 0, 0) <= 0)
		return 7;
	return api->release(mine) ? 8 : 0;
}

static long f_fork_attacher(long addr, long apid, long segid, long d)
{
	return run_in_child(child_of_attacher, addr, apid, segid, d);
}

CASE(attacher_forks, "a child has none of the attachments, may not use the ids, and can get its own")
{
	struct peer p = spawn();
	char *source = anonymous(PAGE);
	long segid = make_range(source, PAGE), apid, addr;

	memset(source, 0x3c, PAGE);
	apid = r_get(&p, segid, XPMEM_RDWR);
	addr = r_attach(&p, apid, 0, PAGE);
	EXPECT_EQ(r_peek(&p, addr), 0x3c);
	EXPECT_EQ(call(&p, f_fork_attacher, addr, apid, segid), 0);
	/* The parent's are as they were. */
	EXPECT_EQ(r_peek(&p, addr), 0x3c);
	source[0] = 0x3d;
	EXPECT_EQ(r_peek(&p, addr), 0x3d);
	EXPECT_EQ(r_release(&p, apid), 0);
	quit(&p);
}

static long child_of_owner(long segid, long own, long c, long d)
{
	long mine;

	(void)c, (void)d;
	errno = 0;
	if (api->remove(segid) != -1 || errno != EACCES)
		return 1;
	mine = f_make_all(0, 0, 0, 0);
	if (mine <= 0)
		return 2;
	if (mine == own)
		return 3;
	return api->remove(mine) ? 4 : 0;
}

CASE(owner_child_ids, "a child of the owner may not remove its parent's segment, but makes its own")
{
	struct peer p = spawn();
	long segid = make_all();

	EXPECT_EQ(run_in_child(child_of_owner, segid, segid, 0, 0), 0);
	EXPECT(r_get(&p, segid, XPMEM_RDWR) > 0);
	EXPECT_EQ(api->remove(segid), 0);
	quit(&p);
}

CASE(child_exports, "a fork child of an owner exports its own memory, and not its parent's")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long segid, mine, addr;
	int up[2], down[2];
	pid_t pid;
	char byte;

	fill(source, 8 * PAGE, 1);
	addr = share(&p, source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT(pipe(up) == 0 && pipe(down) == 0);
	pid = fork();
	EXPECT(pid >= 0);
	if (pid == 0) {
		close(down[1]);
		fill(source, 8 * PAGE, 2);
		segid = f_make_all(0, 0, 0, 0);
		if (write(up[1], &segid, sizeof segid) != sizeof segid)
			_exit(1);
		if (read(down[0], &byte, 1) != 0)
			_exit(2);
		_exit(verify((long)source, 8 * PAGE, 3) ? 3 : 0);
	}
	EXPECT_EQ(read(up[0], &mine, sizeof mine), sizeof mine);
	EXPECT(mine > 0);
	{
		long apid = r_get(&p, mine, XPMEM_RDWR), there;
		int status;

		EXPECT(apid > 0);
		there = r_attach(&p, apid, (long)source, 8 * PAGE);
		EXPECT_EQ(r_verify(&p, there, 8 * PAGE, 2), 0);
		EXPECT_EQ(r_fill(&p, there, 8 * PAGE, 3), 0);
		EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
		EXPECT_EQ(verify((long)source, 8 * PAGE, 1), 0);
		close(down[1]);
		EXPECT(waitpid(pid, &status, 0) == pid);
		EXPECT_EQ(status, 0);
		expect_gone(&p, there, r_peek(&p, there));
	}
	quit(&p);
}

struct fork_race {
	char *source;
	pthread_barrier_t *together;
	int bad;
};

static void *fork_together(void *argument)
{
	struct fork_race *race = argument;

	for (int i = 0; i < 40; i++) {
		int status;
		pid_t pid;

		pthread_barrier_wait(race->together);
		pid = fork();
		if (pid == 0)
			_exit(verify((long)race->source, 16 * PAGE, 1) ? 1 : 0);
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			race->bad = 1;
		else if (status)
			race->bad = status;
	}
	return NULL;
}

CASE(forks_at_once, "threads that fork at the same time: each child has its copy of shared memory")
{
	enum { THREADS = 4 };
	struct peer p = spawn();
	char *source = anonymous(16 * PAGE);
	pthread_barrier_t together;
	struct fork_race race[THREADS];
	pthread_t threads[THREADS];
	long addr;

	fill(source, 16 * PAGE, 1);
	addr = share(&p, source, 16 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 1), 0);
	EXPECT_EQ(pthread_barrier_init(&together, NULL, THREADS), 0);
	for (int i = 0; i < THREADS; i++) {
		race[i] = (struct fork_race){ source, &together, 0 };
		EXPECT_EQ(pthread_create(&threads[i], NULL, fork_together, &race[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		EXPECT_EQ(pthread_join(threads[i], NULL), 0);
	for (int i = 0; i < THREADS; i++)
		EXPECT_EQ(race[i].bad, 0);
	quit(&p);
}

/* Microseconds that a fork takes where nothing delays it; -1 if it cannot be made. */
static long fork_time(void)
{
	long least = -1;

	for (int i = 0; i < 3; i++) {
		struct timespec begin, end;
		int status;
		pid_t pid;
		long us;

		clock_gettime(CLOCK_MONOTONIC, &begin);
		pid = fork();
		if (pid == 0)
			_exit(0);
		clock_gettime(CLOCK_MONOTONIC, &end);
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			return -1;
		us = (end.tv_sec - begin.tv_sec) * 1000000 + (end.tv_nsec - begin.tv_nsec) / 1000;
		if (least < 0 || us < least)
			least = us;
	}
	return least;
}

CASE(fork_under_signals, "a fork that signals delay: its child has its copy of shared memory")
{
	struct peer p = spawn();
	char *source = anonymous(16 * PAGE);
	long addr, us;

	fill(source, 16 * PAGE, 1);
	addr = share(&p, source, 16 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 1), 0);
	us = fork_time();
	EXPECT(us >= 0);
	/* The kernel forks nobody for whom a signal waits: on an emulated machine
	 * there always would be one. */
	us = us / 4 > 400 ? us / 4 : 400;
	if (us > 100000)
		us = 100000;
	count_alarms(SA_RESTART);
	ualarm(us, us);
	for (int i = 0; i < 60; i++) {
		int status = 0;
		pid_t pid = fork();

		if (pid == 0)
			_exit(verify((long)source, 16 * PAGE, 1) ? 1 : 0);
		EXPECT(pid > 0);
		EXPECT_EQ(waitpid(pid, &status, 0), pid);
		EXPECT_EQ(status, 0);
	}
	ualarm(0, 0);
	EXPECT(alarms > 0);
	quit(&p);
}
