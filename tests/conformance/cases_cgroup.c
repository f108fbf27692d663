/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What is shared is charged to its owner's memory cgroup, as it was before. */
#include "harness.h"

#include <sys/stat.h>

#define SIZE (32ul << 20)
#define V1 "/sys/fs/cgroup/memory/"
#define V2 "/sys/fs/cgroup/"

static char group[128];
static const char *top;
static pid_t who;

static long number_of(const char *folder, const char *file)
{
	char path[256];

	snprintf(path, sizeof path, "%s/%s", folder, file);
	return number_in(path);
}

static int tell(const char *folder, const char *file, const char *what)
{
	char path[256];
	int fd, done;

	snprintf(path, sizeof path, "%s/%s", folder, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	done = fd >= 0 && write(fd, what, strlen(what)) == (long)strlen(what);
	if (fd >= 0)
		close(fd);
	return done;
}

static int is_v1(void)
{
	return top[sizeof V2 - 1] != 0;
}

static long usage(void)
{
	return number_of(group, is_v1() ? "memory.usage_in_bytes" : "memory.current");
}

static void limit_to(long bytes)
{
	char text[32];

	snprintf(text, sizeof text, "%ld", bytes);
	EXPECT(tell(group, is_v1() ? "memory.limit_in_bytes" : "memory.max", text));
}

/* This process and its service. */
static void leave(void)
{
	char path[256], pid[32];
	FILE *text;

	if (getpid() != who)
		return;
	snprintf(path, sizeof path, "%s/cgroup.procs", group);
	text = fopen(path, "r");
	while (text && fscanf(text, "%31s", pid) == 1)
		tell(top, "cgroup.procs", pid);
	if (text)
		fclose(text);
	rmdir(group);
}

/* A memory cgroup for this process and what it starts from here on. */
static void enter(void)
{
	top = access(V1 "cgroup.procs", W_OK) ? V2 : V1;
	snprintf(group, sizeof group, "%sxpmem-test-%ld", top, (long)getpid());
	if (!is_v1())
		tell(top, "cgroup.subtree_control", "+memory");
	if (mkdir(group, 0700) || number_of(group, is_v1() ? "memory.usage_in_bytes" : "memory.current") < 0) {
		rmdir(group);
		skip_case("no memory cgroup of its own to be had");
	}
	who = getpid();
	atexit(leave);
	if (!tell(group, "cgroup.procs", "0"))
		skip_case("may not enter a memory cgroup");
}

CASE(cgroup_charged, "memory that is shared is charged to its owner, and needs hardly more than before")
{
	struct peer p = spawn();
	long addr, before;
	char *source;

	enter();
	source = anonymous(SIZE);
	fill(source, SIZE, 1);
	before = usage();
	EXPECT(before >= (long)SIZE);
	/* Twice of what one exchange takes, and what a service has. */
	limit_to(before + (long)SIZE / 2);
	addr = share(&p, source, SIZE);
	EXPECT_EQ(r_verify(&p, addr, SIZE, 1), 0);
	EXPECT_EQ(r_fill(&p, addr, SIZE, 2), 0);
	EXPECT_EQ(verify((long)source, SIZE, 2), 0);
	EXPECT(usage() >= (long)SIZE);
	quit(&p);
}

CASE(cgroup_full, "a full memory cgroup of the owner's is an error for the peer, and the owner lives on")
{
	struct peer p = spawn();
	char *source, *touched;
	long addr;

	setenv("XPMEM_WAIT", "0.1", 1);
	enter();
	source = anonymous(SIZE);
	fill(source, SIZE, 1);
	touched = anonymous(PAGE);
	fill(touched, PAGE, 1);
	/* All that a service needs for itself is there. */
	addr = share(&p, touched, PAGE);
	EXPECT_EQ(r_verify(&p, addr, PAGE, 1), 0);
	addr = share(&p, source, SIZE);
	limit_to(usage() + (256 << 10));
	/* A look counts for a tenth of a second. */
	usleep(300000);
	if (backend == BACKEND_USER)
		EXPECT_EQ(r_verify(&p, addr, SIZE, 1), -SIGBUS);
	EXPECT_EQ(verify((long)source, SIZE, 1), 0);
	limit_to(usage() + (long)SIZE);
	EXPECT_EQ(r_verify(&p, addr, SIZE, 1), 0);
	quit(&p);
}
