// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "worker.h"

#include "pattern.h"

#include <string.h>
#include <unistd.h>

const char *const inject_name[] = { "none", "stale", "lost", "wake", "fd", "proc", "memory", "crash" };

static _Atomic uint32_t generation = 1;

uint32_t next_gen(void)
{
	return atomic_fetch_add(&generation, 1);
}

uint32_t next_gens(uint32_t n)
{
	return atomic_fetch_add(&generation, n);
}

uint64_t random_pages(struct worker *w, unsigned max)
{
	unsigned n = rng_one_in(&w->rng, 64) ? max : rng_one_in(&w->rng, 4) ? 48 : 6;

	if (n > max)
		n = max;
	return (1 + rng_below(&w->rng, n)) * PAGE;
}

// Mostly one attacher, at times all: what they do side by side is of interest too.
static uint32_t choose(struct worker *w, uint32_t incarnation[NATTACHERS])
{
	uint32_t ready = 0, want = 0;

	for (unsigned a = 0; a < NATTACHERS; a++) {
		incarnation[a] = atomic_load(&w->mb->attacher[a].incarnation);
		if (incarnation[a] && atomic_load(&w->mb->attacher[a].ready_epoch) == w->epoch)
			ready |= 1u << a;
	}
	if (rng_one_in(&w->rng, 8))
		return ready;
	for (unsigned tries = 0; ready && !want && tries < 64; tries++)
		want |= 1u << rng_below(&w->rng, NATTACHERS) & ready;
	if (rng_one_in(&w->rng, 4))
		want |= 1u << rng_below(&w->rng, NATTACHERS) & ready;
	return want;
}

void ask_start(struct worker *w, const struct ask *a)
{
	struct slot *s = w->slot;

	// Odd while it is written: who was not wanted in the last request may just be reading.
	atomic_fetch_or(&s->seq, 1);
	s->want = choose(w, s->incarnation);
	s->flags = a->flags;
	s->klass = a->klass;
	s->gen = a->gen;
	s->addr = (uint64_t)a->mem;
	s->len = a->len;
	s->key = w->key;
	strncpy(s->op_name, a->op, sizeof(s->op_name) - 1);
	for (unsigned i = 0; i < NATTACHERS; i++)
		atomic_store(&s->result[i], 0);
	atomic_fetch_add_explicit(&s->seq, 1, memory_order_release);
	for (unsigned i = 0; i < NATTACHERS; i++) {
		_Atomic uint32_t *bell = &w->mb->attacher[i].bell[w->id % ATTACHER_THREADS];

		if (s->want >> i & 1) {
			atomic_fetch_add(bell, 1);
			futex_wake_all(bell);
		}
	}
}

uint32_t ask_wait(struct worker *w)
{
	struct slot *s = w->slot;
	uint32_t seq = atomic_load(&s->seq);

	for (;;) {
		uint32_t acks = atomic_load(&s->acks), open = 0, done = 0;

		for (unsigned a = 0; a < NATTACHERS; a++) {
			if (!(s->want >> a & 1))
				continue;
			if (atomic_load_explicit(&s->ack[a], memory_order_acquire) == seq)
				done |= 1u << a;
			else if (atomic_load(&w->mb->attacher[a].incarnation) == s->incarnation[a])
				open |= 1u << a;
		}
		if (!open)
			return done;
		futex_wait_ms(&s->acks, acks, 50);
	}
}

static void check_answers(struct worker *w, const struct ask *a, uint32_t done)
{
	const volatile uint64_t *mem = a->mem;
	uint32_t want = w->slot->want;
	unsigned rank = 0, n = __builtin_popcount(want);

	for (unsigned at = 0; at < NATTACHERS; at++) {
		if (!(want >> at & 1))
			continue;
		for (size_t i = a->len / 16; (done >> at & 1) && i < a->len / 8; i++)
			if (i % n == rank && mem[i] != pattern_word(w->key, a->gen, at + 1, i)) {
				fail_note(w->mb, F_LOST, a->klass,
					  "%s: %p+%#lx word %zu gen %u seq %u: attacher %u answered, the owner reads %016lx",
					  a->op, a->mem, a->len, i, a->gen, atomic_load(&w->slot->seq), at, mem[i]);
				break;
			}
		rank++;
	}
}

uint32_t ask_and_wait(struct worker *w, const struct ask *a)
{
	uint32_t done;

	ask_start(w, a);
	done = ask_wait(w);
	if (a->flags & REQ_ANSWER)
		check_answers(w, a, done);
	if (done) {
		stat_add(&w->mb->stats.steps, 1);
		stat_add(&w->mb->stats.per_klass[a->klass], 1);
	} else {
		stat_add(&w->mb->stats.unchecked, 1);
		usleep(500);
	}
	atomic_fetch_add_explicit(&w->slot->beat, 1, memory_order_relaxed);
	return done;
}

bool own_view(struct worker *w, const char *op, enum klass k, const void *mem, uint64_t len, uint32_t gen)
{
	const volatile uint64_t *words = mem;

	for (size_t i = 0; i < len / 8; i++) {
		uint64_t must = gen ? pattern_word(w->key, gen, 0, i) : 0;

		if (words[i] == must)
			continue;
		fail_note(w->mb, F_OWNER_MEM, k, "%s: the owner's %p+%#lx word %zu is %016lx, must be %016lx",
			  op, mem, len, i, words[i], must);
		return false;
	}
	return true;
}

uint32_t publish_again(struct worker *w, const char *op, enum klass k, void *mem, uint64_t len, uint32_t gen,
		       uint32_t extra)
{
	struct ask a = { op, k, REQ_VERIFY | extra, gen, mem, len };
	uint32_t done;

	if (!gen)
		a.flags = REQ_ZERO | extra;
	if (rng_one_in(&w->rng, 16))
		a.flags |= REQ_SYSCALL;
	done = ask_and_wait(w, &a);
	// The first half is nobody's but the owner's to change.
	if (own_view(w, op, k, mem, len / 16 * 8, gen) && !(a.flags & REQ_ANSWER))
		own_view(w, op, k, mem, len, gen);
	return done;
}

uint32_t publish(struct worker *w, const char *op, enum klass k, void *mem, uint64_t len)
{
	uint32_t gen = next_gen();

	pattern_fill(mem, len / 8, w->key, gen);
	// Over a late revocation an answer would go to the page that is gone: the
	// raw cross-thread class asks no answers, its remainder is about reads.
	return publish_again(w, op, k, mem, len, gen,
		      k != K_RAW_X && len >= 64 && rng_one_in(&w->rng, 2) ? REQ_ANSWER : 0);
}
