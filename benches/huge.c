// SPDX-License-Identifier: MIT OR Apache-2.0
// Memory on transparent huge pages: what sharing leaves of them, and what that is worth.
#define _GNU_SOURCE
#include "bench_user.h"
#include "../tests/lib/load.h"
#include "sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define LEN (256 * MIB)
#define FIRST (64 * MIB)
#define ROUNDS 15

static void print_loads(const char *who, struct sample *shared, struct sample *control)
{
	printf("  %-9s %6.1f ns over %6.1f: %.2f median, %.2f minimum   (target <= 1.05)\n", who,
	       sample_median(shared), sample_median(control), sample_median(shared) / sample_median(control),
	       sample_min(shared) / sample_min(control));
}

static char *own_huge(size_t len)
{
	char *mem = mmap(NULL, len + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mem += -(uintptr_t)mem % HUGE_PAGE;
	madvise(mem, len, MADV_HUGEPAGE);
	for (size_t at = 0; at < len; at += PAGE)
		mem[at] = 0x5a;
	return mem;
}

// Random loads, each of which waits for the one before, of memory that a peer has
// touched all of, and of other memory on huge pages.
static void bench_loads(struct peer *p, int64_t apid)
{
	static struct sample owner[2], attacher[2];
	int64_t control = peer_call(p, PEER_ALLOC_HUGE, LEN), addr = peer_call(p, PEER_ALLOC_HUGE, LEN);
	char *mem = attached(apid, addr, LEN), *own = own_huge(LEN);

	touch_all(mem, LEN);
	for (unsigned i = 0; i < ROUNDS * 2; i++) {
		unsigned turn = i % 2 ^ (i / 2) % 2; // nobody is always first

		sample_add(&owner[turn], (double)peer_call(p, PEER_LOADS, turn ? control : addr) / 1e3);
		sample_add(&attacher[turn], random_loads(turn ? own : mem, LEN));
	}
	printf("random loads of 256 MiB on huge pages, shared over not shared (of the owner's %.0f %% are huge, of the peer's %.0f %%)\n",
	       100.0 * peer_call(p, PEER_HUGE, addr) / LEN, 100.0 * huge_bytes(mem, LEN) / LEN);
	print_loads("owner", &owner[0], &owner[1]);
	print_loads("attacher", &attacher[0], &attacher[1]);
	xp.detach(mem);
	munmap(own, LEN);
	peer_call(p, PEER_FREE, 0);
	peer_call(p, PEER_FREE_AT, control);
}

static double first(struct peer *p, int64_t apid, enum peer_do alloc)
{
	int64_t addr = peer_call(p, alloc, FIRST);
	double start = now_us(), took;
	char *mem = attached(apid, addr, FIRST);

	touch_all(mem, FIRST);
	took = now_us() - start;
	xp.detach(mem);
	peer_call(p, PEER_FREE, 0);
	return took;
}

void bench_huge(struct peer *p, int64_t apid)
{
	static struct sample small, huge;

	bench_loads(p, apid);
	for (unsigned i = 0; i < ROUNDS; i++)
		for (unsigned turn = 0; turn < 2; turn++) {
			if ((turn + i) % 2)
				sample_add(&huge, first(p, apid, PEER_ALLOC_HUGE));
			else
				sample_add(&small, first(p, apid, PEER_ALLOC));
		}
	printf("first attach of 64 MiB on huge pages %.1f ms, on small ones %.1f ms\n", sample_median(&huge) / 1e3,
	       sample_median(&small) / 1e3);
	printf("  huge over small             %.2f median, %.2f minimum   (target <= 1)\n",
	       sample_median(&huge) / sample_median(&small), sample_min(&huge) / sample_min(&small));
}
