// SPDX-License-Identifier: MIT OR Apache-2.0
// One of the owner's churning threads, and how it talks to the attachers.
#ifndef STRESS_WORKER_H
#define STRESS_WORKER_H

#include "mailbox.h"
#include "rng.h"
#include "vmops.h"

#include <pthread.h>

// Faults put in on purpose, so that the checker is known to find them.
enum inject { INJECT_NONE, INJECT_STALE, INJECT_LOST, INJECT_WAKE, INJECT_FD, INJECT_PROC, INJECT_MEMORY, INJECT_CRASH };
extern const char *const inject_name[];

// A second thread that a worker may borrow for one job at a time.
struct mate;

struct worker {
	struct mailbox *mb;
	unsigned id;
	struct rng rng;
	struct slot *slot;
	uint32_t epoch;
	uint64_t key;
	uint64_t static_len;
	uint64_t *static_buf; // a piece of .bss of its own
	enum inject inject;
	bool plain;
	unsigned classes; // mask of enum klass that may run
	pthread_t thread;
};

// A generation no other publication of this owner has.
uint32_t next_gen(void);
// So many of them; answers the first.
uint32_t next_gens(uint32_t n);

// What a step asks of the attachers.
struct ask {
	const char *op;
	enum klass klass;
	uint32_t flags, gen;
	const void *mem;
	uint64_t len;
};

// Asks some of the attachers that are alive, and lets the worker go on meanwhile.
void ask_start(struct worker *w, const struct ask *a);

// Waits for them; answers the mask of those that finished (not of the killed).
uint32_t ask_wait(struct worker *w);

// Both, counts the step, and checks the answers when REQ_ANSWER asks for them.
uint32_t ask_and_wait(struct worker *w, const struct ask *a);

// Fills with the pattern of a new generation, asks to verify (with answers at
// random), and checks the owner's own view before and after. Answers as ask_and_wait.
uint32_t publish(struct worker *w, const char *op, enum klass k, void *mem, uint64_t len);

// The same without the filling: the memory must hold `gen` already.
uint32_t publish_again(struct worker *w, const char *op, enum klass k, void *mem, uint64_t len,
		   uint32_t gen, uint32_t extra_flags);

// The owner's own view: true when it is pattern(gen), or zero when gen is 0.
bool own_view(struct worker *w, const char *op, enum klass k, const void *mem, uint64_t len, uint32_t gen);

// Memory of a random size in pages, mostly small.
uint64_t random_pages(struct worker *w, unsigned max);

// Runs job(arg) on another thread beside the caller; false when all are busy.
struct mate *mate_start(void (*job)(void *arg), void *arg);
void mate_wait(struct mate *m);
void mates_create(void);
void mates_join(void);

// The steps. Each leaves the address space as it found it.
void op_malloc(struct worker *w);
void op_malloc_churn(struct worker *w);
void op_map(struct worker *w);
void op_cross(struct worker *w);
void op_brk(struct worker *w);
void op_static(struct worker *w);
void op_read(struct worker *w);
void op_count(struct worker *w);
void op_semaphore(struct worker *w);
void op_signal(struct worker *w);
void op_thread(struct worker *w);
void op_fork(struct worker *w);
void op_spawn(struct worker *w);
void op_shared(struct worker *w);
void op_direct(struct worker *w);
void op_sysv(struct worker *w);
void op_ring(struct worker *w);
// Opens the rings; without, the step does nothing.
void op_ring_prepare(struct mailbox *mb);
void op_writer(struct worker *w);
void op_seal(struct worker *w);
void op_vfork(struct worker *w);

// A file that is read past the page cache: each worker has a part of it. -1 where
// none can be had.
#define DIRECT_PART (1ul << 20)
extern int direct_file;
void direct_file_prepare(void);
// Fills `from` with a generation and writes it into the worker's part.
bool direct_store(struct worker *w, uint64_t *from, uint64_t len, uint32_t gen);

#endif
