// SPDX-License-Identifier: MIT OR Apache-2.0
// Where the owner's own slices of address space lie: far from where the kernel
// places anything, so that an unmapped piece is a hole until its own thread (or,
// in the shared slices, its partner) maps it again.
#ifndef STRESS_LAYOUT_H
#define STRESS_LAYOUT_H

#include "mailbox.h"

#define SLICE_BASE 0x100000000000ul
#define SLICE_SIZE (64ul << 20)
#define SLICES_OF_A_WORKER 4 // libc, raw, both kinds of buffers and stacks
#define NSLICES (NWORKERS * SLICES_OF_A_WORKER + 4)
#define ARENA_SIZE (NSLICES * SLICE_SIZE)
// Behind the arena: what nobody touches while the owner lives.
#define TOMB_AT (SLICE_BASE + ARENA_SIZE)

enum slice_use { SLICE_LIBC, SLICE_RAW, SLICE_BUF, SLICE_SHARED };

static inline uint64_t slice_of(unsigned worker, enum slice_use use)
{
	return SLICE_BASE + (worker * SLICES_OF_A_WORKER + use) * SLICE_SIZE;
}

// Slices for the hand-over from thread to thread; `n` from 0 to 3.
static inline uint64_t slice_cross(unsigned n)
{
	return SLICE_BASE + (NWORKERS * SLICES_OF_A_WORKER + n) * SLICE_SIZE;
}

#endif
