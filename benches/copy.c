// SPDX-License-Identifier: MIT OR Apache-2.0
// The data path: memcpy out of attached memory beside memcpy out of one's own,
// process_vm_readv, and two copies through a shared buffer.
#define _GNU_SOURCE
#include "bench_user.h"
#include "sample.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define FRAGMENT (32ul << 10)

enum way { OWN, ATTACHED, CMA, TWO_COPIES, NWAYS };

static char *shm;

static void one_copy(enum way way, struct peer *p, char *to, char *own, char *att, int64_t addr, size_t len)
{
	switch (way) {
	case OWN:
		memcpy(to, own, len);
		break;
	case ATTACHED:
		memcpy(to, att, len);
		break;
	case CMA:
		for (size_t at = 0; at < len;) {
			struct iovec here = { to + at, len - at }, there = { (void *)(addr + at), len - at };
			ssize_t n = process_vm_readv(p->pid, &here, 1, &there, 1, 0);

			if (n <= 0)
				return;
			at += n;
		}
		break;
	case TWO_COPIES: // both by one process: the best case, with no hand-shake at all
		for (size_t at = 0; at < len; at += FRAGMENT) {
			memcpy(shm, own + at, FRAGMENT);
			memcpy(to + at, shm, FRAGMENT);
		}
		break;
	default:
		break;
	}
}

// As long as about 100 us at least, so that the clock's own time is nothing.
static unsigned repeats(size_t len)
{
	return len >= MIB ? 1 : MIB / len;
}

static void at_size(struct peer *p, int64_t apid, size_t len)
{
	static struct sample s[NWAYS];
	int64_t addr = peer_call(p, PEER_ALLOC, len);
	char *own = own_memory(len), *to = own_memory(len), *att = attached(apid, addr, len);
	unsigned rounds = len >= 16 * MIB ? 60 : 300;

	memset(s, 0, sizeof(s));
	touch_all(att, len);
	for (unsigned i = 0; i < rounds; i++)
		for (unsigned turn = 0; turn < NWAYS; turn++) {
			enum way way = (turn + i) % NWAYS; // nobody is always first
			double start;

			// Untimed first: source and target are as warm for each as its own copy leaves them.
			one_copy(way, p, to, own, att, addr, len);
			start = now_us();
			for (unsigned r = 0; r < repeats(len); r++)
				one_copy(way, p, to, own, att, addr, len);
			sample_add(&s[way], (now_us() - start) / repeats(len));
		}
	printf("copy %6zu KiB  own %8.1f us  attached %8.1f  cma %8.1f  two copies %8.1f (medians)\n", len >> 10,
	       sample_median(&s[OWN]), sample_median(&s[ATTACHED]), sample_median(&s[CMA]),
	       sample_median(&s[TWO_COPIES]));
	printf("  attached speed over own   %.2f median, %.2f minimum   (target >= 0.95)\n",
	       sample_median(&s[OWN]) / sample_median(&s[ATTACHED]), sample_min(&s[OWN]) / sample_min(&s[ATTACHED]));
	printf("  time over attached: cma   %.2f median, %.2f minimum; two copies %.2f, %.2f\n",
	       sample_median(&s[CMA]) / sample_median(&s[ATTACHED]), sample_min(&s[CMA]) / sample_min(&s[ATTACHED]),
	       sample_median(&s[TWO_COPIES]) / sample_median(&s[ATTACHED]),
	       sample_min(&s[TWO_COPIES]) / sample_min(&s[ATTACHED]));
	munmap(own, len);
	munmap(to, len);
	peer_call(p, PEER_FREE, 0);
}

void bench_copy(struct peer *p, int64_t apid)
{
	static const size_t sizes[] = { 64 << 10, MIB, 16 * MIB };

	shm = mmap(NULL, FRAGMENT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		at_size(p, apid, sizes[i]);
}
