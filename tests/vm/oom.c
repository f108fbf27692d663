/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An owner in a memory cgroup. What an attacher touches first is the owner's,
 * and charged to it; when that is too much the owner is killed, and its
 * attacher is told. What the kernel logs of it is expected (guest-init).
 */
#include "t.h"
#include <sys/mount.h>

#define GROUP "/sys/fs/cgroup/owner"
#define BASE 0x200000000000L
#define MIB (1L << 20)

static long r_enter(long a, long b, long c) { return write_file(GROUP "/cgroup.procs", "0"); }

static long charged(void)
{
	char text[32] = "";
	int fd = open(GROUP "/memory.current", O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(fd);
	return atol(text);
}

/* The attacher stores where the owner never was. */
static void owner_killed_for_it(void)
{
	struct peer p = peer_start();
	long s, a, before, i, pages = 128 * MIB / PAGE;
	int status = 0, sig = 0;
	char *q;

	NEED(CALL(&p, r_enter, 0, 0, 0) == 0);
	CALL(&p, r_map, BASE, 128 * MIB, 0);
	CALL(&p, r_madvise, BASE, 128 * MIB, MADV_NOHUGEPAGE);
	s = CALL(&p, r_make, BASE, 128 * MIB, 0666);
	a = x_get(s, RW);
	q = (char *)x_attach(a, 0, 128 * MIB);
	NEED((long)q > 0);
	before = charged();
	for (i = 0; i < 16 * MIB / PAGE; i++)
		CHECK(wr(q + i * PAGE, i) == 0);
	printf("  charged to the owner's group: %ld kB of %ld stored\n", (charged() - before) >> 10, 16 * MIB >> 10);
	CHECK(charged() - before >= 15 * MIB);
	for (; i < pages && !sig; i++)
		sig = wr(q + i * PAGE, i);
	printf("  signal %d after %ld MiB\n", sig, i * PAGE >> 20);
	CHECK(sig == SIGBUS && i > 16 * MIB / PAGE && i <= 72 * MIB / PAGE);
	for (int k = 0; k < 1000 && waitpid(p.pid, &status, WNOHANG) != p.pid; k++)
		usleep(10000);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	CHECK(rd(q, NULL) == SIGBUS);
	CHECK(x_release(a) == 0);
	close(p.to);
	close(p.from);
	CHECK(stat_settles("spaces", 0) && stat_settles("segments", 0));
}

/* The owner itself takes too much, while a peer stores all the time. */
static long r_take_all(long a, long b, long c)
{
	char *m = mmap(NULL, 256 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (long i = 0; i < 256 * MIB; i += PAGE)
		m[i] = 1;
	return 0;
}

static void owner_killed_in_use(void)
{
	for (int round = 0; round < 3; round++) {
		struct peer p = peer_start();
		long s, a;
		char *q;

		NEED(CALL(&p, r_enter, 0, 0, 0) == 0);
		CALL(&p, r_map, BASE, 16 * MIB, 0);
		CALL(&p, r_fill, BASE, 16 * MIB / PAGE, 1);
		s = CALL(&p, r_make, BASE, 16 * MIB, 0666);
		a = x_get(s, RW);
		q = (char *)x_attach(a, 0, 16 * MIB);
		NEED((long)q > 0);
		peer_send(&p, r_take_all, 0, 0, 0);
		for (long i = 0; wr(q + i % 4096 * PAGE, i) == 0; i++)
			;
		waitpid(p.pid, NULL, 0);
		CHECK(rd(q, NULL) == SIGBUS && x_detach(q) == 0 && x_release(a) == 0);
		close(p.to);
		close(p.from);
	}
	CHECK(stat_settles("spaces", 0) && stat_settles("segments", 0));
}

int main(void)
{
	t_catch();
	t_case = "oom";
	mount("none", "/sys/fs/cgroup", "cgroup2", 0, NULL);
	if (getuid() || write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory") ||
	    mkdir(GROUP, 0755) || write_file(GROUP "/memory.max", "67108864")) {
		printf("skip oom: no memory cgroup\n");
		t_skipped++;
		return t_done();
	}
	write_file(GROUP "/memory.swap.max", "0");
	dev_open();
	RUN(owner_killed_for_it);
	RUN(owner_killed_in_use);
	return t_done();
}
