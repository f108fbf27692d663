// SPDX-License-Identifier: MIT OR Apache-2.0
// What an attacher does with one request, and how it judges what it reads.
#ifndef STRESS_CHECKER_H
#define STRESS_CHECKER_H

#include "mailbox.h"
#include "rng.h"

// A private copy of the request half of a slot: the slot may serve the next
// owner as soon as ours is dead.
struct request {
	uint32_t seq, flags, klass, want, gen;
	uint64_t addr, len, key;
	char op[16];
};

struct checker {
	struct mailbox *mb;
	unsigned self;  // index of this attacher
	uint32_t epoch; // the owner it is attached to
	struct rng rng;
	int null_fd; // /dev/null would not read the bytes; this is a pipe
	int null_rd;
};

// Serves `rq`; `progress` is counted up with each increment or post done.
void check_request(struct checker *c, const struct request *rq, _Atomic uint32_t *progress);

// Reads a byte somewhere near `addr`, whatever may be there now.
void check_stray(struct checker *c, uint64_t addr, uint64_t len);

// After the owner's death: its untouched memory is SIGBUS, and soon.
void check_tomb(struct checker *c, uint64_t addr);

#endif
