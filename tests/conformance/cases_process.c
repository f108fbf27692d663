/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* fork, exec, exit, kill, threads, descriptors. */
#include "harness.h"
#include "../stress/rawsys.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* Runs f in a child of this process; the child's answer (0 to 120), or 200 and
 * the signal. */
static long in_child(function f, long a, long b, long c, long d)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit((int)f(a, b, c, d));
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 199;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 200 + WTERMSIG(status);
}

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
	return in_child(child_of_attacher, addr, apid, segid, d);
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

	EXPECT_EQ(in_child(child_of_owner, segid, segid, 0, 0), 0);
	EXPECT(r_get(&p, segid, XPMEM_RDWR) > 0);
	EXPECT_EQ(api->remove(segid), 0);
	quit(&p);
}

/*
 * With a module the end of an owner is the end of its pages, at once. Without
 * one the attacher has to notice, which takes its service a moment; what it
 * sees meanwhile is what the owner left, and nothing else.
 */
static void expect_gone(struct peer *p, long addr, long last)
{
	long seen;

	for (int i = 0; (seen = r_peek(p, addr)) != -SIGBUS; i++) {
		EXPECT_EQ(seen, last);
		EXPECT(backend == BACKEND_USER);
		EXPECT(i < 2000);
		usleep(1000);
	}
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

static long f_exec(long b, long c, long d, long e)
{
	char path[256];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);

	(void)b, (void)c, (void)d, (void)e;
	if (n < 0)
		return -1;
	path[n] = 0;
	execl("/bin/sleep", "sleep", "20", (char *)NULL);
	execl("/bin/busybox", "sleep", "20", (char *)NULL);
	return -1;
}

CASE(owner_execs, "exec of the owner closes everything: SIGBUS and ENOENT")
{
	char *source = anonymous(4 * PAGE);
	struct peer owner = spawn(), q = spawn();
	long segid, apid, addr, first;

	fill(source, 4 * PAGE, 1);
	EXPECT_EQ(r_fill(&owner, (long)source, 4 * PAGE, 1), 0);
	segid = call(&owner, f_make_all, 0, 0, 0);
	apid = r_get(&q, segid, XPMEM_RDWR);
	EXPECT(apid > 0);
	addr = r_attach(&q, apid, (long)source, 4 * PAGE);
	EXPECT_EQ(r_verify(&q, addr, 2 * PAGE, 1), 0);
	first = r_peek(&q, addr);
	start(&owner, f_exec, 0, 0, 0, 0);
	/* It answers no more; give the exec a moment to have happened. */
	for (int i = 0; i < 1000 && r_get(&q, segid, XPMEM_RDWR) > 0; i++)
		usleep(5000);
	EXPECT_ERR(r_get(&q, segid, XPMEM_RDWR), ENOENT);
	expect_gone(&q, addr, first);
	EXPECT_EQ(r_peek(&q, addr + 3 * PAGE), -SIGBUS);
	EXPECT_EQ(r_detach(&q, addr), 0);
	EXPECT_EQ(r_release(&q, apid), 0);
	quit(&q);
	kill_peer(&owner);
}

static void owner_ends(int by_signal)
{
	char *source = anonymous(8 * PAGE);
	struct peer owner = spawn(), q = spawn();
	long segid, apid, other, addr, second, first;

	EXPECT_EQ(r_fill(&owner, (long)source, 8 * PAGE, 1), 0);
	segid = call(&owner, f_make_all, 0, 0, 0);
	apid = r_get(&q, segid, XPMEM_RDWR);
	other = r_get(&q, segid, XPMEM_RDWR);
	addr = r_attach(&q, apid, (long)source, 8 * PAGE);
	second = r_attach(&q, other, (long)source, 8 * PAGE);
	EXPECT_EQ(r_verify(&q, addr, 4 * PAGE, 1), 0);
	first = r_peek(&q, addr);
	if (by_signal)
		kill_peer(&owner);
	else
		quit(&owner);
	expect_gone(&q, addr, first);
	EXPECT_EQ(r_peek(&q, addr + 7 * PAGE), -SIGBUS);
	EXPECT_EQ(r_poke(&q, second + 5 * PAGE, 1), -SIGBUS);
	EXPECT_ERR(r_get(&q, segid, XPMEM_RDWR), ENOENT);
	EXPECT_EQ(r_detach(&q, addr), 0);
	EXPECT_EQ(r_release(&q, apid), 0);
	EXPECT_EQ(r_release(&q, other), 0);
	quit(&q);
}

CASE(owner_exits, "exit of the owner: SIGBUS, ENOENT, and detach and release still answer 0")
{
	owner_ends(0);
}

CASE(owner_killed, "kill -9 of the owner: the same")
{
	owner_ends(1);
}

static int sleep_for_ever(void *argument)
{
	(void)argument;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
	return 0;
}

static void *idle(void *argument)
{
	for (;;)
		pause();
	return argument;
}

/* Past libc, which would ask before. */
static void *drop_later(void *page)
{
	usleep(100000);
	raw6(SYS_madvise, (long)page, PAGE, MADV_DONTNEED, 0, 0, 0);
	return NULL;
}

/* The first thread sleeps where nothing stops it, another one stands at once,
 * and a third changes shared memory: the change waits for all of them. */
static long f_never_stop(long page, long b, long c, long d)
{
	static char stack[65536];
	pthread_t thread;

	(void)b, (void)c, (void)d;
	if (pthread_create(&thread, NULL, idle, NULL) ||
	    pthread_create(&thread, NULL, drop_later, (void *)page))
		return 1;
	return clone(sleep_for_ever, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
}

CASE(owner_killed_in_a_stop, "kill -9 of an owner whose threads are being stopped ends it at once")
{
	char *source = anonymous(8 * PAGE);
	struct peer owner = spawn(), q = spawn();
	long segid, addr;
	int status, tries = 0;

	EXPECT_EQ(r_fill(&owner, (long)source, 8 * PAGE, 1), 0);
	segid = call(&owner, f_make_all, 0, 0, 0);
	addr = r_attach(&q, r_get(&q, segid, XPMEM_RDWR), (long)source, 8 * PAGE);
	EXPECT_EQ(r_verify(&q, addr, 8 * PAGE, 1), 0);
	start(&owner, f_never_stop, (long)source, 0, 0, 0);
	usleep(400000);
	EXPECT_EQ(kill(owner.pid, SIGKILL), 0);
	/* A stop is given up after ten seconds; nobody is to wait for that. */
	while (waitpid(owner.pid, &status, WNOHANG) == 0 && tries++ < 500)
		usleep(10000);
	EXPECT(tries < 500);
	EXPECT(FAULTED(r_peek(&q, addr + 7 * PAGE)));
	EXPECT_EQ(r_detach(&q, addr), 0);
	quit(&q);
}

static long f_idle_thread(long a, long b, long c, long d)
{
	pthread_t thread;

	(void)a, (void)b, (void)c, (void)d;
	return pthread_create(&thread, NULL, idle, NULL);
}

/* Downwards, which brings few pages at a time; until one is gone. */
static long f_touch_each(long addr, long size, long c, long d)
{
	(void)c, (void)d;
	for (long at = size - (long)PAGE; at >= 0; at -= PAGE)
		if (peek(addr + at) < 0)
			return 1;
	return 0;
}

CASE(owner_execs_in_a_stop, "exec of an owner whose threads are being stopped: it becomes the other program at once")
{
	const size_t size = 8ul << 20;
	char *source = anonymous(size);

	for (int round = 0; round < 20; round++) {
		struct peer owner = spawn(), q = spawn();
		char path[64], name[32] = "";
		long segid, addr;
		int status;

		EXPECT_EQ(r_fill(&owner, (long)source, size, 1), 0);
		for (int i = 0; i < 30; i++)
			EXPECT_EQ(call(&owner, f_idle_thread, 0, 0, 0), 0);
		segid = call(&owner, f_make_all, 0, 0, 0);
		addr = r_attach(&q, r_get(&q, segid, XPMEM_RDWR), (long)source, size);
		start(&q, f_touch_each, addr, size, 0, 0);
		usleep(1000 * (round % 8));
		start(&owner, f_exec, 0, 0, 0, 0);
		snprintf(path, sizeof path, "/proc/%d/comm", owner.pid);
		for (int i = 0; i < 1000 && strcmp(name, "sleep\n") && strcmp(name, "busybox\n"); i++) {
			FILE *f = fopen(path, "r");

			usleep(10000);
			EXPECT(f && fgets(name, sizeof name, f));
			fclose(f);
		}
		EXPECT(!strcmp(name, "sleep\n") || !strcmp(name, "busybox\n"));
		EXPECT_EQ(kill(owner.pid, SIGKILL), 0);
		EXPECT_EQ(waitpid(owner.pid, &status, 0), owner.pid);
		finish(&q);
		quit(&q);
	}
}

/* The process that serves pid, or 0. */
static pid_t service_of(pid_t pid)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	pid_t found = 0;

	while (!found && (entry = readdir(proc))) {
		char path[300], name[32] = "";
		int parent = 0;
		FILE *file;

		snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
		file = atoi(entry->d_name) ? fopen(path, "r") : NULL;
		if (!file)
			continue;
		if (fscanf(file, "%*d (%31[^)]) %*c %d", name, &parent) == 2 && parent == pid &&
		    !strcmp(name, "xpmem-service"))
			found = atoi(entry->d_name);
		fclose(file);
	}
	closedir(proc);
	return found;
}

CASE(service_killed, "kill -9 of what serves a living owner: SIGBUS, and detach leaves nothing mapped")
{
	char *source = anonymous(8 * PAGE);
	struct peer owner = spawn(), q = spawn();
	long segid, addr, first;
	pid_t service;

	EXPECT_EQ(r_fill(&owner, (long)source, 8 * PAGE, 1), 0);
	segid = call(&owner, f_make_all, 0, 0, 0);
	addr = r_attach(&q, r_get(&q, segid, XPMEM_RDWR), (long)source, 8 * PAGE);
	EXPECT_EQ(r_verify(&q, addr, 8 * PAGE, 1), 0);
	first = r_peek(&q, addr);
	service = service_of(owner.pid);
	if (!service)
		skip_case("nothing serves the owner that could be killed");
	EXPECT_EQ(kill(service, SIGKILL), 0);
	expect_gone(&q, addr, first);
	EXPECT_EQ(r_poke(&q, addr + 7 * PAGE, 1), -SIGBUS);
	EXPECT_EQ(call(&q, f_mapped, addr, 0, 0), 1);
	EXPECT_EQ(r_detach(&q, addr), 0);
	EXPECT_EQ(call(&q, f_mapped, addr, 0, 0), 0);
	EXPECT_EQ(r_verify(&owner, (long)source, 8 * PAGE, 1), 0);
	quit(&q);
	kill_peer(&owner);
}

CASE(attacher_killed, "kill -9 of an attacher harms neither the owner nor another attacher")
{
	char *source = anonymous(8 * PAGE);
	struct peer q = spawn(), victims[8];
	long segid = make_all(), addr;

	fill(source, 8 * PAGE, 1);
	addr = r_attach(&q, r_get(&q, segid, XPMEM_RDWR), (long)source, 8 * PAGE);
	for (int i = 0; i < 8; i++) {
		long there;

		victims[i] = spawn();
		there = r_attach(&victims[i], r_get(&victims[i], segid, XPMEM_RDWR), (long)source, 8 * PAGE);
		EXPECT_EQ(r_peek(&victims[i], there), (unsigned char)source[0]);
		kill_peer(&victims[i]);
	}
	EXPECT_EQ(r_verify(&q, addr, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_fill(&q, addr, 8 * PAGE, 2), 0);
	EXPECT_EQ(verify((long)source, 8 * PAGE, 2), 0);
	quit(&q);
}

CASE(attacher_exits, "exit of an attacher without detach or release")
{
	char *source = anonymous(8 * PAGE);
	long segid;
	struct peer p[6];

	for (int i = 0; i < 6; i++)
		p[i] = spawn();
	segid = make_all();
	fill(source, 8 * PAGE, 1);
	for (int i = 0; i < 6; i++) {
		long addr = r_attach(&p[i], r_get(&p[i], segid, XPMEM_RDWR), (long)source, 8 * PAGE);

		EXPECT_EQ(r_verify(&p[i], addr, 8 * PAGE, i + 1), 0);
		EXPECT_EQ(r_fill(&p[i], addr, 8 * PAGE, i + 2), 0);
		quit(&p[i]);
		EXPECT_EQ(verify((long)source, 8 * PAGE, i + 2), 0);
	}
	EXPECT_EQ(api->remove(segid), 0);
}

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

static int count_fds(int need_cloexec)
{
	DIR *folder = opendir("/proc/self/fd");
	struct dirent *entry;
	int n = 0;

	EXPECT(folder != NULL);
	while ((entry = readdir(folder))) {
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] == '.' || fd == dirfd(folder))
			continue;
		n++;
		if (need_cloexec && fd > 2 && !(fcntl(fd, F_GETFD) & FD_CLOEXEC)) {
			char link[64], name[128] = "";

			snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
			if (readlink(link, name, sizeof name - 1) >= 0)
				fail(__FILE__, __LINE__, "descriptor %d, %s, survives exec", fd, name);
		}
	}
	closedir(folder);
	return n;
}

static long f_count_fds(long cloexec, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return count_fds(cloexec);
}

static long f_count_tasks(long b, long c, long d, long e)
{
	DIR *folder = opendir("/proc/self/task");
	struct dirent *entry;
	long n = 0;

	(void)b, (void)c, (void)d, (void)e;
	while ((entry = readdir(folder)))
		n += entry->d_name[0] != '.';
	closedir(folder);
	return n;
}

CASE(descriptors, "descriptors close on exec, and their number does not grow, nor that of threads")
{
	struct peer p;
	char *source = anonymous(8 * PAGE);
	long segid, fds = 0, tasks = 0, own = 0, own_tasks = 0;

	/* What the runner was started with is not our business. */
	for (int fd = 3; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			fcntl(fd, F_SETFD, FD_CLOEXEC);
	p = spawn();
	fill(source, 8 * PAGE, 1);
	segid = make_all();
	for (int i = 0; i < 200; i++) {
		long apid = r_get(&p, segid, XPMEM_RDWR);
		long addr = r_attach(&p, apid, (long)source, 8 * PAGE);

		EXPECT(addr != -1);
		EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
		if (i % 2)
			EXPECT_EQ(r_detach(&p, addr), 0);
		EXPECT_EQ(r_release(&p, apid), 0);
		api->remove(make_all());
		if (i == 20) {
			fds = call(&p, f_count_fds, 1, 0, 0);
			tasks = call(&p, f_count_tasks, 0, 0, 0);
			own = count_fds(1);
			own_tasks = f_count_tasks(0, 0, 0, 0);
		}
	}
	EXPECT(call(&p, f_count_fds, 1, 0, 0) <= fds);
	EXPECT(call(&p, f_count_tasks, 0, 0, 0) <= tasks);
	EXPECT(count_fds(1) <= own);
	EXPECT(f_count_tasks(0, 0, 0, 0) <= own_tasks);
	quit(&p);
}

static long child_counts(long fds, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	for (int i = 0; i < 8; i++)
		if (f_make_all(0, 0, 0, 0) <= 0)
			return 1;
	return count_fds(0) > fds ? 2 : 0;
}

CASE(reopen_leaks_nothing, "whatever the library opens again in a child, it closes what it had")
{
	long fds;

	make_all();
	fds = count_fds(0);
	for (int i = 0; i < 100; i++)
		make_all();
	EXPECT_EQ(count_fds(0), fds);
	/* A child's child, too: each inherits what the one before opened. */
	EXPECT_EQ(in_child(child_counts, fds, 0, 0, 0), 0);
	for (int i = 0; i < 20; i++)
		EXPECT_EQ(in_child(child_counts, fds, 0, 0, 0), 0);
	EXPECT_EQ(count_fds(0), fds);
}

CASE(no_standard_streams, "a program without standard streams keeps the library off 0, 1 and 2")
{
	struct peer p = spawn();
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		close(0);
		close(1);
		close(2);
		if (f_make_all(0, 0, 0, 0) <= 0)
			_exit(1);
		for (int fd = 0; fd < 3; fd++)
			if (fcntl(fd, F_GETFD) >= 0)
				_exit(2);
		_exit(0);
	}
	EXPECT(waitpid(pid, &status, 0) == pid);
	EXPECT_EQ(status, 0);
	quit(&p);
}

CASE(signals, "the program's signals go to its own threads, and calls survive them")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long segid;

	count_alarms(0);
	fill(source, 4 * PAGE, 1);
	segid = make_all();
	ualarm(500, 500);
	for (int i = 0; i < 200; i++) {
		long apid = get_rw(segid);
		long addr = attach(apid, (long)source, 4 * PAGE, 0);

		EXPECT(addr != -1);
		EXPECT_EQ(verify(addr, 4 * PAGE, 1), 0);
		EXPECT_EQ(api->release(apid), 0);
	}
	ualarm(0, 0);
	EXPECT(alarms > 0);
	EXPECT(api->remove(segid) == 0);
	quit(&p);
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
