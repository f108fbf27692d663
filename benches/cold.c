// SPDX-License-Identifier: MIT OR Apache-2.0
// Cold pages: buffers that are new for each message, or for each fourth. One
// owner exports its memory; the other has never heard of this library, and its
// memory is reached by CMA. Each has its own turn, in one run.
#define _GNU_SOURCE
#include "bench_user.h"

#include "../tests/lib/load.h"
#include "sample.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

enum { ATTACHED, CMA, NWAYS };

static const char *const how_allocated[] = { "mmap", "malloc" };

// What is compared: messages alone, and with what the owner does for them
// (allocates, fills, frees).
struct costs {
	struct sample messages, whole;
};

// As clients do: what is attached stays so while the same addresses are asked for.
static struct {
	char *mem;
	int64_t addr;
} window;

static char *attachment_of(int64_t apid, int64_t addr, size_t len)
{
	int64_t from = addr & ~(int64_t)(PAGE - 1);

	if (window.addr != from) {
		if (window.mem)
			xp.detach(window.mem);
		window.mem = attached(apid, from, len + PAGE);
		window.addr = from;
	}
	return window.mem + (addr - from);
}

static void forget_window(void)
{
	if (window.mem)
		xp.detach(window.mem);
	window.mem = NULL;
	window.addr = 0;
}

static bool by_cma(pid_t pid, char *own, int64_t addr, size_t len, bool writes)
{
	for (size_t at = 0; at < len;) {
		struct iovec here = { own + at, len - at }, there = { (void *)(addr + at), len - at };
		ssize_t n = writes ? process_vm_writev(pid, &here, 1, &there, 1, 0) :
				     process_vm_readv(pid, &here, 1, &there, 1, 0);

		if (n <= 0)
			return false;
		at += n;
	}
	return true;
}

struct row {
	size_t len;
	unsigned uses;
	bool writes, by_malloc;
};

static void one_buffer(struct peer *p, int64_t apid, const struct row *r, char *own, struct costs *c)
{
	double start = now_us(), filled, done;
	int64_t addr = peer_call(p, r->by_malloc ? PEER_MALLOC : PEER_ALLOC, r->len);

	filled = now_us();
	for (unsigned i = 0; i < r->uses; i++) {
		if (!apid) {
			if (!by_cma(p->pid, own, addr, r->len, r->writes))
				return;
		} else {
			char *there = attachment_of(apid, addr, r->len);

			if (r->writes)
				memcpy(there, own, r->len);
			else
				memcpy(own, there, r->len);
		}
	}
	done = now_us();
	peer_call(p, PEER_FREE, 0);
	sample_add(&c->messages, done - filled);
	sample_add(&c->whole, now_us() - start);
}

static void one_row(struct peer *with, struct peer *without, int64_t apid, const struct row *r)
{
	static struct costs c[NWAYS];
	unsigned rounds = r->len >= 8 * MIB ? 40 : r->len >= MIB ? 100 : 300;
	char *own = own_memory(r->len);

	memset(c, 0, sizeof(c));
	for (unsigned i = 0; i < rounds; i++)
		for (unsigned turn = 0; turn < NWAYS; turn++) {
			unsigned way = (turn + i) % NWAYS;

			if (way == ATTACHED)
				one_buffer(with, apid, r, own, &c[way]);
			else
				one_buffer(without, 0, r, own, &c[way]);
		}
	forget_window();
	printf("  %4zu KiB %s by %-6s used %u: attached %8.1f us  cma %8.1f  cma over attached %.2f; with the owner's work %.2f\n",
	       r->len >> 10, r->writes ? "written" : "read   ", how_allocated[r->by_malloc], r->uses,
	       sample_median(&c[ATTACHED].messages), sample_median(&c[CMA].messages),
	       sample_median(&c[CMA].messages) / sample_median(&c[ATTACHED].messages),
	       sample_median(&c[CMA].whole) / sample_median(&c[ATTACHED].whole));
	munmap(own, r->len);
}

void bench_cold(struct peer *with, int64_t apid, const char *lib)
{
	static const size_t sizes[] = { 64 << 10, MIB, 8 * MIB };
	struct peer without = peer_start(lib, NULL);

	printf("new buffers, medians   (targets: used once >= 1.0, used four times >= 1.4)\n");
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (unsigned kind = 0; kind < 8; kind++) {
			struct row r = { sizes[i], kind & 1 ? 4 : 1, kind & 2, kind & 4 };

			one_row(with, &without, apid, &r);
		}
	peer_end(&without);
}
