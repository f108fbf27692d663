// SPDX-License-Identifier: MIT OR Apache-2.0
// An attacher process: two threads over one set of windows, one owner after another.
#define _GNU_SOURCE
#include "attacher.h"

#include "checker.h"
#include "guard.h"
#include "leaks.h"
#include "window.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STRAY_ONE_IN 6
#define SLOT_POLLS 24 // rounds over the slots before sleeping on the bell

struct lane {
	struct checker c;
	unsigned number; // serves the slots with slot % ATTACHER_THREADS == number
	uint32_t incarnation;
	uint32_t last[NWORKERS];
	bool stop_on_stop;
	pthread_t thread;
};

static bool lane_over(struct lane *l)
{
	struct mailbox *mb = l->c.mb;
	uint32_t state = atomic_load(&mb->owner.state);

	return atomic_load(&mb->owner.epoch) != l->c.epoch || state == OWNER_QUIESCED ||
	       state == OWNER_DEAD || (atomic_load(&mb->stop) && state != OWNER_READY);
}

// Takes the request of slot `n` when it is new and meant for this process.
static bool take(struct lane *l, unsigned n, struct request *rq)
{
	struct slot *s = &l->c.mb->slot[n];
	uint32_t seq = atomic_load_explicit(&s->seq, memory_order_acquire);

	if (seq == l->last[n] || seq & 1)
		return false;
	*rq = (struct request){ seq, s->flags, s->klass, s->want, s->gen, s->addr, s->len, s->key, "" };
	memcpy(rq->op, s->op_name, sizeof(rq->op));
	rq->op[sizeof(rq->op) - 1] = 0;
	atomic_thread_fence(memory_order_acquire);
	if (atomic_load(&s->seq) != seq || atomic_load(&l->c.mb->owner.epoch) != l->c.epoch)
		return false;
	l->last[n] = seq;
	return rq->want >> l->c.self & 1 && s->incarnation[l->c.self] == l->incarnation;
}

static bool serve_slots(struct lane *l)
{
	struct mailbox *mb = l->c.mb;
	bool any = false;

	for (unsigned n = l->number; n < NWORKERS; n += ATTACHER_THREADS) {
		struct slot *s = &mb->slot[n];
		struct request rq;

		if (!take(l, n, &rq))
			continue;
		any = true;
		check_request(&l->c, &rq, &s->result[l->c.self]);
		atomic_store_explicit(&s->ack[l->c.self], rq.seq, memory_order_release);
		atomic_fetch_add(&s->acks, 1);
		futex_wake_all(&s->acks);
	}
	return any;
}

static void stray(struct lane *l)
{
	struct mailbox *mb = l->c.mb;
	struct slot *s = &mb->slot[rng_below(&l->c.rng, NWORKERS)];

	switch (rng_below(&l->c.rng, 8)) {
	case 0:
		check_stray(&l->c, mb->owner.stack[rng_below(&l->c.rng, NWORKERS)], PAGE);
		break;
	case 1:
		check_stray(&l->c, mb->owner.bss, mb->owner.bss_len);
		break;
	default:
		// Whatever the others work on: between their unmap and their map too.
		check_stray(&l->c, s->addr & ~7ul, s->len);
	}
}

static void *lane_run(void *arg)
{
	struct lane *l = arg;
	struct attacher_box *box = &l->c.mb->attacher[l->c.self];
	unsigned idle = 0;

	window_lane = l->number;
	while (!lane_over(l)) {
		uint32_t bell = atomic_load(&box->bell[l->number]);

		atomic_fetch_add_explicit(&box->beat[l->number], 1, memory_order_relaxed);
		idle = serve_slots(l) ? 0 : idle + 1;
		if (rng_one_in(&l->c.rng, STRAY_ONE_IN))
			stray(l);
		if (idle > SLOT_POLLS) {
			futex_wait_ms(&box->bell[l->number], bell, 20);
			idle = 0;
		}
	}
	return NULL;
}

static void wait_for_owner(struct mailbox *mb, struct attacher_box *box, uint32_t done_epoch)
{
	while (!atomic_load(&mb->stop)) {
		for (unsigned t = 0; t < ATTACHER_THREADS; t++)
			atomic_fetch_add(&box->beat[t], 1);
		if (atomic_load(&mb->owner.state) == OWNER_READY && atomic_load(&mb->owner.epoch) != done_epoch)
			return;
		usleep(2000);
	}
}

// One owner from its first window to the last.
static void serve_owner(struct mailbox *mb, struct lane *lanes, unsigned self, int plain_fd)
{
	static const enum window_style styles[NATTACHERS] = { WIN_VADER, WIN_VADER, WIN_GIANT, WIN_EXACT };
	uint32_t epoch = atomic_load(&mb->owner.epoch);
	struct attacher_box *box = &mb->attacher[self];
	uint64_t tomb = mb->owner.tomb, run;

	if (windows_open(mb, plain_fd >= 0 ? WIN_PLAIN : styles[self], epoch, plain_fd)) {
		// Its window now, its first touch when the owner is dead.
		if (tomb && !window_at(mb, tomb, 8, &run))
			tomb = 0;
		for (unsigned t = 0; t < ATTACHER_THREADS; t++) {
			lanes[t].c.epoch = epoch;
			for (unsigned n = 0; n < NWORKERS; n++)
				lanes[t].last[n] = atomic_load(&mb->slot[n].seq);
		}
		atomic_store(&box->ready_epoch, epoch);
		for (unsigned t = 1; t < ATTACHER_THREADS; t++)
			pthread_create(&lanes[t].thread, NULL, lane_run, &lanes[t]);
		lane_run(&lanes[0]);
		for (unsigned t = 1; t < ATTACHER_THREADS; t++)
			pthread_join(lanes[t].thread, NULL);
		if (tomb && atomic_load(&mb->owner.state) == OWNER_DEAD &&
		    atomic_load(&mb->owner.epoch) == epoch)
			check_tomb(&lanes[0].c, tomb);
	}
	windows_close(mb);
	atomic_store(&box->ready_epoch, 0);
}

int attacher_main(struct mailbox *mb, unsigned self, uint32_t incarnation, int plain_fd)
{
	struct attacher_box *box = &mb->attacher[self];
	struct lane lanes[ATTACHER_THREADS];
	struct footprint first = { 0 }, last;
	uint32_t done_epoch = 0;
	unsigned owners = 0;
	int fds[2];

	guard_install(NULL);
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
		return 1;
	fcntl(fds[1], F_SETPIPE_SZ, 1 << 16);
	memset(lanes, 0, sizeof(lanes));
	for (unsigned t = 0; t < ATTACHER_THREADS; t++) {
		int p[2];

		// A pipe a lane: what one wrote is what the same one reads back.
		if (t && pipe2(p, O_CLOEXEC | O_NONBLOCK))
			return 1;
		lanes[t].c = (struct checker){ .mb = mb,
					       .self = self,
					       .rng = { mix64(mb->seed ^ (incarnation * 64ull + self * 8 + t)) },
					       .null_fd = t ? p[1] : fds[1],
					       .null_rd = t ? p[0] : fds[0] };
		lanes[t].number = t;
		lanes[t].incarnation = incarnation;
	}
	while (wait_for_owner(mb, box, done_epoch), !atomic_load(&mb->stop)) {
		done_epoch = atomic_load(&mb->owner.epoch);
		serve_owner(mb, lanes, self, plain_fd);
		// Growth from owner to owner is a leak; what the first one left is the price of entry.
		if (++owners == 1)
			footprint_take(&first);
	}
	footprint_take(&last);
	if (owners > 1)
		footprint_compare(mb, "attacher", &first, &last);
	return 0;
}
