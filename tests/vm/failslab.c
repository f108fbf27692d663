/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Fails each allocation of each operation in turn (fault injection by task:
 * /proc/self/fail-nth) and looks that an error is answered and nothing is left.
 */
#include "t.h"

static struct peer owner;
static long base, segid;
static int nth_fd = -1;

static void fail_nth(int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", n);

	if (pwrite(nth_fd, text, len, 0) != len)
		abort();
}

/* Was it reached? Reads back 0 when the failure happened. */
static int happened(void)
{
	char text[16] = "";
	int n = pread(nth_fd, text, sizeof(text) - 1, 0) > 0 ? atoi(text) : 1;

	fail_nth(0);
	return n == 0;
}

static void sweep(void)
{
	long segs = stat_of("segments"), permits = stat_of("permits"), atts = stat_of("attachments");
	int step, injected = 0;

	for (step = 0; step < 5; step++) {
		for (int n = 1; n < 60; n++) {
			int first = dev, hit;
			long s, a, p;

			dev = -1;
			if (step == 0)
				fail_nth(n);
			dev = open("/dev/xpmem", O_RDWR | O_CLOEXEC);
			if (dev < 0) {
				hit = happened();
				CHECK(hit);
				injected += hit;
				dev = first;
				continue;
			}
			if (step == 0 && !happened()) {
				close(dev);
				dev = first;
				break;
			}
			if (step == 1)
				fail_nth(n);
			s = x_make((void *)base, 8 * PAGE, 0666);
			hit = step == 1 && happened();
			CHECK(s > 0 || hit);
			if (step == 2)
				fail_nth(n);
			a = x_get(segid, RW);
			if (step == 2)
				hit = happened();
			CHECK(a > 0 || hit);
			if (step == 3)
				fail_nth(n);
			p = x_attach(a, 0, 8 * PAGE);
			if (step == 3)
				hit = happened();
			CHECK(p > 0 || hit);
			if (p > 0) {
				if (step == 4)
					fail_nth(n);
				/* A fault may ask for memory again; it may not lie. */
				long v = 0;
				int sig = rd((void *)p, &v);

				if (step == 4)
					hit = happened();
				CHECK(sig == 0 ? v == 100 : hit);
				CHECK(x_detach(p) == 0);
			}
			injected += hit;
			close(dev);
			dev = first;
			if (step && !hit)
				break;
		}
	}
	printf("  %d failures injected\n", injected);
	CHECK(injected > 20);
	CHECK(stat_settles("segments", segs) && stat_settles("permits", permits) &&
	      stat_settles("attachments", atts));
}

int main(void)
{
	t_catch();
	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR);
	if (nth_fd < 0) {
		printf("no fault injection here\n0 passed, 0 failed, 1 skipped\n");
		return 77;
	}
	write_file("/sys/kernel/debug/failslab/ignore-gfp-wait", "N");
	write_file("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "N");
	write_file("/sys/kernel/debug/failslab/verbose", "0");
	write_file("/sys/kernel/debug/fail_page_alloc/verbose", "0");
	dev_open();
	owner = peer_start();
	base = CALL(&owner, r_map, 0, 8 * PAGE, 0);
	CALL(&owner, r_fill, base, 8, 100);
	segid = CALL(&owner, r_make, base, 8 * PAGE, 0666);
	mmap((void *)base, 8 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	RUN(sweep);
	peer_stop(&owner);
	return t_done();
}
