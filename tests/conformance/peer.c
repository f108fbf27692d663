/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Peers: processes that run the functions they are sent. */
#include "harness.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>

struct request {
	function f;
	long args[4];
};
struct reply {
	long value;
	int error;
};

static void __attribute__((noreturn)) serve(int in, int out)
{
	struct request q;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(in, &q, sizeof q) == sizeof q) {
		struct reply a;

		errno = 0;
		a.value = q.f(q.args[0], q.args[1], q.args[2], q.args[3]);
		a.error = errno;
		if (write(out, &a, sizeof a) != sizeof a)
			_exit(1);
	}
	exit(0);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd >= 0) {
		if (write(fd, text, strlen(text)) < 0)
			perror(path);
		close(fd);
	}
}

/* Enters namespaces that take a privilege; with a user namespace of our own,
 * where we keep our uid, when we have none. */
static int enter(int namespaces)
{
	char map[64];
	int uid = geteuid(), gid = getegid();

	/* A container has a /proc of its own. */
	if (namespaces & CLONE_NEWPID)
		namespaces |= CLONE_NEWNS;
	if (unshare(namespaces) == 0)
		return 0;
	if (unshare(namespaces | CLONE_NEWUSER))
		return -1;
	write_file("/proc/self/setgroups", "deny");
	snprintf(map, sizeof map, "%d %d 1", uid, uid);
	write_file("/proc/self/uid_map", map);
	snprintf(map, sizeof map, "%d %d 1", gid, gid);
	write_file("/proc/self/gid_map", map);
	return 0;
}

/* Ends of pipes to earlier peers, which a later peer must not hold open. */
static int ends[64];
static int n_ends;

struct peer spawn_in(int namespaces)
{
	int to[2], from[2];
	struct peer p;

	EXPECT(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
	fflush(stdout);
	p.pid = fork();
	EXPECT(p.pid >= 0);
	if (p.pid == 0) {
		close(to[1]);
		close(from[0]);
		while (n_ends > 0)
			close(ends[--n_ends]);
		if (namespaces) {
			pid_t inner;
			int status;

			if (enter(namespaces))
				_exit(77);
			/* A PID namespace begins with the next child. */
			inner = fork();
			if (inner == 0) {
				if (namespaces & CLONE_NEWPID &&
				    (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
				     mount("proc", "/proc", "proc", 0, NULL)))
					_exit(77);
				serve(to[0], from[1]);
			}
			close(to[0]);
			close(from[1]);
			if (inner < 0 || waitpid(inner, &status, 0) != inner)
				_exit(1);
			_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
		}
		serve(to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	p.request = to[1];
	p.reply = from[0];
	EXPECT(n_ends + 2 <= (int)(sizeof ends / sizeof *ends));
	ends[n_ends++] = p.request;
	ends[n_ends++] = p.reply;
	return p;
}

struct peer spawn(void)
{
	return spawn_in(0);
}

void start(struct peer *p, function f, long a, long b, long c, long d)
{
	struct request q = { f, { a, b, c, d } };

	signal(SIGPIPE, SIG_IGN);
	if (write(p->request, &q, sizeof q) != sizeof q) {
		int status = 0;

		waitpid(p->pid, &status, 0);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
			skip_case("no new namespaces here");
		fail(__FILE__, __LINE__, "the peer is gone, wait status %#x", status);
	}
}

long finish(struct peer *p)
{
	struct reply a;

	if (read(p->reply, &a, sizeof a) != sizeof a) {
		int status = 0;

		waitpid(p->pid, &status, 0);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
			skip_case("no new namespaces here");
		fail(__FILE__, __LINE__, "the peer ended in the middle of a call, wait status %#x", status);
	}
	errno = a.error;
	return a.value;
}

long call4(struct peer *p, function f, long a, long b, long c, long d)
{
	start(p, f, a, b, c, d);
	return finish(p);
}

static void forget(struct peer *p)
{
	close(p->request);
	close(p->reply);
	for (int i = 0; i < n_ends; i++)
		if (ends[i] == p->request || ends[i] == p->reply)
			ends[i--] = ends[--n_ends];
}

void quit(struct peer *p)
{
	int status = -1;

	forget(p);
	EXPECT(waitpid(p->pid, &status, 0) == p->pid);
	EXPECT_EQ(status, 0);
}

void kill_peer(struct peer *p)
{
	kill(p->pid, SIGKILL);
	EXPECT(waitpid(p->pid, NULL, 0) == p->pid);
	forget(p);
}

/* ---- XPMEM, here and there */

static long f_get(long segid, long flags, long c, long d)
{
	(void)c, (void)d;
	return api->get(segid, flags, XPMEM_PERMIT_MODE, (void *)0666);
}

static long f_attach(long apid, long offset, long size, long vaddr)
{
	struct xpmem_addr addr = { apid, offset };

	return (long)api->attach(addr, size, (void *)vaddr);
}

static long f_detach(long addr, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return api->detach((void *)addr);
}

static long f_release(long apid, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return api->release(apid);
}

static long f_peek(long addr, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return peek(addr);
}

static long f_poke(long addr, long value, long c, long d)
{
	(void)c, (void)d;
	return poke(addr, value);
}

static long f_verify(long addr, long size, long seed, long d)
{
	(void)d;
	return verify(addr, size, seed);
}

long f_fill(long addr, long size, long seed, long d)
{
	(void)d;
	return fill_there(addr, size, seed);
}

long f_mapped(long addr, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return mapped(addr);
}

long f_munmap(long addr, long size, long c, long d)
{
	(void)c, (void)d;
	return munmap((void *)addr, size);
}

long r_get(struct peer *p, long segid, int flags)
{
	return call(p, f_get, segid, flags, 0);
}

long r_attach(struct peer *p, long apid, long offset, long size)
{
	return call4(p, f_attach, apid, offset, size, 0);
}

long r_attach_at(struct peer *p, long apid, long offset, long size, long vaddr)
{
	return call4(p, f_attach, apid, offset, size, vaddr);
}

long r_detach(struct peer *p, long addr)
{
	return call(p, f_detach, addr, 0, 0);
}

long r_release(struct peer *p, long apid)
{
	return call(p, f_release, apid, 0, 0);
}

long r_peek(struct peer *p, long addr)
{
	return call(p, f_peek, addr, 0, 0);
}

long r_poke(struct peer *p, long addr, long value)
{
	return call(p, f_poke, addr, value, 0);
}

long r_verify(struct peer *p, long addr, long size, long seed)
{
	return call(p, f_verify, addr, size, seed);
}

long r_fill(struct peer *p, long addr, long size, long seed)
{
	return call(p, f_fill, addr, size, seed);
}

long make_range(void *p, size_t size)
{
	long segid = api->make(p, size, XPMEM_PERMIT_MODE, (void *)0666);

	EXPECT(segid > 0);
	return segid;
}

long f_make_all(long a, long b, long c, long d)
{
	(void)a, (void)b, (void)c, (void)d;
	return make_all();
}

long make_all(void)
{
	return make_range(NULL, XPMEM_MAXADDR_SIZE);
}

long get_rw(long segid)
{
	long apid = api->get(segid, XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL);

	EXPECT(apid > 0);
	return apid;
}

long attach(long apid, long offset, long size, long vaddr)
{
	return f_attach(apid, offset, size, vaddr);
}

long share(struct peer *peer, void *p, size_t size)
{
	long segid = make_all(), apid, addr;

	apid = r_get(peer, segid, XPMEM_RDWR);
	EXPECT(apid > 0);
	addr = r_attach(peer, apid, (long)p & -PAGE, size + ((long)p & (PAGE - 1)));
	EXPECT(addr != -1);
	return addr + ((long)p & (PAGE - 1));
}

/* Runs f in a child of this process; the child's answer (0 to 120), or 200 and
 * the signal. */
long run_in_child(function f, long a, long b, long c, long d)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit((int)f(a, b, c, d));
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 199;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 200 + WTERMSIG(status);
}

/*
 * With a module the end of an owner is the end of its pages, at once. Without
 * one the attacher has to notice, which takes its service a moment; what it
 * sees meanwhile is what the owner left, and nothing else.
 */
void expect_gone(struct peer *p, long addr, long last)
{
	long seen;

	for (int i = 0; (seen = r_peek(p, addr)) != -SIGBUS; i++) {
		EXPECT_EQ(seen, last);
		EXPECT(backend == BACKEND_USER);
		EXPECT(i < 2000);
		usleep(1000);
	}
}
