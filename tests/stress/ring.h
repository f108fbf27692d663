// SPDX-License-Identifier: MIT OR Apache-2.0
// A small io_uring, by system calls alone.
#ifndef STRESS_RING_H
#define STRESS_RING_H

#include <linux/io_uring.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define RING_ENTRIES 8u

struct ring {
	int fd;
	char *rings;
	struct io_uring_sqe *sqes;
	struct io_uring_params params;
};

// False, with errno, where the kernel gives none.
bool ring_open(struct ring *r);

// Makes one buffer known to the ring, or none; `raw` by an inline system call, which
// nobody who meets libc's sees. A negated errno.
long ring_register(struct ring *r, void *mem, uint64_t len, bool raw);
long ring_unregister(struct ring *r);

struct transfer {
	uint8_t opcode;
	int fd;
	void *mem;
	uint32_t len;
	uint64_t at; // in the file
};

// Begins `n` transfers, at most RING_ENTRIES; false when the kernel took fewer.
bool ring_begin(struct ring *r, const struct transfer *t, unsigned n);

// Waits for `n` answers; how many of them are not `len`, and *odd is one of those.
unsigned ring_finish(struct ring *r, unsigned n, uint32_t len, int *odd);

#endif
