/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What others do to a process, or for it: a descriptor of it is taken by
 * pidfd_getfd(), its memory by process_mrelease() before it has ended, and
 * io_uring's workers touch what it has attached.
 */
#include "owner.h"
#include "child.h"
#include "uring.h"
#include <sys/ptrace.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_process_mrelease
#define SYS_process_mrelease 448
#endif

#define PAGES 16L
#define SIZE (PAGES * PAGE)

static long r_dev(long a, long b, long c) { return dev; }
static long r_hold(long on, long b, long c) { return x_hold(on); }

static int pidfd_of(const struct peer *p) { return syscall(SYS_pidfd_open, p->pid, 0); }

/* The peer's open /dev/xpmem, here. */
static int steal(struct peer *p)
{
	int pidfd = pidfd_of(p), fd = syscall(SYS_pidfd_getfd, pidfd, CALL(p, r_dev, 0, 0, 0), 0);

	close(pidfd);
	return fd;
}

static struct peer exporter(void)
{
	struct peer o = peer_start();

	CALL(&o, r_map, BASE, SIZE, 0);
	CALL(&o, r_fill, BASE, PAGES, 100);
	segid = CALL(&o, r_make, BASE, SIZE, 0666);
	return o;
}

static long r_get(long s, long flags, long c) { return x_get(s, flags); }

/* It is of no use to who took it, and ends with the last who has it. */
static void descriptor_taken(void)
{
	struct peer o = exporter();
	int mine = dev, fd = steal(&o);
	long a = x_get(segid, RW), theirs = CALL(&o, r_get, segid, RW, 0);
	char *p = (char *)x_attach(a, 0, SIZE), *q;

	NEED(fd >= 0 && a > 0 && theirs > 0 && (long)p > 0);
	dev = fd;
	CHECK(x_make((void *)BASE, SIZE, 0600) == -NOPROC && x_get(segid, RW) == -NOPROC && x_hold(1) == -NOPROC);
	CHECK(x_remove(segid) == -EACCES && x_release(theirs) == -EACCES && x_attach(theirs, 0, SIZE) == -EACCES);
	/* One's own permit is good through any descriptor, and its place is no hint for others. */
	q = (char *)x_attach(a, 0, SIZE);
	CHECK(val(q) == 100 && x_detach(q) == 0);
	dev = mine;
	CHECK(wr(p, 200) == 0 && CALL(&o, r_val, BASE, 0, 0) == 200);
	peer_kill(&o);
	CHECK(rd(p, NULL) == SIGBUS && x_get(segid, RW) == -ENOENT);
	CHECK(x_detach(p) == 0 && x_release(a) == 0);
	close(fd);
	CHECK(stat_settles("segments", 0) && stat_settles("permits", 0) && stat_settles("spaces", 0));
}

/* Touches the first page when it is told to; ends well where that is SIGBUS. */
static int go[2];
static void touch_when_told(void)
{
	char *p = (char *)x_attach(x_get(segid, RW), 0, SIZE);
	char c;

	say_ready();
	if (read(go[0], &c, 1) != 1)
		_exit(2);
	_exit((long)p < 0 ? 3 : rd(p, NULL) == SIGBUS ? 0 : 4);
}

/* Tells it to; returns when it waits. */
static void tell_and_wait(void)
{
	long waited = stat_of("faults_waited");

	CHECK(write(go[1], "x", 1) == 1);
	for (int i = 0; i < 1000 && stat_of("faults_waited") == waited; i++)
		usleep(10000);
	CHECK(stat_of("faults_waited") > waited);
}

/*
 * Who waits for a hold to end waits no longer than there is anything to wait
 * for, though the descriptor that holds is still open somewhere.
 */
static void hold_is_kept(int killed)
{
	struct peer o = exporter();
	int fd = steal(&o), status = -1;
	pid_t pid;

	NEED(fd >= 0 && pipe(go) == 0);
	pid = child_start(touch_when_told, &ready);
	NEED(wait_ready());
	CHECK(CALL(&o, r_hold, 1, 0, 0) == 0);
	tell_and_wait();
	CHECK(waitpid(pid, &status, WNOHANG) == 0);
	if (killed) {
		kill(o.pid, SIGKILL);
		CHECK(waitpid(o.pid, NULL, 0) == o.pid);
	} else {
		CHECK(CALL(&o, r_remove, segid, 0, 0) == 0);
	}
	for (int i = 0; i < 1000 && waitpid(pid, &status, WNOHANG) != pid; i++)
		usleep(10000);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	if (status == -1) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	close(ready);
	close(go[0]);
	close(go[1]);
	close(fd);
	peer_kill(&o);
	CHECK(stat_settles("segments", 0) && stat_settles("spaces", 0));
}

static void hold_outlives_owner(void) { hold_is_kept(1); }
static void hold_outlives_segment(void) { hold_is_kept(0); }

/* Whoever gets the pages that are free now fills them. */
static void use_free_memory(void)
{
	long size = 32L << 20;
	char *m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(m, 0x55, size);
	munmap(m, size);
}

/*
 * Killed, and stopped before it gives up its memory, which is taken then: all of
 * it where nobody has attached it, none where somebody has.
 */
static void memory_released(void)
{
	for (int mapped = 0; mapped < 2; mapped++) {
		struct peer o = exporter();
		int pidfd = pidfd_of(&o), status = 0;
		long a = x_get(segid, RW), ret;
		char *p = NULL;

		if (mapped)
			p = (char *)x_attach(a, 0, SIZE);
		if (mapped)
			for (long i = 0; i < PAGES / 2; i++)
				CHECK(wr(p + i * PAGE, 200 + i) == 0);
		NEED(ptrace(PTRACE_SEIZE, o.pid, 0, PTRACE_O_TRACEEXIT) == 0);
		kill(o.pid, SIGKILL);
		NEED(waitpid(o.pid, &status, 0) == o.pid && WIFSTOPPED(status) && status >> 16 == PTRACE_EVENT_EXIT);
		ret = syscall(SYS_process_mrelease, pidfd, 0) ? -errno : 0;
		if (ret == -ENOSYS) {
			ptrace(PTRACE_DETACH, o.pid, 0, 0);
			peer_stop(&o);
			x_release(a);
			close(pidfd);
			SKIP("no process_mrelease");
		}
		CHECK(ret == (mapped ? -EAGAIN : 0));
		if (!mapped)
			p = (char *)x_attach(a, 0, SIZE);
		NEED((long)p > 0);
		use_free_memory();
		/* What was there, or nothing. */
		for (long i = 0; i < PAGES; i++) {
			long v, sig = rd(p + i * PAGE, &v);

			CHECK(sig == SIGBUS || (mapped && v == (i < PAGES / 2 ? 200 : 100) + i));
		}
		CHECK(ptrace(PTRACE_DETACH, o.pid, 0, 0) == 0);
		peer_stop(&o);
		for (long i = 0; i < PAGES; i++)
			CHECK(rd(p + i * PAGE, NULL) == SIGBUS);
		CHECK(x_release(a) == 0);
		close(pidfd);
		CHECK(stat_settles("segments", 0) && stat_settles("spaces", 0));
	}
}

/* A file whose first word is 7. */
static int file_of_seven(void)
{
	int fd = syscall(SYS_memfd_create, "seven", 0);
	long seven = 7;

	if (ftruncate(fd, PAGE) || pwrite(fd, &seven, 8, 0) != 8)
		abort();
	return fd;
}

/* Has its memory held when a worker of its own is about to touch it. */
static unsigned int ring_flags;
static int then_exec;
static void read_into_held(void)
{
	char *p = (char *)x_attach(x_get(segid, RW), 0, SIZE), c;
	struct uring r = { 0 };

	if ((long)p < 0 || uring_start(&r, ring_flags))
		_exit(3);
	say_ready();
	if (read(go[0], &c, 1) != 1)
		_exit(2);
	uring_read(&r, ring_flags, file_of_seven(), p);
	if (then_exec) {
		usleep(300000);
		execl("/proc/self/exe", "outside", "nothing", NULL);
	}
	pause();
}

static void ring_touches(unsigned int flags, int fd)
{
	struct peer o = exporter();
	long a = x_get(segid, RW);
	char *p = (char *)x_attach(a, 0, SIZE);
	struct iovec v = { p, PAGE };
	struct uring r = { 0 };
	pid_t pid;

	NEED(uring_start(&r, flags) == 0);
	/* No device is given the pages; what copies to them may. */
	CHECK(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_BUFFERS, &v, 1) == -1 && errno == EFAULT);
	uring_read(&r, flags, fd, p + PAGE);
	CHECK(uring_wait(&r) == PAGE && CALL(&o, r_val, BASE + PAGE, 0, 0) == 7);
	CHECK(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_BUFFERS, &v, 1) == -1 && errno == EFAULT);
	CALL(&o, r_unmap, BASE + 2 * PAGE, PAGE, 0);
	uring_read(&r, flags, fd, p + 2 * PAGE);
	CHECK(uring_wait(&r) == -EFAULT);
	uring_end(&r);
	CHECK(x_release(a) == 0);

	/* The worker waits, and is killed with its process, also in the midst of an exec. */
	for (then_exec = 0; then_exec < 2; then_exec++) {
		NEED(pipe(go) == 0);
		ring_flags = flags;
		pid = child_start(read_into_held, &ready);
		NEED(wait_ready());
		CHECK(CALL(&o, r_hold, 1, 0, 0) == 0);
		tell_and_wait();
		usleep(then_exec ? 500000 : 0);
		kill(pid, SIGKILL);
		CHECK(ends(pid));
		CHECK(CALL(&o, r_hold, 0, 0, 0) == 0);
		close(ready);
		close(go[0]);
		close(go[1]);
	}
	peer_stop(&o);
	CHECK(stat_settles("attachments", 0) && stat_settles("spaces", 0));
}

/* The last to have a descriptor is a ring, which lets go in a thread of the kernel's. */
static void closed_by_a_ring(void)
{
	struct uring r = { 0 };
	int mine = dev, fd;
	long a, sig = 0;
	char *p;

	if (uring_start(&r, 0))
		SKIP("no io_uring");
	CHECK(r_map(BASE, SIZE, 0) == BASE);
	dev = -1;
	dev_open();
	fd = dev;
	a = x_get(x_make((void *)BASE, SIZE, 0600), RW);
	p = (char *)x_attach(a, 0, SIZE);
	NEED(syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_FILES, &fd, 1) == 0);
	close(fd);
	dev = mine;
	CHECK(wr(p, 5) == 0 && *(long *)BASE == 5);
	uring_end(&r);
	for (int i = 0; i < 1000 && !sig; i++) {
		usleep(10000);
		sig = rd(p, NULL);
	}
	CHECK(sig == SIGBUS && x_detach(p) == 0);
	CHECK(stat_settles("permits", 0) && stat_settles("segments", 0) && stat_settles("spaces", 0));
	munmap((void *)BASE, SIZE);
}

static void rings(void)
{
	unsigned int flags[2] = { 0, IORING_SETUP_SQPOLL };
	int fd = file_of_seven(), done = 0;
	struct uring r = { 0 };

	for (int i = 0; i < 2; i++) {
		int err = uring_start(&r, flags[i]);

		if (err) {
			printf("  no ring of flags %u: %d\n", flags[i], err);
			continue;
		}
		uring_end(&r);
		ring_touches(flags[i], fd);
		done++;
	}
	close(fd);
	if (!done)
		SKIP("no io_uring");
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return 0;
	t_catch();
	dev_open();
	RUN(descriptor_taken);
	RUN(hold_outlives_owner);
	RUN(hold_outlives_segment);
	RUN(memory_released);
	RUN(rings);
	RUN(closed_by_a_ring);
	return t_done();
}
