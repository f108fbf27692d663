// SPDX-License-Identifier: MIT OR Apache-2.0
// Threads that come and go, with their stacks and thread control blocks read by
// the attachers: a join waits on a word of just that page.
#define _GNU_SOURCE
#include "layout.h"
#include "worker.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#define STACK_SIZE (256ul << 10)

struct visit {
	struct worker *w;
	unsigned words;
};

static void *visitor(void *arg)
{
	struct visit *v = arg;
	uint64_t local[v->words];
	struct ask tcb = { "stack: tcb", K_STACK, REQ_TOUCH, next_gen(),
			   (void *)((uint64_t)pthread_self() & ~(PAGE - 1)), PAGE };

	publish(v->w, "stack", K_STACK, local, sizeof(local));
	ask_start(v->w, &tcb); // still going on when this thread ends
	return NULL;
}

void op_thread(struct worker *w)
{
	struct visit v = { w, 512 + rng_below(&w->rng, 8192) };
	uint64_t at = slice_of(w->id, SLICE_BUF) + (32ul << 20);
	bool own = rng_one_in(&w->rng, 2);
	struct timespec until;
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	pthread_attr_init(&attr);
	if (own && vm_libc.map(at, STACK_SIZE, false))
		pthread_attr_setstack(&attr, (void *)at, STACK_SIZE);
	else
		own = false;
	r = pthread_create(&thread, &attr, visitor, &v);
	pthread_attr_destroy(&attr);
	if (!r) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += 40; // the visit itself may be slow
		r = pthread_timedjoin_np(thread, NULL, &until);
		if (r) {
			fail_note(w->mb, F_WAKE, K_STACK, "join of a thread whose stack was promoted: %s",
				  strerror(r));
			pthread_join(thread, NULL);
		}
		ask_wait(w);
		stat_add(&w->mb->stats.joins, 1);
	}
	if (own)
		vm_libc.unmap(at, STACK_SIZE);
}
