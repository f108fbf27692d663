// SPDX-License-Identifier: MIT OR Apache-2.0
// The user back end's speed as ratios to what one would do without it, all in
// one run and interleaved. It decides nothing: targets stand beside the figures.
#define _GNU_SOURCE
#include "bench_user.h"

#include "../tests/lib/load.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

char *own_memory(size_t len)
{
	char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(mem, 0x33, len);
	return mem;
}

char *attached(int64_t apid, int64_t addr, size_t len)
{
	struct xpmem_addr at = { apid, addr };
	char *mem = xp.attach(at, len, NULL);

	if (mem == (void *)-1) {
		perror("bench-user: xpmem_attach");
		exit(1);
	}
	return mem;
}

void touch_all(const char *mem, size_t len)
{
	for (size_t at = 0; at < len; at += PAGE)
		(void)*(volatile const char *)(mem + at);
}

// A loaded machine explains a bad median, and a long stop: a thread that is
// waiting for a processor stops when it has one.
static void print_load(const char *when)
{
	double load[3] = { 0, 0, 0 };

	if (getloadavg(load, 3) > 0)
		printf("load average %s: %.1f on %ld processors\n", when, load[0], sysconf(_SC_NPROCESSORS_ONLN));
}

// Ahead of the other load of the machine, where we may; all that is started from
// here inherits it, and both sides of each comparison have it.
static void come_first(void)
{
	struct sched_param param = { .sched_priority = 1 };
	bool done = !sched_setscheduler(0, SCHED_FIFO, &param);

	printf("scheduled %s\n", done ? "ahead of other load (SCHED_FIFO)" : "among other load: no right to SCHED_FIFO");
}

int main(int argc, char **argv)
{
	const char *lib = argc == 4 ? argv[3] : argv[1];
	struct peer p;
	int64_t segid, apid;

	if (argc == 4)
		return peer_main(atoi(argv[2]), lib);
	if (argc != 2) {
		fprintf(stderr, "usage: bench-user LIBRARY\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!xpmem_api_load(lib))
		return 1;
	come_first();
	print_load("at the start");
	p = peer_start(lib, NULL);
	segid = peer_call(&p, PEER_MAKE, 0);
	apid = segid > 0 ? xp.get(segid, XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL) : -1;
	if (apid <= 0) {
		perror("bench-user: no back end serves here");
		return 77;
	}
	bench_copy(&p, apid);
	bench_attach(&p, apid);
	bench_first(&p, apid);
	bench_cold(&p, apid, lib);
	bench_huge(&p, apid);
	xp.release(apid);
	peer_end(&p);
	bench_stop(lib);
	print_load("at the end");
	return 0;
}
