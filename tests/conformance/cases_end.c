/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The end of a process: exec, exit, kill -9, of an owner, an attacher, a service. */
#include "harness.h"
#include "../stress/rawsys.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

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
	/* The child that shares the owner's memory keeps it until it has been killed, too. */
	for (tries = 0; !FAULTED(r_peek(&q, addr + 7 * PAGE)) && tries < 1000; tries++)
		usleep(10000);
	EXPECT(tries < 1000);
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
