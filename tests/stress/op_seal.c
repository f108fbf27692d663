// SPDX-License-Identifier: MIT OR Apache-2.0
// Sealed memory, which nobody can unmap, protect or replace any more, nor give up: each
// worker seals a few ranges in the life of an owner.
#define _GNU_SOURCE
#include "layout.h"
#include "pattern.h"
#include "worker.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

#define SEALED_AT (TOMB_AT + (1ul << 30))
#define PLACE (8ul << 20)
#define SEALS 4
// More than what is shared at once with an attach, which would be refused.
#define PAGES_SEALED_FIRST 72

static _Atomic unsigned seals[NWORKERS];

static bool seal(struct worker *w, uint64_t at, uint64_t len)
{
	if (!syscall(SYS_mseal, at, len, 0ul))
		return true;
	skip_note(w->mb, K_SEAL, strerror(errno));
	return false;
}

// It is not shared then, and stays the owner's.
static void sealed_first(struct worker *w, uint64_t at, uint64_t len)
{
	uint32_t gen = next_gen();
	struct ask hole = { "sealed", K_SEAL, REQ_HOLE, gen, (void *)at, len };

	pattern_fill((uint64_t *)at, len / 8, w->key, gen);
	if (!seal(w, at, len))
		return;
	ask_and_wait(w, &hole);
	own_view(w, "sealed", K_SEAL, (void *)at, len, gen);
}

static void refused(struct worker *w, const char *call, bool did)
{
	if (did || errno != EPERM)
		fail_note(w->mb, F_OWNER_MEM, K_SEAL, "%s of sealed memory: %s", call, did ? "done" : strerror(errno));
}

// It stays shared, and what it is, whatever is tried.
static void shared_first(struct worker *w, uint64_t at, uint64_t len)
{
	void *mem = (void *)at;
	uint32_t gen;

	// With nobody there to read it, it is not shared.
	if (!publish(w, "to be sealed", K_SEAL, mem, len) || !seal(w, at, len))
		return;
	publish(w, "shared, sealed", K_SEAL, mem, len);
	gen = next_gen();
	pattern_fill(mem, len / 8, w->key, gen);
	publish_again(w, "sealed", K_SEAL, mem, len, gen, 0);
	refused(w, "munmap", !munmap(mem, len));
	publish_again(w, "sealed, munmap", K_SEAL, mem, len, gen, 0);
	refused(w, "mprotect", !mprotect(mem, len, PROT_READ));
	publish_again(w, "sealed, mprotect", K_SEAL, mem, len, gen, 0);
	refused(w, "mremap", mremap(mem, len, len / 2, 0) != MAP_FAILED);
	publish_again(w, "sealed, mremap", K_SEAL, mem, len, gen, 0);
	refused(w, "MAP_FIXED", vm_libc.map(at, len, true));
	publish_again(w, "sealed, mmap", K_SEAL, mem, len, gen, 0);
	publish(w, "still shared", K_SEAL, mem, len);
}

void op_seal(struct worker *w)
{
	unsigned n = w->mb->stats.skipped[K_SEAL] ? SEALS : atomic_fetch_add(&seals[w->id], 1);
	uint64_t at = SEALED_AT + (w->id * SEALS + n) * PLACE;
	uint64_t len = n % 2 ? (1 + rng_below(&w->rng, 8)) * 2 * PAGE : PAGES_SEALED_FIRST * PAGE;

	if (n >= SEALS || !vm_libc.map(at, len, false)) {
		atomic_store(&seals[w->id], SEALS);
		usleep(100);
		return;
	}
	if (n % 2)
		shared_first(w, at, len);
	else
		sealed_first(w, at, len);
}
