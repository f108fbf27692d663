/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What an owner notices of a peer that touches its memory: nothing. */
#include "harness.h"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <time.h>

/* Threads of the owner that wait for ever, each until its word is given. */
struct waiter {
	int fd, set, interrupted, answer;
};

static void *wait_for_event(void *argument)
{
	struct waiter *w = argument;
	struct epoll_event event = { .events = EPOLLIN };
	int epoll = epoll_create1(0);

	epoll_ctl(epoll, EPOLL_CTL_ADD, w->fd, &event);
	while ((w->answer = epoll_wait(epoll, &event, 1, -1)) == -1 && errno == EINTR)
		w->interrupted++;
	close(epoll);
	return NULL;
}

static void *wait_for_semaphore(void *argument)
{
	struct waiter *w = argument;
	struct sembuf down = { 0, -1, 0 };

	while ((w->answer = semop(w->set, &down, 1)) == -1 && errno == EINTR)
		w->interrupted++;
	return NULL;
}

static void *wait_for_signal(void *argument)
{
	struct waiter *w = argument;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	while ((w->answer = sigwaitinfo(&set, NULL)) == -1 && errno == EINTR)
		w->interrupted++;
	return NULL;
}

static void *poll_with_handler(void *argument)
{
	struct waiter *w = argument;
	struct epoll_event event = { .events = EPOLLIN };
	int epoll = epoll_create1(0);

	epoll_ctl(epoll, EPOLL_CTL_ADD, w->fd, &event);
	/* Ends by a signal with a handler: that must be told. */
	if (epoll_wait(epoll, &event, 1, -1) == -1 && errno == EINTR && alarms > 0)
		w->interrupted = 1;
	close(epoll);
	return NULL;
}

CASE(waits_are_not_interrupted, "an owner that waits is not told EINTR because a peer touches its memory")
{
	enum { CHUNKS = 50, CHUNK = 4 << 20 };
	void *(*const waits[])(void *) = { wait_for_event, wait_for_semaphore, wait_for_signal,
					   poll_with_handler };
	struct peer p = spawn();
	struct waiter w = { .fd = eventfd(0, 0), .set = semget(IPC_PRIVATE, 1, 0600) };
	struct waiter each[4] = { w, w, w, w };
	pthread_t threads[4];
	char *source = anonymous((size_t)CHUNKS * CHUNK);
	uint64_t one = 1;
	sigset_t set;
	long addr;

	EXPECT(w.set != -1);
	each[3].fd = eventfd(0, 0);
	count_alarms(0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < 4; i++)
		EXPECT_EQ(pthread_create(&threads[i], NULL, waits[i], &each[i]), 0);
	addr = share(&p, source, (size_t)CHUNKS * CHUNK);
	for (long i = 0; i < CHUNKS; i++) {
		source[i * CHUNK] = (char)i;
		EXPECT_EQ(r_peek(&p, addr + i * CHUNK), (unsigned char)i);
		usleep(1000);
	}
	for (int i = 0; i < 4; i++)
		EXPECT_EQ(each[i].interrupted, 0);
	EXPECT_EQ(write(w.fd, &one, sizeof one), (long)sizeof one);
	EXPECT_EQ(semctl(w.set, 0, SETVAL, 1), 0);
	EXPECT_EQ(pthread_kill(threads[2], SIGUSR1), 0);
	/* Once more if the first one came before it had begun to wait. */
	for (int i = 0; i < 1000 && !each[3].interrupted; i++) {
		pthread_kill(threads[3], SIGALRM);
		usleep(10000);
	}
	for (int i = 0; i < 4; i++)
		EXPECT_EQ(pthread_join(threads[i], NULL), 0);
	for (int i = 0; i < 3; i++)
		EXPECT_EQ(each[i].interrupted, 0);
	/* Each call that went on is still the one that was made. */
	EXPECT_EQ(each[0].answer, 1);
	EXPECT_EQ(each[1].answer, 0);
	EXPECT_EQ(each[2].answer, SIGUSR1);
	EXPECT_EQ(each[3].interrupted, 1);
	semctl(w.set, 0, IPC_RMID);
	quit(&p);
}

static int sleep_in_child(void *argument)
{
	struct timespec time = { 0, (long)argument * 1000000 };

	nanosleep(&time, NULL);
	_exit(0);
}

/* Exports, and then sleeps in vfork for ms milliseconds. */
static void *vfork_for(void *ms)
{
	static char stack[65536];
	int status;
	pid_t pid = clone(sleep_in_child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, ms);

	return (void *)(long)(pid < 0 || waitpid(pid, &status, 0) != pid || status);
}

static pthread_t vforker;

static long f_vfork(long ms, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return pthread_create(&vforker, NULL, vfork_for, (void *)ms);
}

static long f_vfork_end(long a, long b, long c, long d)
{
	void *bad;

	(void)a, (void)b, (void)c, (void)d;
	return pthread_join(vforker, &bad) || bad;
}

CASE(vfork_owner, "an owner whose thread sleeps in vfork goes on, and its memory is served afterwards")
{
	char path[] = "/tmp/xpmem-stats-XXXXXX", line[1024] = "", *stops;
	/* More than is shared at attach. */
	const size_t size = 1 << 20;
	char *source = anonymous(size);
	int fd = mkstemp(path);
	struct peer owner, p;
	long segid, addr;

	EXPECT(fd >= 0);
	setenv("XPMEM_DEBUG", "stats", 1);
	setenv("XPMEM_DEBUG_FILE", path, 1);
	owner = spawn();
	unsetenv("XPMEM_DEBUG");
	p = spawn();
	EXPECT_EQ(r_fill(&owner, (long)source, size, 1), 0);
	segid = call(&owner, f_make_all, 0, 0, 0);
	addr = r_attach(&p, r_get(&p, segid, XPMEM_RDWR), (long)source, size);
	EXPECT_EQ(call(&owner, f_vfork, 900, 0, 0), 0);
	usleep(50000);
	start(&p, f_fill, addr, size, 2, 0);
	EXPECT_EQ(call(&owner, f_vfork_end, 0, 0, 0), 0);
	EXPECT_EQ(finish(&p), 0);
	EXPECT_EQ(r_verify(&owner, (long)source, size, 2), 0);
	quit(&p);
	quit(&owner);
	EXPECT(read(fd, line, sizeof line - 1) > 0);
	unlink(path);
	/* Each try holds the owner's other threads: they are not to be many. */
	stops = strstr(line, " stops=");
	EXPECT(stops);
	EXPECT(atol(stops + 7) <= 25);
}

static long f_touch(long addr, long size, long stride, long d)
{
	(void)d;
	for (long at = 0; at < size; at += stride)
		if (peek(addr + at) < 0)
			return 1 + at;
	return 0;
}

CASE(holes_are_the_programs, "a hole that the owner fills with MAP_FIXED while its memory is shared is its own")
{
	const size_t size = 256ul << 20, hole = 4ul << 20;
	struct peer p = spawn();
	char *source = anonymous(size), *around, *at;
	long addr, rounds = 0;

	for (size_t i = 0; i < size; i += PAGE)
		source[i] = 1;
	/* Where the kernel looks first for room. */
	around = anonymous(hole + 2 * PAGE);
	at = around + PAGE;
	addr = share(&p, source, size);
	munmap(at, hole);
	start(&p, f_touch, addr, size, 64 << 10, 0);
	while (rounds < 300) {
		EXPECT(mmap(at, hole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
		for (size_t i = 0; i < hole; i += PAGE)
			*(long *)(at + i) = rounds;
		usleep(50);
		for (size_t i = 0; i < hole; i += PAGE)
			EXPECT_EQ(*(volatile long *)(at + i), rounds);
		munmap(at, hole);
		usleep(200);
		rounds++;
	}
	EXPECT_EQ(finish(&p), 0);
	EXPECT_EQ(mapped((long)at), 0);
	quit(&p);
}
