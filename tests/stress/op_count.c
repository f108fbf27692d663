// SPDX-License-Identifier: MIT OR Apache-2.0
// Both sides count in one page while it is promoted for the first time: atomic
// increments of a common word, plain increments of words each has to itself.
#define _GNU_SOURCE
#include "layout.h"
#include "worker.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

struct counting {
	volatile uint64_t *words;
	unsigned word;
	_Atomic uint32_t stop, running;
	uint64_t atomics, plains;
	enum inject inject;
};

static void count_a_little(struct counting *c)
{
	_Atomic uint64_t *common = (_Atomic uint64_t *)&c->words[CW_ATOMIC];

	for (unsigned i = 0; i < 64; i++) {
		atomic_fetch_add(common, 1);
		c->atomics++;
		c->words[c->word] = c->words[c->word] + 1;
		c->plains++;
	}
	if (c->inject == INJECT_LOST) {
		uint64_t seen = c->words[CW_ATOMIC];

		usleep(50);
		c->words[CW_ATOMIC] = seen; // what a careless copy during promotion would do
	}
}

static void count_job(void *arg)
{
	struct counting *c = arg;

	atomic_store(&c->running, 1);
	while (!atomic_load_explicit(&c->stop, memory_order_relaxed))
		count_a_little(c);
}

static bool somebody_counts(struct worker *w)
{
	struct slot *s = w->slot;

	for (unsigned a = 0; a < NATTACHERS; a++)
		if (s->want >> a & 1 && atomic_load(&s->ack[a]) != atomic_load(&s->seq))
			return true;
	return false;
}

static void fork_and_wait(void)
{
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	while (child > 0 && waitpid(child, NULL, 0) < 0)
		;
}

static void compare(struct worker *w, struct counting *mine, struct counting *mates, uint32_t done)
{
	volatile uint64_t *words = mine->words;
	uint64_t sum = mine->atomics + mates->atomics, slack = 0;
	struct slot *s = w->slot;

	for (unsigned a = 0; a < NATTACHERS; a++) {
		sum += atomic_load(&s->result[a]);
		// One killed between its increment and the note of it may have one more.
		slack += (s->want & ~done) >> a & 1;
	}
	if (words[CW_ATOMIC] < sum || words[CW_ATOMIC] > sum + slack)
		fail_note(w->mb, F_LOST, K_LIBC, "count: %p holds %lu after %lu atomic increments",
			  (void *)words, words[CW_ATOMIC], sum);
	if (words[CW_WORKER] != mine->plains || words[CW_MATE] != mates->plains)
		fail_note(w->mb, F_LOST, K_LIBC, "count: %p: the owner's own words hold %lu, %lu after %lu, %lu increments",
			  (void *)words, words[CW_WORKER], words[CW_MATE], mine->plains, mates->plains);
	stat_add(&w->mb->stats.counts, sum);
}

void op_count(struct worker *w)
{
	const struct vmops *vm = w->plain ? &vm_plain : &vm_libc;
	uint64_t at = slice_of(w->id, SLICE_BUF) + (16ul << 20);
	bool heap = !w->plain && rng_one_in(&w->rng, 2), forks = !w->plain && w->classes & 1u << K_FORK && rng_one_in(&w->rng, 40);
	volatile uint64_t *words = heap ? aligned_alloc(64, PAGE) : vm->map(at, PAGE, false) ? (void *)at : NULL;
	struct counting mine = { .words = words, .word = CW_WORKER, .inject = w->inject };
	struct counting mates = { .words = words, .word = CW_MATE };
	struct ask a = { "count", K_LIBC, REQ_COUNT, next_gen(), (void *)words, PAGE };
	struct mate *m;
	uint32_t done;

	if (!words)
		return;
	for (unsigned i = 0; i < CW_WORDS; i++)
		words[i] = 0;
	m = mate_start(count_job, &mates);
	while (m && !atomic_load(&mates.running))
		;
	ask_start(w, &a);
	if (forks)
		fork_and_wait();
	// At times the partner counts alone: then the stop finds one thread running.
	if (!m || rng_one_in(&w->rng, 2))
		for (unsigned i = 0; i < 200 && somebody_counts(w); i++)
			count_a_little(&mine);
	done = ask_wait(w);
	atomic_store(&mates.stop, 1);
	if (m)
		mate_wait(m);
	compare(w, &mine, &mates, done);
	if (done) {
		stat_add(&w->mb->stats.steps, 1);
		stat_add(&w->mb->stats.per_klass[K_LIBC], 1);
	}
	atomic_fetch_add(&w->slot->beat, 1);
	if (heap)
		free((void *)words);
	else
		vm->unmap(at, PAGE);
}
