/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What a hostile owner or attacher would try: to have others wait for it, to be
 * beyond kill -9 itself, to be shown what is no longer there.
 */
#include "owner.h"
#include "child.h"
#include "fuse.h"
#include <linux/futex.h>
#include <linux/userfaultfd.h>

#define SIZE (PAGES * PAGE)

/* What ps shows of it is memory that it attached. */
static void hide_arguments(void)
{
	long p = x_attach(x_get(segid, RW), BASE, FILE_SIZE);

	if (prctl(PR_SET_MM, PR_SET_MM_ARG_START, p, 0, 0) || prctl(PR_SET_MM, PR_SET_MM_ARG_END, p + FILE_SIZE, 0, 0) ||
	    prctl(PR_SET_MM, PR_SET_MM_ENV_START, p, 0, 0) || prctl(PR_SET_MM, PR_SET_MM_ENV_END, p + FILE_SIZE, 0, 0))
		_exit(3);
	say_ready();
	pause();
}

/* Whoever lists processes must not wait for a file server of theirs. */
static void arguments_of_a_file(void)
{
	struct server s;
	struct peer o;
	pid_t pid;

	if (getuid() || access("/dev/fuse", W_OK))
		SKIP("no FUSE, or not root");
	NEED(server_start(&s) == 0);
	o = peer_start();
	NEED(CALL(&o, r_file, s.path, BASE, 0) == 0);
	segid = CALL(&o, r_make, 0, MAXADDR, 0666);
	pid = child_start(hide_arguments, &ready);
	NEED(wait_ready());
	CHECK(readable(pid, "cmdline"));
	readable(pid, "environ");
	CHECK(readable(pid, "maps"));
	CHECK(readable(o.pid, "maps"));
	peer_send(&o, r_map, 0, 16 * PAGE, 0);
	CHECK(peer_wait(&o) > 0);
	kill(pid, SIGKILL);
	CHECK(ends(pid));
	close(ready);
	server_stop(&s);
	peer_kill(&o);
}

/* A process that holds its own memory, and has the kernel touch it. */
static void futex_on_own(void)
{
	static int word;
	char *m = (char *)r_map(BASE, SIZE, 0);
	long a = x_get(x_make(m, SIZE, 0600), RW), p = x_attach(a, 0, SIZE);

	if (p < 0 || x_hold(1))
		_exit(3);
	say_ready();
	syscall(SYS_futex, &word, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 1, 1, p, FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0));
	pause();
}

static void futex_while_held(void)
{
	pid_t pid = child_start(futex_on_own, &ready);

	NEED(wait_ready());
	usleep(300000);
	kill(pid, SIGKILL);
	CHECK(ends(pid));
	close(ready);
}

/* What the kernel reads of memory when a process ends is in an attachment. */
static void robust_in_attachment(void)
{
	long p = x_attach(x_get(segid, RW), BASE, SIZE);

	if (p < 0 || syscall(SYS_set_robust_list, p, 24))
		_exit(3);
	say_ready();
	pause();
}

static long r_hold(long on, long b, long c) { return x_hold(on); }

static void exit_while_held(void)
{
	struct peer o = peer_start();
	pid_t pid;

	CALL(&o, r_map, BASE, SIZE, 0);
	segid = CALL(&o, r_make, 0, MAXADDR, 0666);
	pid = child_start(robust_in_attachment, &ready);
	NEED(wait_ready());
	CHECK(CALL(&o, r_hold, 1, 0, 0) == 0);
	kill(pid, SIGKILL);
	CHECK(ends(pid));
	CHECK(CALL(&o, r_hold, 0, 0, 0) == 0);
	close(ready);
	peer_kill(&o);
}

/* Ends at the last close, in another process: what it took of the owner then. */
#define MANY 300
static void many_permits(void)
{
	static char *at[MANY];
	int to[2];
	char c;

	for (int i = 0; i < MANY; i++) {
		at[i] = (char *)x_attach(x_get(segid, RW), BASE + (i % PAGES) * PAGE, PAGE);
		if (val(at[i]) != 100 + i % PAGES)
			_exit(3);
	}
	if (pipe(to))
		_exit(3);
	if (!fork()) {
		close(to[1]);
		if (read(to[0], &c, 1)) {}
		_exit(0);
	}
	close(to[0]);
	close(dev);
	if (val(at[0]) != 100)
		_exit(4);
	close(to[1]);
	wait(NULL);
	for (int i = 0; i < MANY; i++)
		if (rd(at[i], NULL) != SIGBUS)
			_exit(5);
}

static long r_make_many(long n, long b, long c)
{
	long s = 0;

	while (n-- > 0)
		s = x_make((void *)BASE, SIZE, 0666);
	return s;
}

static long r_reopen(long a, long b, long c)
{
	dev_open();
	return 0;
}

/* All that a descriptor has goes at once, or it would take permits times mappings. */
static void closed_with_many(void)
{
	struct peer o = peer_start();
	long before, a;
	int status;
	pid_t pid;
	char *p;

	CALL(&o, r_map, BASE, SIZE, 0);
	CALL(&o, r_fill, BASE, PAGES, 100);
	segid = CALL(&o, r_make, 0, MAXADDR, 0666);
	before = stat_of("invalidations_mapped");
	pid = child_start(many_permits, &ready);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(stat_settles("permits", 0) && stat_of("invalidations_mapped") <= before + 2);
	close(ready);

	a = x_get(CALL(&o, r_make_many, MANY, 0, 0), RW);
	p = (char *)x_attach(a, 0, PAGE);
	CHECK(val(p) == 100);
	before = stat_of("invalidations_mapped");
	CHECK(CALL(&o, r_reopen, 0, 0, 0) == 0);
	CHECK(rd(p, NULL) == SIGBUS && stat_of("invalidations_mapped") <= before + 2);
	CHECK(x_release(a) == 0);
	peer_stop(&o);
}

/* The time that the release of an attachment takes of which so many parts are left. */
static double release_of(long parts)
{
	struct timespec from, to;
	long a = x_get(segid, RW);
	char *p = (char *)x_attach(a, BASE, 2 * parts * PAGE);

	if ((long)p < 0)
		return 0;
	for (long i = 0; i < parts; i++)
		mmap(p + 2 * i * PAGE, PAGE, i & 1 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	clock_gettime(CLOCK_MONOTONIC, &from);
	CHECK(x_release(a) == 0);
	clock_gettime(CLOCK_MONOTONIC, &to);
	CHECK(rd(p + (2 * parts - 1) * PAGE, NULL) == SIGSEGV);
	munmap(p, 2 * parts * PAGE);
	return to.tv_sec - from.tv_sec + (to.tv_nsec - from.tv_nsec) / 1e9;
}

/*
 * Sixteen times the parts: sixteen times the time, not 256 times. The machine may have
 * other things to do, and more of them in what takes longer: the least of some turns.
 */
static void released_in_parts(void)
{
	struct peer o = peer_start();
	double few = 1e9, many = 1e9, t;
	int turn = 0;

	segid = CALL(&o, r_make, 0, MAXADDR, 0666);
	do {
		t = release_of(250);
		few = t < few ? t : few;
		t = release_of(4000);
		many = t < many ? t : many;
	} while (++turn < 2 || (turn < 12 && many >= 80 * few));
	printf("  %.0f ms for 250 parts, %.0f ms for 4000, the least of %d\n", few * 1e3, many * 1e3, turn);
	CHECK(few > 0 && many < 80 * few);
	peer_stop(&o);
}

/* Sealed, an attachment cannot be unmapped, and is withdrawn all the same. */
static void sealed(void)
{
	struct peer o = peer_start();
	int status = -1;
	pid_t pid;

	CALL(&o, r_map, BASE, SIZE, 0);
	CALL(&o, r_fill, BASE, PAGES, 100);
	segid = CALL(&o, r_make, 0, MAXADDR, 0666);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		dev = -1;
		dev_open();
		long a = x_get(segid, RW), p = x_attach(a, BASE, SIZE);

		if (val((void *)p) != 100)
			_exit(2);
		if (syscall(462 /* mseal */, p, SIZE, 0))
			_exit(77);
		if (x_detach(p) != -EPERM || val((void *)p) != 100 || x_release(a) || rd((void *)p, NULL) != SIGBUS)
			_exit(3);
		/* Nor is anything attached over it. */
		a = x_get(segid, RW);
		_exit(x_attach_at(a, BASE, PAGE, (void *)p) > 0 ? 4 : 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	peer_stop(&o);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		SKIP("no mseal");
	CHECK(status == 0);
}

#ifndef UFFDIO_MOVE
#define UFFDIO_MOVE _IOWR(UFFDIO, 5, struct uffdio_move)
struct uffdio_move { __u64 dst, src, len, mode; __s64 move; };
#endif

/* The owner's page is another one's now, without a copy. */
static long r_move_pages(long to, long from, long size)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { { to, size }, UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_move move = { .dst = to, .src = from, .len = size };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	long ret = fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg) ||
		   ioctl(fd, UFFDIO_MOVE, &move) ? -errno : 0;

	close(fd);
	return ret;
}

static void moved_without_copy(void)
{
	for (int huge = 0; huge < 2; huge++) {
		struct peer o = peer_start();
		long size = huge ? HUGE : SIZE, from = BASE + 4 * HUGE, ret, n = size / PAGE;
		char *p, *q;

		CALL(&o, r_map, BASE, size, 0);
		CALL(&o, r_map, from, size, 0);
		CALL(&o, r_madvise, from, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		CALL(&o, r_fill, from, n, 100);
		segid = CALL(&o, r_make, 0, MAXADDR, 0666);
		long a = x_get(segid, RW);
		p = (char *)x_attach(a, BASE, size);
		q = (char *)x_attach(a, from, size);
		for (long i = 0; i < n; i++)
			CHECK(wr(q + i * PAGE, 200 + i) == 0);
		ret = CALL(&o, r_move_pages, BASE, from, size);
		if (ret) {
			x_release(a);
			peer_stop(&o);
			SKIP("no UFFDIO_MOVE");
		}
		for (long i = 0; i < n; i++) {
			CHECK(val(p + i * PAGE) == 200 + i && val(q + i * PAGE) == 0);
			CHECK(wr(p + i * PAGE, 300 + i) == 0);
			CHECK(CALL(&o, r_val, BASE + i * PAGE, 0, 0) == 300 + i);
		}
		CHECK(x_release(a) == 0);
		peer_stop(&o);
	}
}

int main(void)
{
	t_catch();
	dev_open();
	RUN(futex_while_held);
	RUN(exit_while_held);
	RUN(arguments_of_a_file);
	RUN(sealed);
	RUN(moved_without_copy);
	RUN(closed_with_many);
	RUN(released_in_parts);
	return t_done();
}
