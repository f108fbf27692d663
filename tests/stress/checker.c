// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "checker.h"

#include "guard.h"
#include "pattern.h"
#include "window.h"

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// How long a wrong word may take to become right. Where being late is reported
// and not failed, time enough that a starved machine is not taken for never.
#define PATIENCE_US 300000
#define PATIENCE_LATE_US 3000000
#define NONE ((size_t)-1)

// One piece of a request: consecutive words behind one window.
struct piece {
	volatile uint64_t *mem;
	size_t first, words; // word numbers within the request
};

static bool ignorable(const struct checker *c)
{
	return owner_gone(c->mb, c->epoch);
}

// The number, counted over the attachers asked, of this one: who answers which word.
static unsigned rank_of(const struct checker *c, const struct request *rq)
{
	return __builtin_popcount(rq->want & ((1u << c->self) - 1));
}

static bool mine(const struct checker *c, const struct request *rq, size_t index)
{
	unsigned n = __builtin_popcount(rq->want);

	return !(rq->flags & REQ_ANSWER) || index < rq->len / 16 || index % n == rank_of(c, rq);
}

static uint64_t expected(const struct request *rq, size_t index)
{
	return rq->flags & REQ_ZERO ? 0 : pattern_word(rq->key, rq->gen, 0, index);
}

// First wrong word of the piece, as a word number of the request.
static size_t scan(const struct checker *c, const struct request *rq, const struct piece *p)
{
	for (size_t i = 0; i < p->words; i++)
		if (p->mem[i] != expected(rq, p->first + i) && mine(c, rq, p->first + i))
			return p->first + i;
	return NONE;
}

static void note_signal(struct checker *c, const struct request *rq, const char *doing)
{
	if (!ignorable(c))
		fail_note(c->mb, F_SIGNAL, rq->klass, "%s: signal %d while %s %#lx+%#lx gen %u seq %u by attacher %u at %#lx",
			  rq->op, guard.signo, doing, rq->addr, rq->len, rq->gen, rq->seq, c->self,
			  guard.addr);
}

// A wrong word was met: what is it, and does it become right by itself?
static void judge(struct checker *c, const struct request *rq, const struct piece *p, size_t index)
{
	uint64_t patience = rq->klass == K_RAW_X ? PATIENCE_LATE_US : PATIENCE_US;
	uint64_t want = expected(rq, index), start = now_us(), got, healed = 0;
	volatile uint64_t *at = p->mem + (index - p->first);
	enum fail f;

	got = *at;
	while (now_us() - start < patience) {
		if (scan(c, rq, p) == NONE) {
			healed = now_us() - start + 1;
			break;
		}
		usleep(200);
	}
	if (healed) {
		stat_add(&c->mb->stats.late[rq->klass], 1);
		if (healed > atomic_load(&c->mb->stats.late_max_us))
			atomic_store(&c->mb->stats.late_max_us, healed);
		if (rq->klass == K_RAW_X) // the documented remainder: reported, not failed
			return;
	}
	f = pattern_gen(got) && pattern_gen(got) < rq->gen ? F_STALE : F_GARBAGE;
	fail_note(c->mb, f, rq->klass,
		  "%s: %#lx+%#lx word %zu of gen %u seq %u is %016lx, must be %016lx (attacher %u, flags %#x, %s%lu us)",
		  rq->op, rq->addr, rq->len, index, rq->gen, rq->seq, got, want, c->self, rq->flags,
		  healed ? "right after " : "still wrong after ",
		  healed ? healed : now_us() - start);
}

static void verify_piece(struct checker *c, const struct request *rq, const struct piece *p)
{
	size_t bad;

	if (!GUARDED()) {
		note_signal(c, rq, "checking");
		return;
	}
	bad = scan(c, rq, p);
	if (bad != NONE)
		judge(c, rq, p, bad);
	guard_off();
	stat_add(&c->mb->stats.bytes, p->words * 8);
}

static void answer_piece(struct checker *c, const struct request *rq, const struct piece *p)
{
	if (!GUARDED()) {
		note_signal(c, rq, "answering");
		return;
	}
	for (size_t i = 0; i < p->words; i++) {
		size_t index = p->first + i;

		if (index >= rq->len / 16 && mine(c, rq, index))
			p->mem[i] = pattern_word(rq->key, rq->gen, c->self + 1, index);
	}
	guard_off();
	stat_add(&c->mb->stats.answers, 1);
}

static void hole_piece(struct checker *c, const struct request *rq, const struct piece *p)
{
	for (volatile size_t i = 0; i < p->words; i += PAGE / 8) {
		uint64_t got;

		// A long hole by samples: each touch is a round trip to the owner.
		if (p->words > 4 * PAGE / 8 && rng_below(&c->rng, p->words / (PAGE / 8)) >= 4)
			continue;
		if (!GUARDED()) {
			if (guard.signo != SIGBUS && !ignorable(c))
				note_signal(c, rq, "touching the hole");
			continue;
		}
		got = p->mem[i];
		guard_off();
		if (ignorable(c))
			return;
		fail_note(c->mb, pattern_gen(got) ? F_STALE : F_NO_SIGBUS, rq->klass,
			  "%s: hole %#lx+%#lx seq %u read as %016lx at word %zu (attacher %u)", rq->op,
			  rq->addr, rq->len, rq->seq, got, p->first + i, c->self);
		return;
	}
	stat_add(&c->mb->stats.holes, 1);
}

static void touch_piece(struct checker *c, const struct request *rq, const struct piece *p)
{
	for (volatile size_t i = 0; i < p->words; i += PAGE / 8) {
		if (!GUARDED()) {
			note_signal(c, rq, "touching");
			return;
		}
		(void)p->mem[i];
		guard_off();
	}
}

// Plain system calls read attached memory that was touched before.
static void syscall_piece(struct checker *c, const struct request *rq, const struct piece *p)
{
	char sink[PAGE];
	size_t n = p->words * 8 < PAGE ? p->words * 8 : PAGE;
	ssize_t done = write(c->null_fd, (const void *)p->mem, n);

	if (done < 0 && errno == EFAULT && !ignorable(c))
		fail_note(c->mb, F_EFAULT, rq->klass,
			  "%s: attacher %u: write(2) from checked memory %#lx: EFAULT", rq->op, c->self,
			  rq->addr);
	if (done > 0 && (read(c->null_rd, sink, done) != done || memcmp(sink, (const void *)p->mem, done)))
		if (!ignorable(c) && !(rq->flags & REQ_ANSWER))
			fail_note(c->mb, F_GARBAGE, rq->klass, "%s: write(2) carried other bytes", rq->op);
}

static void count_piece(struct checker *c, const struct request *rq, const struct piece *p,
			_Atomic uint32_t *progress)
{
	volatile uint64_t *own = &p->mem[CW_ATTACHER + c->self];
	_Atomic uint64_t *shared = (_Atomic uint64_t *)&p->mem[CW_ATOMIC];

	if (!GUARDED()) {
		note_signal(c, rq, "counting in");
		return;
	}
	for (unsigned i = 0; i < COUNT_ROUNDS; i++) {
		atomic_fetch_add(shared, 1);
		atomic_fetch_add_explicit(progress, 1, memory_order_relaxed);
		*own = *own + 1;
	}
	if (*own != COUNT_ROUNDS)
		fail_note(c->mb, F_LOST, rq->klass, "%s: attacher %u's own word is %lu after %u increments",
			  rq->op, c->self, *own, COUNT_ROUNDS);
	guard_off();
	stat_add(&c->mb->stats.counts, COUNT_ROUNDS);
}

static void sem_piece(struct checker *c, const struct request *rq, const struct piece *p,
		      _Atomic uint32_t *progress)
{
	sem_t *sem = (sem_t *)p->mem;

	if (!GUARDED()) {
		note_signal(c, rq, "using the semaphore in");
		return;
	}
	(void)p->mem[0]; // present from here on: a futex call must not be the first touch
	for (unsigned i = 0; i < POST_ROUNDS; i++) {
		struct timespec until;

		if (rq->flags & REQ_POST) {
			sem_post(sem);
		} else {
			clock_gettime(CLOCK_REALTIME, &until);
			until.tv_sec += 20;
			while (sem_timedwait(sem, &until)) {
				int value = 0;

				if (errno == EINTR)
					continue;
				sem_getvalue(sem, &value);
				if (!ignorable(c))
					fail_note(c->mb, value > 0 ? F_WAKE : F_LOST, rq->klass,
						  "%s: attacher %u waited 20 s, value %d, errno %d", rq->op,
						  c->self, value, errno);
				guard_off();
				return;
			}
		}
		atomic_fetch_add_explicit(progress, 1, memory_order_relaxed);
	}
	guard_off();
	stat_add(&c->mb->stats.posts, POST_ROUNDS);
}

static void serve_piece(struct checker *c, const struct request *rq, const struct piece *p,
			_Atomic uint32_t *progress)
{
	if (rq->flags & REQ_TOUCH)
		touch_piece(c, rq, p);
	if (rq->flags & (REQ_VERIFY | REQ_ZERO))
		verify_piece(c, rq, p);
	if (rq->flags & REQ_ANSWER)
		answer_piece(c, rq, p);
	if (rq->flags & REQ_HOLE)
		hole_piece(c, rq, p);
	if (rq->flags & REQ_SYSCALL)
		syscall_piece(c, rq, p);
	if (rq->flags & REQ_COUNT)
		count_piece(c, rq, p, progress);
	if (rq->flags & (REQ_POST | REQ_WAIT))
		sem_piece(c, rq, p, progress);
}

void check_request(struct checker *c, const struct request *rq, _Atomic uint32_t *progress)
{
	uint64_t run;

	for (uint64_t off = 0; off < rq->len; off += run) {
		void *mem = window_at(c->mb, rq->addr + off, rq->len - off, &run);
		struct piece p = { mem, off / 8, 0 };

		if (!mem) { // noted, unless the owner is gone
			stat_add(&c->mb->stats.unreached, 1);
			return;
		}
		p.words = run / 8;
		serve_piece(c, rq, &p, progress);
	}
	stat_add(&c->mb->stats.checks, 1);
}

void check_stray(struct checker *c, uint64_t addr, uint64_t len)
{
	uint64_t run;
	volatile char *mem;

	if (!addr || len < 8)
		return;
	addr += rng_below(&c->rng, len) & ~7ul;
	window_may_fail = true;
	mem = window_at(c->mb, addr, 8, &run);
	window_may_fail = false;
	if (!mem)
		return;
	if (GUARDED()) {
		(void)*mem;
		guard_off();
	}
	stat_add(&c->mb->stats.strays, 1);
}

void check_tomb(struct checker *c, uint64_t addr)
{
	uint64_t run, start = now_us();
	volatile uint64_t *mem = window_at(c->mb, addr, 8, &run);

	if (!mem)
		return;
	if (GUARDED()) {
		uint64_t got = *mem;

		guard_off();
		fail_note(c->mb, F_NO_SIGBUS, K_LIBC, "memory of a dead owner read as %016lx by attacher %u",
			  got, c->self);
	} else if (guard.signo != SIGBUS) {
		fail_note(c->mb, F_SIGNAL, K_LIBC, "a dead owner's memory: signal %d", guard.signo);
	}
	if (now_us() - start > 10000000)
		fail_note(c->mb, F_HANG, K_LIBC, "a dead owner's memory answered after %lu us",
			  now_us() - start);
}
