// SPDX-License-Identifier: MIT OR Apache-2.0
// One thread lets an address go while another waits for it: the address is
// taken, filled and published as soon as the kernel gives it out again.
#define _GNU_SOURCE
#include "layout.h"
#include "pattern.h"
#include "worker.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

struct handover {
	struct worker *w;
	const struct vmops *vm;
	enum klass k;
	uint64_t at, len;
	_Atomic uint32_t ready;
	bool taken;
};

// One pair a slice.
static pthread_mutex_t slice_lock[4] = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER,
					 PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER };

// The partner: asks for the address again and again, and publishes in the name
// of the worker, who publishes nothing until this has ended.
static void take_over(void *arg)
{
	struct handover *h = arg;
	struct ask a = { "hand-over", h->k, REQ_VERIFY, next_gen(), (void *)h->at, h->len };

	atomic_store(&h->ready, 1);
	for (unsigned tries = 0; !h->taken && tries < 2000000; tries++)
		h->taken = h->vm->map(h->at, h->len, false);
	if (!h->taken)
		return;
	pattern_fill((void *)h->at, h->len / 8, h->w->key, a.gen);
	ask_and_wait(h->w, &a);
	own_view(h->w, a.op, h->k, (void *)h->at, h->len, a.gen);
}

static void hand_over(struct worker *w, unsigned slice, bool raw)
{
	struct handover h = { .w = w,
			      .vm = raw ? &vm_raw : &vm_libc,
			      .k = raw ? K_RAW_X : K_LIBC_X,
			      .at = slice_cross(slice),
			      .len = (1 + rng_below(&w->rng, 4)) * PAGE };
	struct mate *m;

	if (!h.vm->map(h.at, h.len, false)) {
		fail_note(w->mb, F_OWNER_MEM, h.k, "mmap of the shared slice refused: %m");
		return;
	}
	publish(w, "before hand-over", h.k, (void *)h.at, h.len);
	m = mate_start(take_over, &h);
	if (m)
		while (!atomic_load(&h.ready))
			sched_yield();
	if (!h.vm->unmap(h.at, h.len))
		fail_note(w->mb, F_OWNER_MEM, h.k, "munmap of the shared slice: %m");
	if (m)
		mate_wait(m);
	if (h.taken)
		h.vm->unmap(h.at, h.len);
}

// The same where the kernel chooses the address: the partner may or may not get it.
struct anywhere {
	struct worker *w;
	uint64_t len;
	_Atomic uint32_t ready;
};

static void take_anywhere(void *arg)
{
	struct anywhere *h = arg;
	struct ask a = { "any address", K_LIBC_X, REQ_VERIFY, next_gen(), NULL, h->len };
	void *mem = MAP_FAILED;

	atomic_store(&h->ready, 1);
	for (unsigned i = 0; i < 8; i++) {
		if (mem != MAP_FAILED)
			munmap(mem, h->len);
		mem = mmap(NULL, h->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	}
	if (mem == MAP_FAILED)
		return;
	pattern_fill(mem, h->len / 8, h->w->key, a.gen);
	a.mem = mem;
	ask_and_wait(h->w, &a);
	own_view(h->w, a.op, K_LIBC_X, mem, h->len, a.gen);
	munmap(mem, h->len);
}

static void anywhere(struct worker *w)
{
	struct anywhere h = { .w = w, .len = (1 + rng_below(&w->rng, 64)) * PAGE };
	void *mem = mmap(NULL, h.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct mate *m;

	if (mem == MAP_FAILED)
		return;
	publish(w, "any address", K_LIBC_X, mem, h.len);
	m = mate_start(take_anywhere, &h);
	if (m)
		while (!atomic_load(&h.ready))
			sched_yield();
	munmap(mem, h.len);
	if (m)
		mate_wait(m);
}

void op_cross(struct worker *w)
{
	unsigned slice = rng_below(&w->rng, 4);

	if (!(w->classes & 1u << (slice & 1 ? K_RAW_X : K_LIBC_X)))
		return;
	if (w->classes & 1u << K_LIBC_X && rng_one_in(&w->rng, 3)) {
		anywhere(w);
		return;
	}
	if (pthread_mutex_trylock(&slice_lock[slice])) {
		usleep(100); // not to take the processor from whom we would wait for
		return;
	}
	hand_over(w, slice, slice & 1); // a slice has one kind of call for ever
	pthread_mutex_unlock(&slice_lock[slice]);
}
