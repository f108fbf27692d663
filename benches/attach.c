// SPDX-License-Identifier: MIT OR Apache-2.0
// What it costs to attach: again, for the first time, and for the owner.
#define _GNU_SOURCE
#include "bench_user.h"

#include "../tests/lib/load.h"
#include "sample.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FIRST (64 * MIB)

// One of the two things compared, in its three stages.
struct stages {
	struct sample call, touched, whole;
};

static void stages_add(struct stages *s, double start, double called, double touched, double done)
{
	sample_add(&s->call, called - start);
	sample_add(&s->touched, touched - start);
	sample_add(&s->whole, done - start);
}

static void stage_print(const char *what, const char *target, struct sample *again, struct sample *bare)
{
	printf("  %-22s %6.1f us over %6.1f: %.2f median, %.2f minimum%s\n", what, sample_median(again),
	       sample_median(bare), sample_median(again) / sample_median(bare),
	       sample_min(again) / sample_min(bare), target);
}

static void bare_once(struct peer *p, int fd, struct sample *trip, struct stages *s)
{
	double start = now_us(), called, touched;
	volatile char *mem;

	peer_call(p, PEER_PING, 0);
	sample_add(trip, now_us() - start);
	mem = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	called = now_us();
	touch_all((char *)mem, MIB);
	touched = now_us();
	munmap((void *)mem, MIB);
	stages_add(s, start, called, touched, now_us());
}

static int again_once(int64_t apid, int64_t addr, struct stages *s)
{
	struct xpmem_addr at = { apid, addr };
	double start = now_us(), called, touched;
	volatile char *mem = xp.attach(at, MIB, NULL);

	if (mem == (void *)-1)
		return -1;
	called = now_us();
	touch_all((char *)mem, MIB);
	touched = now_us();
	xp.detach((void *)mem);
	stages_add(s, start, called, touched, now_us());
	return 0;
}

// Attaching what was attached before, beside a bare round trip to the peer and
// mmap of a file that is there; then a touch of each page, as a message
// is; then the unmapping.
void bench_attach(struct peer *p, int64_t apid)
{
	static struct stages again, bare;
	static struct sample trip;
	int64_t addr = peer_call(p, PEER_ALLOC, MIB);
	int fd = memfd_create("bench", MFD_CLOEXEC);
	char *file;

	touch_all(attached(apid, addr, MIB), MIB);
	if (fd < 0 || ftruncate(fd, MIB))
		return;
	file = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	memset(file, 1, MIB);
	for (unsigned i = 0; i < 400; i++) {
		bare_once(p, fd, &trip, &bare);
		if (again_once(apid, addr, &again))
			return;
	}
	printf("re-attach of 1 MiB over a round trip (%.1f us) + mmap\n", sample_median(&trip));
	stage_print("the call", "   (target <= 1.2)", &again.call, &bare.call);
	stage_print("and a touch of all", "", &again.touched, &bare.touched);
	stage_print("and detach, munmap", "", &again.whole, &bare.whole);
	close(fd);
	peer_call(p, PEER_FREE, 0);
}

static double fresh(size_t len, int advice)
{
	char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	double start, took;

	if (advice)
		madvise(mem, len, advice);
	start = now_us();
	for (size_t at = 0; at < len; at += PAGE)
		*(volatile char *)(mem + at) = 1;
	took = now_us() - start;
	munmap(mem, len);
	return took;
}

void bench_first(struct peer *p, int64_t apid)
{
	static struct sample first, own;

	for (unsigned i = 0; i < 9; i++) {
		// Each of another size: what is asked for again and again is shared from the start.
		int64_t addr = peer_call(p, PEER_ALLOC, FIRST + i * PAGE);
		double start;
		char *mem;

		sample_add(&own, fresh(FIRST, 0));
		start = now_us();
		mem = attached(apid, addr, FIRST);
		touch_all(mem, FIRST);
		sample_add(&first, now_us() - start);
		xp.detach(mem);
		peer_call(p, PEER_FREE, 0);
	}
	printf("first attach of 64 MiB, every page touched %.1f ms; first touch of 64 MiB of one's own %.1f ms\n",
	       sample_median(&first) / 1e3, sample_median(&own) / 1e3);
	printf("  attach over own             %.2f median, %.2f minimum   (target <= 1.3)\n",
	       sample_median(&first) / sample_median(&own), sample_min(&first) / sample_min(&own));
}

// The figure of the last line of the file that has it.
static double longest_stop(const char *file)
{
	char line[1024];
	FILE *f = fopen(file, "r");
	double us = -1;

	while (f && fgets(line, sizeof(line), f)) {
		const char *at = strstr(line, "longest_stop_us=");

		if (at)
			us = atof(at + strlen("longest_stop_us="));
	}
	if (f)
		fclose(f);
	return us;
}

void bench_stop(const char *lib)
{
	static struct sample stop;
	char file[] = "/tmp/xpmem-bench.XXXXXX";
	int fd = mkstemp(file);

	for (unsigned i = 0; i < 9; i++) {
		struct peer p = peer_start(lib, file);
		int64_t apid = xp.get(peer_call(&p, PEER_MAKE, 0), XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL);
		int64_t addr = peer_call(&p, PEER_ALLOC, FIRST);

		if (ftruncate(fd, 0) || apid <= 0)
			break;
		peer_call(&p, PEER_DIRTY, 0);
		touch_all(attached(apid, addr, FIRST), FIRST);
		peer_call(&p, PEER_FREE, 0);
		xp.release(apid);
		peer_end(&p);
		if (longest_stop(file) >= 0)
			sample_add(&stop, longest_stop(file));
	}
	close(fd);
	unlink(file);
	printf("longest stop of an owner, 64 MiB attached at 1 %% dirty: %.0f us median, %.0f minimum of %u runs   (target <= 1000)\n",
	       sample_median(&stop), sample_min(&stop), stop.n);
}
