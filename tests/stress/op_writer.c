// SPDX-License-Identifier: MIT OR Apache-2.0
// A third process writes generation after generation into memory that attachers
// touch for the first time.
#define _GNU_SOURCE
#include "layout.h"
#include "pattern.h"
#include "worker.h"
#include "writer.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

// At most so many generations: it ends by itself then.
#define ROUNDS 64

static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;

static void run(struct worker *w, uint64_t at, uint64_t len)
{
	struct writer_box *box = &w->mb->writer;
	struct ask touch = { "writer: touch", K_WRITER, REQ_TOUCH, 0, (void *)at, len };
	uint32_t before = next_gen(), first = next_gens(ROUNDS), job;

	touch.gen = first;
	pattern_fill((uint64_t *)at, len / 8, w->key, before);
	box->addr = at;
	box->len = len;
	box->key = w->key;
	box->first = first;
	box->rounds = ROUNDS;
	atomic_store(&box->gen, 0);
	atomic_store(&box->stop, 0);
	job = atomic_fetch_add(&box->wanted, 1) + 1;
	futex_wake_all(&box->wanted);
	usleep(rng_below(&w->rng, 400));
	ask_start(w, &touch);
	ask_wait(w);
	usleep(rng_below(&w->rng, 200));
	atomic_store(&box->stop, 1);
	for (uint32_t done; (done = atomic_load(&box->done)) != job;)
		futex_wait_ms(&box->done, done, 100);
	if (box->error == EPERM)
		skip_note(w->mb, K_WRITER, "another process may not write to this one");
	else if (box->error)
		fail_note(w->mb, F_EFAULT, K_WRITER, "process_vm_writev to %#lx+%#lx: %s", at, len, strerror(box->error));
	else
		publish_again(w, "writer", K_WRITER, (void *)at, len, atomic_load(&box->gen), 0);
}

void op_writer(struct worker *w)
{
	uint64_t at = slice_of(w->id, SLICE_BUF) + (52ul << 20), len = random_pages(w, 128);

	if (!writer_is_there() || w->mb->stats.skipped[K_WRITER] || pthread_mutex_trylock(&one)) {
		usleep(100); // not to take the processor from whom we would wait for
		return;
	}
	if (vm_libc.map(at, len, false)) {
		run(w, at, len);
		vm_libc.unmap(at, len);
	}
	pthread_mutex_unlock(&one);
}
