// SPDX-License-Identifier: MIT OR Apache-2.0
// Seeded random numbers, one generator a thread: a run is repeated by its seed.
#ifndef STRESS_RNG_H
#define STRESS_RNG_H

#include <stdint.h>

struct rng {
	uint64_t state;
};

// The finaliser of splitmix64: every bit of the input reaches every bit of the result.
static inline uint64_t mix64(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static inline uint64_t rng_next(struct rng *r)
{
	return mix64(r->state++);
}

static inline uint64_t rng_below(struct rng *r, uint64_t bound)
{
	return rng_next(r) % bound;
}

// True once in `n` on average.
static inline int rng_one_in(struct rng *r, uint64_t n)
{
	return rng_below(r, n) == 0;
}

#endif
