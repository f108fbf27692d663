/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Dying at any point, closing at odd moments, 10,000 attachments, leaks. */
#include "t.h"
#include <dirent.h>
#include <limits.h>
#include <sys/socket.h>

static struct peer owner;
static long segid, apid, base;
#define PAGES 1024L
#define SIZE (PAGES * PAGE)

static int quiet(void)
{
	return stat_settles("spaces", 1) && stat_settles("segments", 1) &&
	       stat_settles("permits", 1) && stat_settles("attachments", 0);
}

static void many_attachments(void)
{
	static long at[10000];
	long n = stat_of("attachments"), bad = 0;

	CALL(&owner, r_fill, base, PAGES, 100);
	for (int i = 0; i < 10000; i++) {
		at[i] = x_attach(apid, (i % PAGES) * PAGE, PAGE);
		bad += at[i] <= 0 || val((void *)at[i]) != 100 + i % PAGES;
	}
	CHECK(bad == 0 && stat_of("attachments") == n + 10000);
	/* One revocation reaches each of them. */
	CALL(&owner, r_fill, base, PAGES, 200);
	CALL(&owner, r_madvise, base, SIZE, MADV_DONTNEED);
	CALL(&owner, r_fill, base, PAGES, 300);
	for (int i = 0; i < 10000; i++)
		bad += val((void *)at[i]) != 300 + i % PAGES;
	CHECK(bad == 0);
	for (int i = 0; i < 5000; i++)
		bad += x_detach(at[i]) != 0;
	CHECK(bad == 0 && stat_of("attachments") == n + 5000);
	CHECK(x_release(apid) == 0);
	apid = x_get(segid, RW);
	CHECK(stat_of("attachments") == n && rd((void *)at[7000], NULL) == SIGSEGV);
	CHECK(quiet());
}

static void many_permits(void)
{
	static long a[3000];
	long bad = 0, p;

	for (int i = 0; i < 3000; i++) {
		a[i] = x_get(segid, i & 1 ? RW : RD);
		p = x_attach(a[i], 0, PAGE);
		bad += p <= 0 || rd((void *)p, NULL);
	}
	for (int i = 0; i < 3000; i++)
		bad += x_release(a[i]) != 0;
	CHECK(bad == 0 && quiet());
}

static long r_life(long addr, long pages, long seg)
{
	long s = x_make((void *)addr, pages * PAGE, 0666), a = x_get(seg, RW);
	long p = x_attach(a, 0, SIZE);

	for (unsigned i = 0;; i++) {
		long q = x_attach(a, (i % 7) * PAGE, SIZE / 2);

		wr((char *)p + (i % PAGES) * PAGE, i);
		rd((char *)q + 8, NULL);
		wr((char *)addr + (i % pages) * PAGE, i);
		if (i % 3 == 0)
			madvise((void *)addr, pages * PAGE, MADV_DONTNEED);
		if (i % 2)
			x_detach(q);
		else
			munmap((void *)q, SIZE / 2);
		if (i % 11 == 0) {
			x_remove(s);
			s = x_make((void *)addr, pages * PAGE, 0666);
		}
	}
	return 0;
}

static void *kill_thread(void *arg)
{
	r_life((long)mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
	       64, segid);
	return NULL;
}
static long r_threads(long n, long b, long c)
{
	pthread_t t;

	for (int i = 0; i < n; i++)
		pthread_create(&t, NULL, kill_thread, NULL);
	pause();
	return 0;
}

static void killed_anywhere(void)
{
	unsigned seed = 1;

	for (int i = 0; i < 60; i++) {
		struct peer p = peer_start();

		peer_send(&p, r_threads, 1 + i % 3, 0, 0);
		seed = seed * 1103515245 + 12345;
		usleep(1000 + (seed >> 8) % 40000);
		peer_kill(&p);
	}
	CHECK(quiet());
}

/* An owner is killed while it is being read and written. */
static void owner_killed_in_use(void)
{
	for (int i = 0; i < 40; i++) {
		struct peer p = peer_start();
		long at = CALL(&p, r_map, 0, SIZE, 0), s = CALL(&p, r_make, at, SIZE, 0666);
		long a = x_get(s, RW), q = x_attach(a, 0, SIZE), k = 0;

		kill(p.pid, i & 1 ? SIGKILL : SIGTERM);
		int sig;

		while (wr((char *)q + (k % PAGES) * PAGE, k) == 0)
			k++;
		/*
		 * A fault is refused from when the owner's memory has its last
		 * user gone; what was mapped goes with the memory, a bit later.
		 */
		while ((sig = wr((char *)q, 1)) == 0)
			usleep(1000);
		CHECK(sig == SIGBUS);
		if (i & 2)
			CHECK(x_detach(q) == 0);
		CHECK(x_release(a) == 0);
		peer_stop(&p);
	}
	CHECK(quiet());
}

static void *closer(void *arg)
{
	usleep((long)arg);
	close(dev);
	return NULL;
}

/* close(2) in one thread, everything else in another. */
static long r_close_race(long delay, long seg, long b)
{
	pthread_t t;
	char *m = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	pthread_create(&t, NULL, closer, (void *)delay);
	for (int i = 0; i < 4000; i++) {
		long s = x_make(m, 8 * PAGE, 0666), a = x_get(seg, RW), p;

		if (s == -EBADF)
			break;
		p = x_attach(a, 0, PAGE);
		if (p > 0)
			rd((void *)p, NULL);
		x_release(a);
		x_remove(s);
	}
	pthread_join(t, NULL);
	return 0;
}

static void closed_at_odd_moments(void)
{
	for (int i = 0; i < 40; i++) {
		struct peer p = peer_start();

		CHECK(CALL(&p, r_close_race, i * 300, segid, 0) == 0);
		peer_stop(&p);
	}
	CHECK(quiet());
}

static int send_fd(int sock, int fd)
{
	char byte = 0, space[CMSG_SPACE(sizeof(int))] = "";
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = space,
			    .msg_controllen = sizeof(space) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	return sendmsg(sock, &m, 0) == 1 ? 0 : -errno;
}

/* The descriptor lives on in a socket, its opener does not. */
static void passed_descriptor(void)
{
	int pair[2], got;
	char space[CMSG_SPACE(sizeof(int))], byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = space,
			    .msg_controllen = sizeof(space) };
	int64_t ids[3];
	pid_t pid;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		char *mine = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		dev = -1;
		dev_open();
		ids[0] = x_make(mine, SIZE, 0666);
		ids[1] = x_get(segid, RW);
		ids[2] = x_attach(ids[1], 0, SIZE);
		if (rd((void *)ids[2], NULL) || send_fd(pair[1], dev))
			_exit(1);
		if (write(pair[1], ids, sizeof(ids)) != sizeof(ids))
			_exit(1);
		_exit(0);
	}
	CHECK(recvmsg(pair[0], &m, 0) == 1);
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	CHECK(read(pair[0], ids, sizeof(ids)) == sizeof(ids));
	waitpid(pid, NULL, 0);
	int keep = dev;
	dev = got;
	/* Not ours, through a descriptor that is not ours. */
	CHECK(x_get(ids[0], RW) == -ENOENT && x_remove(ids[0]) == -ENOENT);
	CHECK(x_attach(ids[1], 0, PAGE) == -EACCES && x_release(ids[1]) == -EACCES);
	CHECK(x_make(NULL, MAXADDR, 0600) == -NOPROC);
	close(got);
	dev = keep;
	close(pair[0]);
	close(pair[1]);
	CHECK(quiet());
}

/* The permit's descriptor is closed by a child, last, after the attacher. */
static void closed_in_child(void)
{
	struct peer p = peer_start();
	long a = CALL(&p, x_get, segid, RW, 0);
	int to[2];
	pid_t pid;

	CHECK(a > 0);
	peer_kill(&p);
	CHECK(quiet());
	CHECK(pipe(to) == 0);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		char b;

		/* Opened here, inherited below, closed there last. */
		dev = -1;
		dev_open();
		long c = x_get(segid, RW), q = x_attach(c, 0, SIZE);

		if (rd((void *)q, NULL))
			_exit(1);
		if (!fork()) {
			close(to[1]);
			if (read(to[0], &b, 1)) {}
			usleep(100000);
			_exit(0);
		}
		close(to[0]);
		close(to[1]);
		/* The parent closes its own; its child still holds it. */
		close(dev);
		if (rd((void *)q, NULL))
			_exit(2);
		/* Until the child is gone: then any touch is SIGBUS. */
		wait(NULL);
		for (int i = 0; i < 100 && !rd((void *)q, NULL); i++)
			usleep(10000);
		_exit(rd((void *)q, NULL) == SIGBUS ? 0 : 3);
	}
	close(to[0]);
	close(to[1]);
	int status;
	waitpid(pid, &status, 0);
	CHECK(status == 0);
	CHECK(quiet());
}

static long available(void)
{
	char line[128];
	long v = 0;
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %ld", &v) == 1)
			break;
	if (f)
		fclose(f);
	return v;
}

static void cycle(int i)
{
	char *mine = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int first = dev;

	dev = -1;
	dev_open();
	long s = x_make(mine, 64 * PAGE, 0666), a = x_get(segid, RW), b = x_get(s, RD);
	long p = x_attach(a, 0, SIZE), q = x_attach(b, 0, PAGE);

	for (int k = 0; k < 64; k++)
		wr((char *)p + k * PAGE, k);
	rd((void *)q, NULL);
	if (i & 1)
		x_detach(p);
	if (i & 2)
		x_release(a);
	if (i & 4)
		x_remove(s);
	close(dev);
	dev = first;
	munmap(mine, 64 * PAGE);
}

/* What is freed and kept for a while: by SLUB, and where KASAN is by its quarantine. */
static void drain(void)
{
	DIR *caches = opendir("/sys/kernel/slab");
	struct dirent *d;
	char path[PATH_MAX];

	while (caches && (d = readdir(caches))) {
		snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", d->d_name);
		write_file(path, "1");
	}
	if (caches)
		closedir(caches);
}

static void no_leak(void)
{
	long before, after;

	for (int i = 0; i < 200; i++)
		cycle(i);
	CHECK(quiet());
	drain();
	before = available();
	for (int i = 0; i < 1000; i++)
		cycle(i);
	CHECK(quiet());
	drain();
	after = available();
	printf("  MemAvailable: %ld kB before, %ld kB after 1,000 cycles\n", before, after);
	/* One leaked page a cycle would be 4,000 kB. */
	CHECK(before - after < 3000);
}

int main(void)
{
	t_catch();
	dev_open();
	owner = peer_start();
	base = CALL(&owner, r_map, 0, SIZE, 0);
	segid = CALL(&owner, r_make, base, SIZE, 0666);
	apid = x_get(segid, RW);
	RUN(many_attachments);
	RUN(many_permits);
	RUN(killed_anywhere);
	RUN(owner_killed_in_use);
	RUN(closed_at_odd_moments);
	RUN(passed_descriptor);
	RUN(closed_in_child);
	RUN(no_leak);
	x_release(apid);
	peer_stop(&owner);
	return t_done();
}
