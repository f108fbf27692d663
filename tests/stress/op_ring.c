// SPDX-License-Identifier: MIT OR Apache-2.0
// io_uring writes into memory and reads from it while attachers have it. Its buffer is
// registered first and shared second, by a call that is met and by one that is not, or
// the other way round, or not registered at all; protection and fork flags change below it.
#define _GNU_SOURCE
#include "layout.h"
#include "pattern.h"
#include "ring.h"
#include "worker.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// More than what is shared at once with an attach, which would be refused.
#define LENGTH (320ul << 10)
#define PIECES 4
#define NRINGS 2

static struct ring rings[NRINGS];
static pthread_mutex_t busy[NRINGS] = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER };
static bool usable;

enum order { SHARED_FIRST, REGISTERED_MET, REGISTERED_RAW, NOT_REGISTERED, ORDERS };
static const char *const order_name[ORDERS] = { "ring, shared 1st", "ring, met", "ring, raw", "ring, plain" };

struct job {
	struct worker *w;
	struct ring *ring;
	uint64_t at, source;
	enum order order;
};

void op_ring_prepare(struct mailbox *mb)
{
	usable = direct_file >= 0;
	for (unsigned i = 0; usable && i < NRINGS; i++)
		usable = ring_open(&rings[i]);
	if (!usable)
		skip_note(mb, K_RING, direct_file < 0 ? "no direct reads, or pins cannot be told" : strerror(errno));
}

static bool lost(struct job *j, const char *what, int answer)
{
	fail_note(j->w->mb, F_LOST, K_RING, "%s: %s: %d", order_name[j->order], what, answer);
	return false;
}

static bool begin(struct job *j, bool into_memory)
{
	bool fixed = j->order != NOT_REGISTERED;
	struct transfer t[PIECES];

	for (unsigned i = 0; i < PIECES; i++) {
		uint64_t piece = i * (LENGTH / PIECES);

		t[i] = (struct transfer){ into_memory ? fixed ? IORING_OP_READ_FIXED : IORING_OP_READ :
						fixed ? IORING_OP_WRITE_FIXED : IORING_OP_WRITE,
					  direct_file, (void *)(j->at + piece), LENGTH / PIECES,
					  j->w->id * DIRECT_PART + piece };
	}
	return ring_begin(j->ring, t, PIECES) || lost(j, "submission", errno);
}

static bool finish(struct job *j, const char *what)
{
	int odd = 0;

	return !ring_finish(j->ring, PIECES, LENGTH / PIECES, &odd) || lost(j, what, odd);
}

// The buffer becomes the ring's; false where the machine will not have it.
static bool take(struct job *j, bool raw)
{
	long e = ring_register(j->ring, (void *)j->at, LENGTH, raw);

	if (e)
		skip_note(j->w->mb, K_RING, e == -ENOMEM ? "no memory may be registered" : "nothing can be registered");
	return !e;
}

// What ibv_fork_init and garbage collectors say of memory; the pages stay where they are.
static void unsettle(struct job *j)
{
	void *mem = (void *)j->at;

	if (rng_one_in(&j->w->rng, 2)) {
		madvise(mem, LENGTH, MADV_DONTFORK);
		madvise(mem, LENGTH, MADV_DOFORK);
	}
	if (rng_one_in(&j->w->rng, 2) &&
	    (mprotect(mem, LENGTH, PROT_READ) || mprotect(mem, LENGTH, PROT_READ | PROT_WRITE)))
		fail_note(j->w->mb, F_OWNER_MEM, K_RING, "mprotect: %m");
}

// The device takes what the attachers have written, and it stands in the file.
static void give(struct job *j)
{
	uint64_t *copy = (uint64_t *)j->source;
	uint32_t gen = next_gen();

	pattern_fill((uint64_t *)j->at, LENGTH / 8, j->w->key, gen);
	publish_again(j->w, order_name[j->order], K_RING, (void *)j->at, LENGTH, gen, REQ_ANSWER);
	if (!begin(j, false) || !finish(j, "a write"))
		return;
	if (pread(direct_file, copy, LENGTH, j->w->id * DIRECT_PART) != (ssize_t)LENGTH ||
	    memcmp(copy, (void *)j->at, LENGTH))
		lost(j, "what the device wrote to the file is not what is in memory", 0);
}

static void read_into(struct job *j)
{
	uint32_t gen = next_gen();
	struct ask touch = { "ring: touch", K_RING, REQ_TOUCH, gen, (void *)j->at, LENGTH };
	bool first = rng_one_in(&j->w->rng, 2), ok;

	if (!direct_store(j->w, (uint64_t *)j->source, LENGTH, gen))
		return;
	if (first)
		ask_start(j->w, &touch);
	ok = begin(j, true);
	if (!first)
		ask_start(j->w, &touch);
	if (j->order == SHARED_FIRST || j->order == REGISTERED_MET)
		unsettle(j);
	ok = ok && finish(j, "a read");
	// Until then the touch is waited with.
	if (j->order == REGISTERED_RAW)
		ring_unregister(j->ring);
	ask_wait(j->w);
	if (ok)
		publish_again(j->w, order_name[j->order], K_RING, (void *)j->at, LENGTH, gen, 0);
}

static void run(struct job *j)
{
	bool known = j->order != NOT_REGISTERED;

	pattern_fill((uint64_t *)j->at, LENGTH / 8, j->w->key, next_gen());
	if (j->order == SHARED_FIRST)
		publish(j->w, order_name[j->order], K_RING, (void *)j->at, LENGTH);
	if (known && !take(j, j->order == REGISTERED_RAW))
		return;
	read_into(j);
	if (j->order == REGISTERED_RAW)
		return;
	if (known && rng_one_in(&j->w->rng, 2))
		read_into(j);
	give(j);
	if (known)
		ring_unregister(j->ring);
}

void op_ring(struct worker *w)
{
	unsigned n = rng_below(&w->rng, NRINGS);
	struct job j = { .w = w,
			 .ring = &rings[n],
			 .at = slice_of(w->id, SLICE_BUF) + (44ul << 20),
			 .source = slice_of(w->id, SLICE_BUF) + (48ul << 20),
			 .order = rng_below(&w->rng, ORDERS) };

	if (!usable || pthread_mutex_trylock(&busy[n])) {
		usleep(100);
		return;
	}
	if (vm_libc.map(j.at, LENGTH, false)) {
		if (vm_libc.map(j.source, LENGTH, false)) {
			run(&j);
			vm_libc.unmap(j.source, LENGTH);
		}
		vm_libc.unmap(j.at, LENGTH);
	}
	pthread_mutex_unlock(&busy[n]);
}
