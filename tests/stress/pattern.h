// SPDX-License-Identifier: MIT OR Apache-2.0
// What each word of a published buffer must be. The generation stands in the
// upper half, so that a wrong word tells what it is: an older generation
// (stale), zero (data lost), or something nobody ever wrote.
#ifndef STRESS_PATTERN_H
#define STRESS_PATTERN_H

#include "rng.h"

#include <stddef.h>

// `writer` 0 is the owner; attacher a answers as a + 1.
static inline uint64_t pattern_word(uint64_t key, uint32_t gen, unsigned writer, size_t index)
{
	uint64_t h = mix64(key ^ ((uint64_t)writer << 56) ^ index * 0xd1342543de82ef95ull ^ gen);

	return (uint64_t)gen << 32 | (uint32_t)h;
}

static inline uint32_t pattern_gen(uint64_t word)
{
	return (uint32_t)(word >> 32);
}

static inline void pattern_fill(uint64_t *buf, size_t words, uint64_t key, uint32_t gen)
{
	for (size_t i = 0; i < words; i++)
		buf[i] = pattern_word(key, gen, 0, i);
}

#endif
