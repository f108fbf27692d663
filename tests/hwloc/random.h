/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Seeded random numbers (splitmix64): `state` repeats them. */
#include <stdint.h>

static uint64_t state;

static uint64_t next(void)
{
	uint64_t z = (state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}
