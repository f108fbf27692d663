/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the tests here share: the ABI of /dev/xpmem written down again from its
 * document (not from the module's header), a peer process that runs functions
 * for us, touching memory that may fault, and counting.
 */
#ifndef T_H
#define T_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define HUGE (2UL << 20)
#define MAXADDR ((size_t)-1)

struct make { uint64_t vaddr; size_t size; int type; uint64_t value; int64_t segid; };
struct get { int64_t segid; int flags; int type; uint64_t value; int64_t apid; };
struct attach { int64_t apid; int64_t offset; size_t size; uint64_t vaddr; int fd; int flags; };
enum { VERSION = 0x7800, MAKE, REMOVE, GET, RELEASE, ATTACH, DETACH, FORK_BEGIN, FORK_END, HOLD = 0x7810 };
enum { RD = 1, RW = 2, NOPROC = 2004 };

static int dev = -1;
static int t_passed, t_failed, t_skipped;
static const char *t_case;

#define CHECK(c) do { if (!(c)) { t_failed++; \
	printf("FAIL %s: %s:%d: %s (errno %d)\n", t_case, __FILE__, __LINE__, #c, errno); \
	fflush(stdout); } } while (0)
#define NEED(c) do { if (!(c)) { printf("FAIL %s: %s:%d: %s (errno %d)\n", t_case, \
	__FILE__, __LINE__, #c, errno); fflush(stdout); t_failed++; return; } } while (0)
#define SKIP(why) do { printf("skip %s: %s\n", t_case, why); t_skipped++; return; } while (0)

#define RUN(fn) t_run(#fn, fn)
static inline void t_run(const char *name, void (*fn)(void))
{
	int failed = t_failed, skipped = t_skipped;

	t_case = name;
	alarm(getenv("T_SECONDS") ? atoi(getenv("T_SECONDS")) : 800);
	fn();
	alarm(0);
	if (failed == t_failed && skipped == t_skipped)
		t_passed++;
	if (failed != t_failed)
		printf("not ok %s\n", name);
	else if (skipped == t_skipped)
		printf("ok %s\n", name);
	fflush(stdout);
}

static inline int t_done(void)
{
	printf("%d passed, %d failed, %d skipped\n", t_passed, t_failed, t_skipped);
	return t_failed != 0;
}

static inline void dev_open(void)
{
	if (dev >= 0)
		close(dev);
	dev = open("/dev/xpmem", O_RDWR | O_CLOEXEC);
	if (dev < 0) {
		perror("/dev/xpmem");
		exit(1);
	}
}

/* Each answers what the ioctl did, or -errno. */
static inline long x_make(void *p, size_t size, int mode)
{
	struct make m = { (uint64_t)p, size, 1, mode, 0 };

	return ioctl(dev, MAKE, &m) ? -errno : m.segid;
}

static inline long x_get(long segid, int flags)
{
	struct get g = { segid, flags, 1, 0, 0 };

	return ioctl(dev, GET, &g) ? -errno : g.apid;
}

static inline long x_attach_at(long apid, long offset, size_t size, void *at)
{
	struct attach a = { apid, offset, size, (uint64_t)at, -1, 0 };

	return ioctl(dev, ATTACH, &a) ? -errno : (long)a.vaddr;
}

static inline long x_attach(long apid, long offset, size_t size)
{
	return x_attach_at(apid, offset, size, NULL);
}

static inline long x_one(int cmd, long id)
{
	int64_t v = id;

	return ioctl(dev, cmd, &v) ? -errno : 0;
}
#define x_remove(id) x_one(REMOVE, id)
#define x_release(id) x_one(RELEASE, id)
#define x_detach(p) x_one(DETACH, (long)(p))
#define x_hold(on) x_one(HOLD, on)

/* A line of /proc/xpmem/stats. */
static inline long stat_of(const char *name)
{
	FILE *f = fopen("/proc/xpmem/stats", "r");
	char key[64];
	long v, found = -1;

	while (f && fscanf(f, "%63s %ld", key, &v) == 2)
		if (!strcmp(key, name))
			found = v;
	if (f)
		fclose(f);
	return found;
}

/* The last reference of a file may be dropped a little after its close. */
static inline int stat_settles(const char *name, long want)
{
	for (int i = 0; i < 500; i++) {
		if (stat_of(name) == want)
			return 1;
		usleep(10000);
	}
	printf("  %s is %ld, not %ld\n", name, stat_of(name), want);
	return 0;
}

/* A peer: a forked process that calls functions of this program for us. */
struct peer { pid_t pid; int to, from; };
typedef long (*peer_fn)(long, long, long);
struct peer_msg { peer_fn fn; long a, b, c; };

static inline struct peer peer_start(void)
{
	int to[2], from[2];
	struct peer p;

	if (pipe(to) || pipe(from))
		abort();
	fflush(stdout);
	p.pid = fork();
	if (!p.pid) {
		struct peer_msg m;
		long ret;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(to[1]);
		close(from[0]);
		dev_open();
		while (read(to[0], &m, sizeof(m)) == sizeof(m) && m.fn) {
			ret = m.fn(m.a, m.b, m.c);
			if (write(from[1], &ret, sizeof(ret)) != sizeof(ret))
				break;
		}
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	p.to = to[1];
	p.from = from[0];
	return p;
}

static inline void peer_send(struct peer *p, peer_fn fn, long a, long b, long c)
{
	struct peer_msg m = { fn, a, b, c };

	if (write(p->to, &m, sizeof(m)) != sizeof(m))
		abort();
}

static inline long peer_wait(struct peer *p)
{
	long ret = -EPIPE;

	if (read(p->from, &ret, sizeof(ret)) != sizeof(ret))
		return -EPIPE;
	return ret;
}

static inline long peer_call(struct peer *p, peer_fn fn, long a, long b, long c)
{
	peer_send(p, fn, a, b, c);
	return peer_wait(p);
}
#define CALL(p, fn, a, b, c) peer_call(p, (peer_fn)(fn), (long)(a), (long)(b), (long)(c))

static inline void peer_stop(struct peer *p)
{
	struct peer_msg m = { 0 };

	/* Said, not left to end of file: later peers inherited the pipe. */
	if (write(p->to, &m, sizeof(m))) {}
	close(p->to);
	close(p->from);
	waitpid(p->pid, NULL, 0);
}

static inline void peer_kill(struct peer *p)
{
	kill(p->pid, SIGKILL);
	peer_stop(p);
}

/* Touching: 0, or the signal it raised. */
static __thread sigjmp_buf t_jmp;
static __thread volatile int t_armed;

static inline void t_on_signal(int sig)
{
	if (!t_armed) {
		static const char text[] = "unexpected fault\n";

		if (write(1, text, sizeof(text) - 1)) {}
		_exit(99);
	}
	t_armed = 0;
	siglongjmp(t_jmp, sig);
}

static inline void t_catch(void)
{
	struct sigaction sa = { .sa_handler = t_on_signal, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGSEGV, &sa, NULL);
	sa.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &sa, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
}

static inline int rd(const volatile void *p, long *out)
{
	int sig = sigsetjmp(t_jmp, 0);

	if (sig)
		return sig;
	t_armed = 1;
	long v = *(const volatile long *)p;
	t_armed = 0;
	if (out)
		*out = v;
	return 0;
}

static inline int wr(volatile void *p, long v)
{
	int sig = sigsetjmp(t_jmp, 0);

	if (sig)
		return sig;
	t_armed = 1;
	*(volatile long *)p = v;
	t_armed = 0;
	return 0;
}

/* The value there, or a marker that no test writes. */
#define BAD 0x7bad7bad7badL
static inline long val(const volatile void *p)
{
	long v;

	return rd(p, &v) ? BAD : v;
}

/* For peers. */
static inline long r_map(long addr, long size, long flags)
{
	return (long)mmap((void *)addr, size, PROT_READ | PROT_WRITE,
			  MAP_ANONYMOUS | (addr ? MAP_FIXED : 0) |
			  (flags ? (int)flags : MAP_PRIVATE), -1, 0);
}
static inline long r_unmap(long addr, long size, long c) { return munmap((void *)addr, size); }
static inline long r_madvise(long addr, long size, long advice)
{
	return madvise((void *)addr, size, advice) ? -errno : 0;
}
static inline long r_protect(long addr, long size, long prot)
{
	return mprotect((void *)addr, size, prot) ? -errno : 0;
}
static inline long r_put(long addr, long v, long c) { return wr((void *)addr, v); }
static inline long r_val(long addr, long b, long c) { return val((void *)addr); }
/* v, v + 1, ... at the start of each page. */
static inline long r_fill(long addr, long pages, long v)
{
	for (long i = 0; i < pages; i++)
		*(volatile long *)(addr + i * PAGE) = v + i;
	return 0;
}
static inline long r_make(long addr, long size, long mode) { return x_make((void *)addr, size, mode); }
static inline long r_remove(long segid, long b, long c) { return x_remove(segid); }

/* A thing that would hang is left to a child. */
static inline int readable(pid_t pid, const char *what)
{
	int status = -1, i;
	pid_t child = fork();

	if (!child) {
		char path[64], buf[4096];
		int fd;

		snprintf(path, sizeof(path), "/proc/%d/%s", pid, what);
		fd = open(path, O_RDONLY);
		_exit(fd < 0 || read(fd, buf, sizeof(buf)) < 0);
	}
	for (i = 0; i < 1000 && waitpid(child, &status, WNOHANG) != child; i++)
		usleep(10000);
	if (i == 1000)
		kill(child, SIGKILL);
	return i < 1000 && status == 0;
}

static inline int ends(pid_t pid)
{
	for (int i = 0; i < 1000; i++) {
		if (waitpid(pid, NULL, WNOHANG) == pid)
			return 1;
		usleep(10000);
	}
	return 0;
}

static inline int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY), ok;

	if (fd < 0)
		return -1;
	ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return ok ? 0 : -1;
}

#endif
