/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What is in the way of sharing for a moment is waited for. */
#include "harness.h"

#include <linux/io_uring.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define WINDOW (1024 * PAGE)

static long f_touch(long addr, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return peek(addr);
}

/* A process that traces its parent for some milliseconds, as strace and gdb do. */
static pid_t tracer(int ms)
{
	pid_t parent = getpid(), child;
	int ready[2];
	char c = 0;

	EXPECT_EQ(pipe(ready), 0);
	prctl(PR_SET_PTRACER, -1);
	child = fork();
	if (child == 0) {
		c = ptrace(PTRACE_SEIZE, parent, 0, 0) == 0;
		if (write(ready[1], &c, 1) != 1)
			_exit(1);
		usleep(ms * 1000);
		_exit(0);
	}
	EXPECT_EQ(read(ready[0], &c, 1), 1);
	if (!c)
		skip_case("may not trace");
	return child;
}

CASE(tracer_of_a_moment, "a touch waits for a tracer to go")
{
	struct peer p = spawn();
	char *source = anonymous(WINDOW);
	long addr;

	fill(source, WINDOW, 1);
	addr = share(&p, source, WINDOW);
	EXPECT_EQ(r_verify(&p, addr, PAGE, 1), 0);
	tracer(300);
	EXPECT_EQ(r_verify(&p, addr, WINDOW, 1), 0);
	quit(&p);
}

CASE(tracer_for_good, "a touch does not wait for a tracer longer than it is told to")
{
	struct peer p = spawn();
	char *source = anonymous(WINDOW);
	long addr;
	pid_t pid;

	if (backend != BACKEND_USER)
		skip_case("the module stops nobody");
	setenv("XPMEM_WAIT", "0.2", 1);
	fill(source, WINDOW, 1);
	addr = share(&p, source, WINDOW);
	EXPECT_EQ(r_verify(&p, addr, PAGE, 1), 0);
	pid = tracer(60000);
	EXPECT(FAULTED(r_peek(&p, addr + 512 * PAGE)));
	/* What was shared before still is, and so is the rest afterwards. */
	EXPECT_EQ(r_verify(&p, addr, PAGE, 1), 0);
	EXPECT_EQ(kill(pid, SIGKILL), 0);
	EXPECT_EQ(waitpid(pid, NULL, 0), pid);
	for (int i = 0; i < 100 && r_verify(&p, addr, WINDOW, 1); i++)
		usleep(10000);
	EXPECT_EQ(r_verify(&p, addr, WINDOW, 1), 0);
	quit(&p);
}

CASE(not_dumpable, "a touch waits for a program that may not be traced for a while")
{
	struct peer p;
	char *source;
	long addr;

	drop_privileges();
	p = spawn();
	source = anonymous(WINDOW);
	fill(source, WINDOW, 1);
	addr = share(&p, source, WINDOW);
	EXPECT_EQ(r_verify(&p, addr, PAGE, 1), 0);
	EXPECT_EQ(prctl(PR_SET_DUMPABLE, 0), 0);
	start(&p, f_touch, addr + 512 * PAGE, 0, 0, 0);
	usleep(200000);
	EXPECT_EQ(prctl(PR_SET_DUMPABLE, 1), 0);
	EXPECT_EQ(finish(&p), (unsigned char)source[512 * PAGE]);
	quit(&p);
}

/*
 * Tries to attach over the memory that a fork wipes: the library's state. A test has
 * none of its own. Answers how many ranges there are.
 */
static int attach_over_wiped(long apid)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long start = 0, end = 0, found[16][2];
	char line[512];
	int n = 0;

	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			continue;
		if (n < 16 && !strncmp(line, "VmFlags:", 8) && strstr(line, " wf")) {
			found[n][0] = start;
			found[n++][1] = end;
		}
	}
	fclose(f);
	for (int i = 0; i < n; i++) {
		EXPECT_ERR(attach(apid, 0, PAGE, found[i][0]), EINVAL);
		EXPECT_ERR(attach(apid, 0, PAGE, found[i][1] - PAGE), EINVAL);
		EXPECT_ERR(attach(apid, 0, 16 * PAGE, found[i][0] - 15 * PAGE), EINVAL);
		EXPECT_ERR(attach(apid, 0, 16 * PAGE, found[i][1] - PAGE), EINVAL);
	}
	return n;
}

CASE(attach_over_library, "a fixed address in the library's own memory is EINVAL, and all goes on")
{
	char *source = anonymous(16 * PAGE);
	long segid = make_range(source, 16 * PAGE), apid = get_rw(segid), addr;

	if (backend != BACKEND_USER)
		skip_case("the module has nothing there");
	fill(source, 16 * PAGE, 9);
	EXPECT(attach_over_wiped(apid) > 0);
	addr = attach(apid, 0, 16 * PAGE, 0);
	EXPECT_EQ(verify(addr, 16 * PAGE, 9), 0);
	EXPECT_EQ(api->detach((void *)addr), 0);
}

/* A new ring of io_uring pins memory. */
static int register_with_ring(char *p, size_t size)
{
	struct io_uring_params params = { 0 };
	struct iovec part = { p, size };
	int ring = (int)syscall(__NR_io_uring_setup, 4, &params);

	if (ring < 0)
		skip_case("no io_uring");
	if (syscall(__NR_io_uring_register, ring, IORING_REGISTER_BUFFERS, &part, 1))
		skip_case("may not register buffers");
	return ring;
}

CASE(registered_beside_a_tracer, "a registration waits for a tracer to go, so that peers have what is registered")
{
	struct peer p = spawn();
	char *source = anonymous(WINDOW);
	long apid;

	/* Only where it fails is it waited so long. */
	setenv("XPMEM_WAIT", "5", 1);
	fill(source, WINDOW, 1);
	apid = r_get(&p, make_all(), XPMEM_RDWR);
	tracer(100);
	register_with_ring(source, WINDOW);
	EXPECT_EQ(r_verify(&p, r_attach(&p, apid, (long)source, WINDOW), WINDOW, 1), 0);
	quit(&p);
}

static long switches(void)
{
	struct rusage usage;

	EXPECT_EQ(getrusage(RUSAGE_THREAD, &usage), 0);
	return usage.ru_nvcsw;
}

CASE(registered_twice, "what is pinned for good costs a second registration less than a stop for each page")
{
	enum { PAGES = 4096 };
	struct peer p = spawn();
	char *source = anonymous((PAGES + 1024) * PAGE);
	long apid, before;

	if (backend != BACKEND_USER)
		skip_case("the module stops nobody");
	setenv("XPMEM_WAIT", "5", 1);
	madvise(source, PAGES * PAGE, MADV_NOHUGEPAGE);
	fill(source, (PAGES + 1024) * PAGE, 1);
	register_with_ring(source, PAGES * PAGE);
	apid = r_get(&p, make_all(), XPMEM_RDWR);
	before = switches();
	register_with_ring(source, PAGES * PAGE);
	EXPECT(switches() - before < PAGES / 2);
	/* What lies beyond is shared as ever. */
	EXPECT_EQ(r_verify(&p, r_attach(&p, apid, (long)source + PAGES * PAGE, 1024 * PAGE), 1024 * PAGE, 1), 0);
	quit(&p);
}
