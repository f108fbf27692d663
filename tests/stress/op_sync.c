// SPDX-License-Identifier: MIT OR Apache-2.0
// Semaphores whose page is promoted under sleepers, posts across processes, and
// signals that must not get lost while threads are stopped.
#define _GNU_SOURCE
#include "op_sync.h"

#include "layout.h"
#include "worker.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_S 20

struct posting {
	sem_t *there, *back;
	unsigned rounds;
	enum inject inject;
};

// False when nothing came for so long that something must be lost.
static bool wait_for(struct worker *w, const char *op, sem_t *s, unsigned seconds)
{
	struct timespec until;
	int value = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += seconds;
	while (sem_timedwait(s, &until)) {
		if (errno == EINTR) {
			stat_add(&w->mb->stats.eintr, 1);
			continue;
		}
		sem_getvalue(s, &value);
		fail_note(w->mb, value > 0 ? F_WAKE : F_LOST, K_LIBC, "%s: waited %u s, value %d: %m", op,
			  seconds, value);
		return false;
	}
	return true;
}

static void post_job(void *arg)
{
	struct posting *p = arg;

	for (unsigned i = 0; i < p->rounds; i++) {
		while (sem_wait(p->there))
			;
		if (p->inject == INJECT_WAKE && i == 3) {
			usleep(20000);
			atomic_fetch_add((_Atomic uint64_t *)p->back, 1); // a post that wakes nobody
			p->inject = INJECT_NONE;
			continue;
		}
		sem_post(p->back);
	}
}

// Ping-pong with a partner thread while attachers touch the page.
static void between_threads(struct worker *w, sem_t *s)
{
	struct posting p = { s, s + 4, 24, INJECT_NONE };
	struct ask a = { "sem: touch", K_LIBC, REQ_TOUCH, next_gen(), s, PAGE };
	unsigned seconds = w->inject == INJECT_WAKE ? 2 : PATIENCE_S;
	struct mate *m;

	if (w->inject == INJECT_WAKE && rng_one_in(&w->rng, 20))
		p.inject = INJECT_WAKE;
	sem_init(p.there, 1, 0);
	sem_init(p.back, 1, 0);
	m = mate_start(post_job, &p);
	if (!m)
		return;
	for (unsigned i = 0; i < p.rounds; i++) {
		if (i == 4)
			ask_start(w, &a);
		sem_post(p.there);
		if (!wait_for(w, "sem ping-pong", p.back, seconds))
			i--; // a partner that was never heard of again would hang: the watchdog says so
	}
	ask_wait(w);
	mate_wait(m);
	stat_add(&w->mb->stats.posts, p.rounds);
}

static void with_attachers(struct worker *w, sem_t *s, bool they_post)
{
	struct ask a = { they_post ? "sem: they post" : "sem: they wait", K_LIBC,
			 they_post ? REQ_POST : REQ_WAIT, next_gen(), s, PAGE };
	unsigned n, whole;
	uint32_t done;

	sem_init(s, 1, 0);
	ask_start(w, &a);
	n = __builtin_popcount(w->slot->want) * POST_ROUNDS;
	if (!they_post) {
		for (unsigned i = 0; i < n; i++) {
			sem_post(s);
			if (rng_one_in(&w->rng, 3))
				usleep(20);
		}
		ask_wait(w);
		return;
	}
	// Sleep for the posts as long as they all live; the rest is counted after.
	for (unsigned i = 0; i < n; i++) {
		struct timespec until;
		int r;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += 2;
		while ((r = sem_timedwait(s, &until)) && errno == EINTR)
			;
		if (r) {
			done = ask_wait(w);
			if (done != w->slot->want)
				return; // somebody was killed: how many came is not known
			if (!wait_for(w, a.op, s, 1))
				return;
		}
	}
	done = ask_wait(w);
	whole = __builtin_popcount(done) * POST_ROUNDS;
	stat_add(&w->mb->stats.posts, whole);
}

void op_semaphore(struct worker *w)
{
	const struct vmops *vm = w->plain ? &vm_plain : &vm_libc;
	uint64_t at = slice_of(w->id, SLICE_BUF) + (24ul << 20);

	if (!vm->map(at, PAGE, false))
		return;
	switch (w->inject == INJECT_WAKE ? 0 : rng_below(&w->rng, 3)) {
	case 0:
		between_threads(w, (sem_t *)at);
		break;
	case 1:
		with_attachers(w, (sem_t *)at, true);
		break;
	case 2:
		with_attachers(w, (sem_t *)at, false);
		break;
	}
	atomic_fetch_add(&w->slot->beat, 1);
	vm->unmap(at, PAGE);
}

static _Atomic uint64_t signals_sent, signals_seen;

static void count_signal(int signo)
{
	(void)signo;
	atomic_fetch_add(&signals_seen, 1);
}

void signals_install(void)
{
	struct sigaction sa = { .sa_handler = count_signal, .sa_flags = SA_RESTART };

	sigaction(SIGRTMIN + 5, &sa, NULL);
}

// Queued signals to oneself: each must have arrived when the call is over.
void op_signal(struct worker *w)
{
	union sigval v = { 0 };

	for (unsigned i = 0; i < 4; i++)
		if (!pthread_sigqueue(pthread_self(), SIGRTMIN + 5, v))
			atomic_fetch_add(&signals_sent, 1);
	stat_add(&w->mb->stats.rt_signals, 4);
	atomic_fetch_add(&w->slot->beat, 1);
}

void signals_check(struct mailbox *mb)
{
	if (atomic_load(&signals_sent) != atomic_load(&signals_seen))
		fail_note(mb, F_LOST, K_LIBC, "%lu signals queued, %lu seen", atomic_load(&signals_sent),
			  atomic_load(&signals_seen));
}
