/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An honest program that does as it is told, line by line, for peers.py:
 *
 *   COMMAND [NUMBER...]   ->   = VALUE ERRNO
 *
 * A load or store that ends in a signal answers the negated signal.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../include/xpmem.h"

static __thread sigjmp_buf back;
static __thread volatile int armed;

static void on_fault(int sig)
{
	if (armed)
		siglongjmp(back, sig);
	signal(sig, SIG_DFL);
	raise(sig);
}

/* body, or the negated signal that it ended in. */
#define GUARDED(result, body)                                                             \
	do {                                                                              \
		int sig_ = sigsetjmp(back, 1);                                            \
		armed = 1;                                                                \
		if (sig_ == 0)                                                            \
			result = (body);                                                  \
		else                                                                      \
			result = -sig_;                                                   \
		armed = 0;                                                                \
	} while (0)

static long load(long addr)
{
	return *(volatile unsigned char *)addr;
}

static long store(long addr, long value)
{
	*(volatile unsigned char *)addr = value;
	return 0;
}

static long sum(long addr, long size)
{
	long total = 0;

	for (long i = 0; i < size; i += 8)
		total += *(volatile long *)(addr + i);
	return total;
}

static long map(int fd, long size, long byte)
{
	int kind = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, kind, fd, 0);

	if (p != MAP_FAILED && byte)
		memset(p, byte, size);
	return (long)p;
}

static long map_file(long size, long byte)
{
	int fd = memfd_create("host", MFD_CLOEXEC);
	long p = fd < 0 || ftruncate(fd, size) ? -1 : map(fd, size, byte);

	/* The descriptor stays: by it the file can be lent. */
	return p;
}

static long map_shared(long size, long byte)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p != MAP_FAILED)
		memset(p, byte, size);
	return (long)p;
}

/* Memory that comes from the program's own file. */
static char data[1 << 20] __attribute__((aligned(4096))) = { 1 };

static long own_data(long byte)
{
	memset(data, byte, sizeof(data));
	return (long)data;
}

/* Threads that each load one byte, far apart, and then end. */
struct toucher {
	long addr;
	volatile long got;
	volatile int done;
};
static struct toucher *touchers;
static long toucher_count;

static void *touch(void *arg)
{
	struct toucher *t = arg;
	long got;

	GUARDED(got, load(t->addr));
	t->got = got;
	t->done = 1;
	return NULL;
}

static long touch_all(long addr, long count, long stride)
{
	pthread_attr_t attr;

	free(touchers);
	touchers = calloc(count, sizeof(*touchers));
	toucher_count = 0;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	for (long i = 0; i < count; i++) {
		pthread_t thread;

		touchers[i].addr = addr + i * stride;
		if (pthread_create(&thread, &attr, touch, &touchers[i]))
			return -1;
		toucher_count++;
	}
	return toucher_count;
}

/* How many have got that byte; -1: one got something else. */
static long touched(long byte)
{
	long count = 0;

	for (long i = 0; i < toucher_count; i++) {
		if (!touchers[i].done)
			continue;
		if (touchers[i].got != byte)
			return -1;
		count++;
	}
	return count;
}

/* A thread that is in vfork() for a while: it cannot be stopped. */
static void *in_vfork(void *ms)
{
	pid_t child = vfork();

	if (child == 0) {
		usleep((long)ms * 1000);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	return NULL;
}

static long start_vfork(long ms)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, in_vfork, (void *)ms))
		return -1;
	pthread_detach(thread);
	usleep(50000);
	return 0;
}

/* How many segments can be had, up to count. */
static long make_many(long count)
{
	long made = 0;

	while (made < count && xpmem_make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE,
					  (void *)0600) > 0)
		made++;
	return made;
}

/* How many permits can be had, up to count. */
static long get_many(long segid, long count)
{
	long got = 0;

	while (got < count && xpmem_get(segid, XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL) > 0)
		got++;
	return got;
}

static pthread_barrier_t barrier;

/* Threads that each get a permit, at the same moment; how many have one. */
static atomic_long permits;

static void *get_one(void *segid)
{
	pthread_barrier_wait(&barrier);
	if (xpmem_get((long)segid, XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL) > 0)
		permits++;
	pthread_barrier_wait(&barrier);
	return NULL;
}

static long get_all(long segid, long count)
{
	pthread_attr_t attr;

	permits = 0;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_barrier_init(&barrier, NULL, count + 1);
	for (long i = 0; i < count; i++) {
		pthread_t thread;

		if (pthread_create(&thread, &attr, get_one, (void *)segid))
			return -1;
	}
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return permits;
}

/* Files of one page each, of that byte; the address of the first, and the others one
 * after the other, with a hole between. */
static long map_files(long count, long byte)
{
	char *base = mmap(NULL, count * 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (long i = 0; i < count; i++) {
		int fd = memfd_create("host", MFD_CLOEXEC);
		char *p = base + i * 8192;

		if (fd < 0 || ftruncate(fd, 4096) ||
		    mmap(p, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != p)
			return -1;
		*p = byte;
	}
	return (long)base;
}

/* Loads of every stride-th byte; how many are that byte before one is not. */
static long loads(long addr, long count, long stride, long byte)
{
	volatile long done = 0, got;

	for (; done < count; done++) {
		GUARDED(got, load(addr + done * stride));
		if (got != byte)
			break;
	}
	return done;
}

/* Attaches one page again and again; how often that went well. Every one is read. */
static long attach_many(long apid, long offset, long count)
{
	long done = 0;
	struct xpmem_addr from = { .apid = apid, .offset = offset };

	for (; done < count; done++) {
		char *p = xpmem_attach(from, 4096, NULL);

		if (p == (void *)-1 || *(volatile char *)p == 0)
			break;
	}
	return done;
}

/* Threads that each drop one page of [addr, addr + count pages) by madvise, raw or
 * libc's, and write it anew, at the same moment. Answers on how many something old was left. */
static atomic_long left_over;

static int by_libc;

static void *drop(void *page)
{
	long done;

	pthread_barrier_wait(&barrier);
	done = by_libc ? madvise(page, 4096, MADV_DONTNEED) :
			 syscall(SYS_madvise, page, 4096, MADV_DONTNEED);
	if (done || ((volatile char *)page)[1])
		left_over++;
	*(volatile char *)page = 77;
	pthread_barrier_wait(&barrier);
	return NULL;
}

static long drop_all(long addr, long count, long libc)
{
	pthread_attr_t attr;

	by_libc = libc;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	left_over = 0;
	pthread_barrier_init(&barrier, NULL, count + 1);
	for (long i = 0; i < count; i++) {
		pthread_t thread;

		if (pthread_create(&thread, &attr, drop, (char *)addr + i * 4096))
			return -1;
	}
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return left_over;
}

/* Threads that sleep until they are woken. */
static int alarm_clock[2];

static void *sleep_on(void *unused)
{
	char byte;

	return read(alarm_clock[0], &byte, 1) ? unused : NULL;
}

static long sleepers(long count)
{
	if (pipe2(alarm_clock, O_CLOEXEC))
		return -1;
	for (long i = 0; i < count; i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, sleep_on, NULL))
			return -1;
		pthread_detach(thread);
	}
	return count;
}

/* Unmaps every second page, count of them. */
static long cut(long addr, long count)
{
	for (long i = 0; i < count; i++)
		if (munmap((char *)addr + (2 * i + 1) * 4096, 4096))
			return -1;
	return 0;
}

/* Processes that each have one connection to a socket, which stays when they end: their
 * descriptors are this program's. */
static pid_t crowd[8192];
static long crowd_count;
static struct sockaddr_un meeting_place;
static atomic_long connected;

static int join(void *unused)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	(void)unused;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&meeting_place, sizeof(meeting_place)))
		connected++;
	for (;;)
		pause();
	return 0;
}

static long gather(long count, const char *path)
{
	const size_t size = 4096;
	char *stacks = mmap(NULL, count * size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	meeting_place.sun_family = AF_UNIX;
	strncpy(meeting_place.sun_path, path, sizeof(meeting_place.sun_path) - 1);
	for (long i = 0; i < count && stacks != MAP_FAILED; i++) {
		pid_t pid = clone(join, stacks + (i + 1) * size, CLONE_VM | CLONE_FILES | SIGCHLD, NULL);

		if (pid < 0)
			return -1;
		crowd[crowd_count++] = pid;
		while (connected < i + 1)
			sched_yield();
	}
	return crowd_count;
}

static long disperse(void)
{
	for (long i = 0; i < crowd_count; i++)
		kill(crowd[i], SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
	return crowd_count;
}

static long serve(const char *c, long a, long b, long d, long e)
{
	struct xpmem_addr from = { .apid = a, .offset = b };
	long result = -1;

	if (!strcmp(c, "map"))
		return map(-1, a, b);
	if (!strcmp(c, "map_file"))
		return map_file(a, b);
	if (!strcmp(c, "map_shared"))
		return map_shared(a, b);
	if (!strcmp(c, "own_data"))
		return own_data(a);
	if (!strcmp(c, "munmap"))
		return munmap((void *)a, b);
	if (!strcmp(c, "raw_munmap"))
		return syscall(SYS_munmap, a, b);
	if (!strcmp(c, "mprotect"))
		return mprotect((void *)a, b, d);
	if (!strcmp(c, "make"))
		return xpmem_make((void *)a, b, XPMEM_PERMIT_MODE, (void *)d);
	if (!strcmp(c, "make_many"))
		return make_many(a);
	if (!strcmp(c, "remove"))
		return xpmem_remove(a);
	if (!strcmp(c, "get"))
		return xpmem_get(a, b, XPMEM_PERMIT_MODE, NULL);
	if (!strcmp(c, "get_many"))
		return get_many(a, b);
	if (!strcmp(c, "release"))
		return xpmem_release(a);
	if (!strcmp(c, "attach"))
		return (long)xpmem_attach(from, d, (void *)e);
	if (!strcmp(c, "attach_many"))
		return attach_many(a, b, d);
	if (!strcmp(c, "detach"))
		return xpmem_detach((void *)a);
	if (!strcmp(c, "read"))
		GUARDED(result, load(a));
	if (!strcmp(c, "write"))
		GUARDED(result, store(a, b));
	if (!strcmp(c, "fill"))
		GUARDED(result, (memset((void *)a, d, b), 0));
	if (!strcmp(c, "sum"))
		GUARDED(result, sum(a, b));
	if (!strcmp(c, "touch_all"))
		return touch_all(a, b, d);
	if (!strcmp(c, "touched"))
		return touched(a);
	if (!strcmp(c, "vfork"))
		return start_vfork(a);
	if (!strcmp(c, "get_all"))
		return get_all(a, b);
	if (!strcmp(c, "map_files"))
		return map_files(a, b);
	if (!strcmp(c, "loads"))
		return loads(a, b, d, e);
	if (!strcmp(c, "sleepers"))
		return sleepers(a);
	if (!strcmp(c, "wake"))
		return close(alarm_clock[1]);
	if (!strcmp(c, "disperse"))
		return disperse();
	if (!strcmp(c, "cut"))
		return cut(a, b);
	if (!strcmp(c, "drop_all"))
		return drop_all(a, b, d);
	return result;
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };
	char line[256];

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		char command[32] = "", path[108];
		long a = 0, b = 0, c = 0, d = 0, result;

		sscanf(line, "%31s %li %li %li %li", command, &a, &b, &c, &d);
		errno = 0;
		if (!strcmp(command, "gather"))
			result = sscanf(line, "%*s %li %107s", &a, path) == 2 ? gather(a, path) : -1;
		else
			result = serve(command, a, b, c, d);
		printf("= %ld %d\n", result, errno);
	}
	return 0;
}
