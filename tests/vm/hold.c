/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An owner that takes memory away to put the same content in its place says so:
 * its peers wait meanwhile, and see nothing of it. Who cannot wait, a debugger,
 * is refused.
 */
#include "owner.h"
#include <poll.h>

static long r_hold(long on, long b, long c) { return x_hold(on); }
static int other_fd;
static long r_hold_by(long open_it, long b, long c)
{
	int64_t one = 1;

	if (!open_it)
		return close(other_fd);
	other_fd = open("/dev/xpmem", O_RDWR | O_CLOEXEC);
	return ioctl(other_fd, HOLD, &one) ? -errno : 0;
}
static volatile long seen;
static void *look(void *arg)
{
	seen = val(arg);
	return NULL;
}
static void held_once(char *p, long page, long value, int by_close)
{
	pthread_t t;

	seen = -1;
	CHECK((by_close ? CALL(&owner, r_hold_by, 1, 0, 0) : CALL(&owner, r_hold, 1, 0, 0)) == 0);
	CALL(&owner, r_unmap, BASE + page * PAGE, PAGE, 0);
	pthread_create(&t, NULL, look, p + page * PAGE);
	usleep(50000);
	CHECK(seen == -1);
	CALL(&owner, r_map, BASE + page * PAGE, PAGE, 0);
	CALL(&owner, r_put, BASE + page * PAGE, value, 0);
	usleep(50000);
	CHECK(seen == -1);
	CHECK((by_close ? CALL(&owner, r_hold_by, 0, 0, 0) : CALL(&owner, r_hold, 0, 0, 0)) == 0);
	pthread_join(t, NULL);
	CHECK(seen == value);
}

/* A touch of what is not there is a wait; what has been mapped goes on. */
static void waits(void)
{
	char *p, *q;
	pid_t pid;

	CHECK(x_hold(2) == -EINVAL && x_hold(-1) == -EINVAL && x_hold(0) == 0);
	CHECK(ioctl(dev, HOLD, (void *)8) == -1 && errno == EFAULT);
	CALL(&owner, r_map, BASE, 16 * PAGE, 0);
	CALL(&owner, r_fill, BASE, 16, 100);
	p = (char *)x_attach(apid, BASE, 16 * PAGE);
	q = (char *)x_attach(apid, BASE, 16 * PAGE);
	CHECK(val(q) == 100);
	for (int i = 0; i < 8; i++)
		held_once(p, i, 1000 + i, i & 1);
	/* Twice is once; what is mapped already goes on, and so do those who are killed. */
	CHECK(CALL(&owner, r_hold, 1, 0, 0) == 0 && CALL(&owner, r_hold, 1, 0, 0) == 0);
	CHECK(val(q + 9 * PAGE) == 109);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		dev_open();
		char *mine = (char *)x_attach(x_get(segid, RW), BASE, 16 * PAGE);

		rd(mine, NULL);
		_exit(1);
	}
	usleep(100000);
	kill(pid, SIGKILL);
	CHECK(waitpid(pid, NULL, 0) == pid);
	CHECK(CALL(&owner, r_hold, 0, 0, 0) == 0);
	CHECK(val(p + 15 * PAGE) == 115);
	/* What is gone after it is gone. */
	CHECK(CALL(&owner, r_hold, 1, 0, 0) == 0);
	CALL(&owner, r_unmap, BASE, 16 * PAGE, 0);
	CHECK(CALL(&owner, r_hold, 0, 0, 0) == 0);
	CHECK(rd(p, NULL) == SIGBUS);
	CHECK(x_detach(p) == 0 && x_detach(q) == 0);
}

static int memory = -1;
static long peek(void *p)
{
	long v;

	return pread(memory, &v, 8, (long)p) == 8 ? v : BAD;
}
static int poke(void *p, long v) { return pwrite(memory, &v, 8, (long)p) == 8; }

static void debugger_is_refused(void)
{
	char *p;

	CALL(&owner, r_map, BASE, 16 * PAGE, 0);
	CALL(&owner, r_fill, BASE, 16, 100);
	p = (char *)x_attach(apid, BASE, 16 * PAGE);
	CHECK(val(p) == 100 && peek(p) == 100 && poke(p, 101) && peek(p) == 101);
	CHECK(CALL(&owner, r_hold, 1, 0, 0) == 0);
	CALL(&owner, r_map, BASE, PAGE, 0);
	/* Zeros are there now. They are not what counts. */
	CHECK(peek(p) == BAD && errno == EIO && !poke(p, 5) && errno == EIO);
	CALL(&owner, r_put, BASE, 101, 0);
	CHECK(CALL(&owner, r_hold, 0, 0, 0) == 0);
	CHECK(peek(p) == 101 && poke(p, 102) && CALL(&owner, r_val, BASE, 0, 0) == 102 && val(p) == 102);
	CHECK(x_detach(p) == 0);
	CALL(&owner, r_unmap, BASE, 16 * PAGE, 0);
}

/* Puts a page with the same content in place of the one that is there, again and again. */
static long r_replace(long times, long b, long c)
{
	for (long i = 0; i < times; i++) {
		long v;

		x_hold(1);
		v = *(volatile long *)BASE;
		sched_yield();
		r_map(BASE, PAGE, 0);
		sched_yield();
		*(volatile long *)BASE = v;
		x_hold(0);
		usleep(100);
	}
	return 0;
}

static void debugger_loses_nothing(void)
{
	long mine = 1, wrote = 0, refused = 0, wrong = 0;
	char *p;

	CALL(&owner, r_map, BASE, PAGE, 0);
	CALL(&owner, r_put, BASE, mine, 0);
	p = (char *)x_attach(apid, BASE, PAGE);
	for (int round = 0; round < 20; round++) {
		struct pollfd done = { owner.from, POLLIN };

		peer_send(&owner, r_replace, 50, 0, 0);
		while (!poll(&done, 1, 0)) {
			long v = peek(p);

			wrong += v != mine && v != BAD;
			if (poke(p, mine + 1)) {
				mine++;
				wrote++;
			} else {
				refused++;
			}
		}
		peer_wait(&owner);
		wrong += peek(p) != mine;
	}
	printf("  %ld words written by a debugger, %ld refused, %ld times another was there\n", wrote, refused, wrong);
	CHECK(wrong == 0 && wrote > 100 && refused > 0);
	CHECK(x_detach(p) == 0);
	CALL(&owner, r_unmap, BASE, PAGE, 0);
}

int main(void)
{
	if (owner_begin())
		return 1;
	memory = open("/proc/self/mem", O_RDWR);
	RUN(waits);
	RUN(debugger_is_refused);
	RUN(debugger_loses_nothing);
	return owner_end();
}
