/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An owner's waits with a limit of time, while a peer touches its memory: they
 * end when their time is over or when what they wait for comes, and are told
 * EINTR by a handler alone.
 */
#include "harness.h"

#include <linux/aio_abi.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

/* A wait of `limit` seconds for what never comes; -1 and errno, or 0. */
struct wait {
	const char *name;
	int (*run)(int limit);
	/* What it answers at the end of its time: an errno, or 0. */
	int at_end;
	int answer;
	double took;
};

static int limit_socket(int domain, int type, int limit)
{
	struct timeval time = { limit, 0 };
	struct sockaddr_in address = { .sin_family = AF_INET };
	int pair[2];

	if (domain == AF_UNIX) {
		EXPECT_EQ(socketpair(domain, type, 0, pair), 0);
	} else {
		pair[0] = socket(domain, type, 0);
		EXPECT_EQ(bind(pair[0], (struct sockaddr *)&address, sizeof address), 0);
	}
	EXPECT_EQ(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time), 0);
	EXPECT_EQ(setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time), 0);
	return pair[0];
}

static int wait_epoll(int limit)
{
	struct epoll_event event;

	return epoll_wait(epoll_create1(0), &event, 1, limit * 1000);
}

static int wait_epoll2(int limit)
{
	struct epoll_event event;
	struct timespec time = { limit, 0 };

	return syscall(441 /* epoll_pwait2 */, epoll_create1(0), &event, 1, &time, NULL, 0);
}

static int wait_semaphore(int limit)
{
	struct timespec time = { limit, 0 };
	struct sembuf down = { 0, -1, 0 };
	int set = semget(IPC_PRIVATE, 1, 0600), answer, error;

	answer = semtimedop(set, &down, 1, &time);
	error = errno;
	semctl(set, 0, IPC_RMID);
	errno = error;
	return answer;
}

static int wait_signal(int limit)
{
	struct timespec time = { limit, 0 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return sigtimedwait(&set, NULL, &time);
}

static int wait_aio(int limit)
{
	struct timespec time = { limit, 0 };
	struct io_event event;
	aio_context_t context = 0;

	if (syscall(SYS_io_setup, 4, &context))
		return 0;
	return syscall(SYS_io_getevents, context, 1, 1, &event, &time);
}

static int wait_recv(int limit)
{
	char byte;

	return recv(limit_socket(AF_UNIX, SOCK_STREAM, limit), &byte, 1, 0);
}

static int wait_read(int limit)
{
	char byte;

	return read(limit_socket(AF_INET, SOCK_DGRAM, limit), &byte, 1);
}

static int wait_recvmmsg(int limit)
{
	char byte;
	struct iovec part = { &byte, 1 };
	struct mmsghdr message = { .msg_hdr = { .msg_iov = &part, .msg_iovlen = 1 } };

	return recvmmsg(limit_socket(AF_INET, SOCK_DGRAM, limit), &message, 1, 0, NULL);
}

static int wait_accept(int limit)
{
	int fd = limit_socket(AF_INET, SOCK_STREAM, limit);

	EXPECT_EQ(listen(fd, 1), 0);
	return accept(fd, NULL, NULL);
}

static int wait_send(int limit)
{
	static char many[1 << 16];
	int fd = limit_socket(AF_UNIX, SOCK_STREAM, limit);

	while (send(fd, many, sizeof many, MSG_DONTWAIT) > 0)
		;
	return send(fd, many, 1, 0);
}

static double seconds(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

enum { LIMIT = 2 };

static void *run_wait(void *argument)
{
	struct wait *w = argument;
	double begin = seconds();

	w->answer = w->run(LIMIT) == -1 ? errno : 0;
	w->took = seconds() - begin;
	return NULL;
}

/* Peers touch new memory until `until`. */
static void touch(struct peer *p, char *source, long addr, double until)
{
	for (long i = 0; seconds() < until; i++) {
		long at = i % 512 * 65536;

		if (i && i % 512 == 0) {
			/* Private again, to be promoted anew. */
			munmap(source, 512 * 65536);
			EXPECT(mmap(source, 512 * 65536, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == source);
		}
		source[at] = (char)i;
		EXPECT_EQ(r_peek(p, addr + at), (unsigned char)i);
		usleep(3000);
	}
}

CASE(waits_with_limits, "waits of an owner last as long as they should, and no peer's touch ends them")
{
	struct wait all[] = {
		{ "epoll_wait", wait_epoll, 0, 0, 0 },
		{ "epoll_pwait2", wait_epoll2, 0, 0, 0 },
		{ "semtimedop", wait_semaphore, EAGAIN, 0, 0 },
		{ "sigtimedwait", wait_signal, EAGAIN, 0, 0 },
		{ "io_getevents", wait_aio, 0, 0, 0 },
		{ "recv", wait_recv, EAGAIN, 0, 0 },
		{ "read", wait_read, EAGAIN, 0, 0 },
		{ "recvmmsg", wait_recvmmsg, EAGAIN, 0, 0 },
		{ "accept", wait_accept, EAGAIN, 0, 0 },
		{ "send", wait_send, EAGAIN, 0, 0 },
	};
	enum { COUNT = sizeof all / sizeof *all };
	struct peer p = spawn();
	char *source = anonymous(512 * 65536);
	pthread_t threads[COUNT];
	double begin;
	long addr;

	addr = share(&p, source, 512 * 65536);
	begin = seconds();
	for (int i = 0; i < COUNT; i++)
		EXPECT_EQ(pthread_create(&threads[i], NULL, run_wait, &all[i]), 0);
	touch(&p, source, addr, begin + 1.5 * LIMIT);
	for (int i = 0; i < COUNT; i++)
		EXPECT_EQ(pthread_join(threads[i], NULL), 0);
	for (int i = 0; i < COUNT; i++) {
		if (all[i].answer != all[i].at_end && all[i].answer != ENOSYS)
			fail(__FILE__, __LINE__, "%s: errno %d after %.2f s", all[i].name,
			     all[i].answer, all[i].took);
		/* Not before its time, and not for as long as there are touches. */
		if (all[i].answer != ENOSYS && all[i].run != wait_aio &&
		    (all[i].took < 0.99 * LIMIT || all[i].took > 10 * LIMIT))
			fail(__FILE__, __LINE__, "%s: %.2f s", all[i].name, all[i].took);
	}
	quit(&p);
}

static int pipes[2];

static void *wait_then_byte(void *argument)
{
	struct epoll_event event = { .events = EPOLLIN };
	int epoll = epoll_create1(0);

	(void)argument;
	epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event);
	return (void *)(long)epoll_wait(epoll, &event, 1, 100000);
}

static int sockets[2];

static void *receive_then_byte(void *argument)
{
	struct timeval time = { 100, 0 };
	char byte = 0;

	(void)argument;
	setsockopt(sockets[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
	return (void *)(long)(recv(sockets[0], &byte, 1, 0) == 1 ? byte : -errno);
}

/* A loop that counts on its registers: the same limit each time. */
static void *short_waits(void *argument)
{
	struct epoll_event event;
	int epoll = epoll_create1(0);
	double begin = seconds();

	(void)argument;
	for (int i = 0; i < 200; i++)
		if (epoll_wait(epoll, &event, 1, 10))
			return (void *)1;
	return (void *)(long)(seconds() - begin < 1.9);
}

static void *wait_for_handler(void *argument)
{
	struct epoll_event event;

	(void)argument;
	return (void *)(long)(epoll_wait(epoll_create1(0), &event, 1, 100000) == -1 ? errno : 0);
}

CASE(waits_with_limits_end, "what is waited for ends a wait that was begun again, and so does a handler")
{
	void *(*const run[])(void *) = { wait_then_byte, receive_then_byte, short_waits, wait_for_handler };
	const long wanted[] = { 1, 'b', 0, EINTR };
	struct peer p = spawn();
	char *source = anonymous(512 * 65536);
	pthread_t threads[4];
	long addr;

	count_alarms(SA_RESTART);
	EXPECT_EQ(pipe(pipes), 0);
	EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	addr = share(&p, source, 512 * 65536);
	for (int i = 0; i < 4; i++)
		EXPECT_EQ(pthread_create(&threads[i], NULL, run[i], NULL), 0);
	touch(&p, source, addr, seconds() + 0.5);
	EXPECT_EQ(write(pipes[1], "a", 1), 1);
	EXPECT_EQ(write(sockets[1], "b", 1), 1);
	touch(&p, source, addr, seconds() + 0.2);
	pthread_kill(threads[3], SIGALRM);
	touch(&p, source, addr, seconds() + 0.2);
	for (int i = 0; i < 4; i++) {
		void *answer;

		EXPECT_EQ(pthread_join(threads[i], &answer), 0);
		EXPECT_EQ(answer, wanted[i]);
	}
	EXPECT_EQ(alarms, 1);
	quit(&p);
}
