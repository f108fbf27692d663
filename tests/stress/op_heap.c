// SPDX-License-Identifier: MIT OR Apache-2.0
// The allocator, the break, and static memory rewritten in place.
#define _GNU_SOURCE
#include "pattern.h"
#include "rawsys.h"
#include "worker.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t random_size(struct worker *w)
{
	switch (rng_below(&w->rng, 8)) {
	case 0: // over the mmap threshold: freeing unmaps
		return (128 << 10) + rng_below(&w->rng, 512 << 10);
	case 1:
		return 4096 + rng_below(&w->rng, 100 << 10);
	default:
		return 64 + rng_below(&w->rng, 8192);
	}
}

void op_malloc(struct worker *w)
{
	uint64_t size = random_size(w) & ~7ul;
	uint32_t gen;
	char *p = malloc(size), *q;

	if (!p)
		return;
	publish(w, "malloc", K_MALLOC, p, size);
	if (rng_one_in(&w->rng, 3)) {
		uint64_t bigger = size + (random_size(w) & ~7ul);

		gen = next_gen();
		pattern_fill((uint64_t *)p, size / 8, w->key, gen);
		q = realloc(p, bigger);
		if (!q) {
			free(p);
			return;
		}
		p = q;
		publish_again(w, "realloc", K_MALLOC, p, size, gen, 0);
	}
	free(p);
	if (rng_one_in(&w->rng, 200))
		malloc_trim(0);
	p = calloc(1, size); // likely the same address
	if (p)
		publish_again(w, "calloc", K_MALLOC, p, size, 0, 0);
	free(p);
}

// Many allocations at a time, one of them looked at: the arena grows and shrinks below.
void op_malloc_churn(struct worker *w)
{
	void *p[48];
	uint64_t size[48], pick = rng_below(&w->rng, 48);

	for (unsigned i = 0; i < 48; i++) {
		size[i] = random_size(w) & ~7ul;
		p[i] = malloc(size[i]);
		if (p[i])
			memset(p[i], 0xa5, size[i] < 256 ? size[i] : 256);
	}
	if (p[pick])
		publish(w, "malloc churn", K_MALLOC, p[pick], size[pick]);
	for (unsigned i = 0; i < 48; i++)
		free(p[i]);
}

static pthread_mutex_t brk_lock = PTHREAD_MUTEX_INITIALIZER;

// Takes memory at the break and gives it back when nobody moved the break since.
void op_brk(struct worker *w)
{
	uint64_t len = random_pages(w, 64);
	char *old, *at;
	bool raw = rng_one_in(&w->rng, 2);

	if (pthread_mutex_trylock(&brk_lock)) {
		usleep(100); // not to take the processor from whom we would wait for
		return;
	}
	old = sbrk(len + PAGE);
	if (old == (void *)-1)
		goto out;
	at = (char *)(((uint64_t)old + PAGE - 1) & ~(PAGE - 1));
	publish_again(w, "sbrk/zero", K_BRK, at, len, 0, 0);
	publish(w, "sbrk", K_BRK, at, len);
	if (sbrk(0) != old + len + PAGE) // malloc's main arena went on behind ours: it stays
		goto out;
	if (raw) {
		// Down and up again: the same addresses, zeroed.
		raw6(SYS_brk, (long)old, 0, 0, 0, 0, 0);
		raw6(SYS_brk, (long)(old + len + PAGE), 0, 0, 0, 0, 0);
	} else {
		sbrk(-(intptr_t)(len + PAGE));
		if (sbrk(len + PAGE) != old)
			goto out;
	}
	publish_again(w, raw ? "raw brk/zero" : "sbrk again/0", K_BRK, at, len, 0, 0);
	publish(w, "brk again", K_BRK, at, len);
	if (sbrk(0) == old + len + PAGE)
		sbrk(-(intptr_t)(len + PAGE));
out:
	pthread_mutex_unlock(&brk_lock);
}

void op_static(struct worker *w)
{
	uint64_t words = w->static_len / 8, first = rng_below(&w->rng, words - 16);
	uint64_t n = 8 + rng_below(&w->rng, words - first - 8);

	publish(w, ".bss", K_STATIC, w->static_buf + first, n * 8);
}
