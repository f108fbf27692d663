/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A range of the owner's, filled, and attached here. */
#ifndef RANGE_H
#define RANGE_H

#include "owner.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define PAGES 64L
#define SIZE (PAGES * PAGE)
static inline long own(long size, long flags) { return CALL(&owner, r_map, BASE, size, flags); }
static inline char *att(long addr, long size) { return (char *)x_attach(apid, addr, size); }

/* Everything there, and everything of the expected values? */
static inline int all(char *p, long pages, long v)
{
	for (long i = 0; i < pages; i++)
		if (val(p + i * PAGE) != v + i) {
			printf("  page %ld is %lx, not %lx\n", i, val(p + i * PAGE), v + i);
			return 0;
		}
	return 1;
}

static inline char *start(long size, long flags)
{
	char *p;

	if (own(size, flags) != BASE)
		return (char *)-1;
	CALL(&owner, r_fill, BASE, size / PAGE, 1000);
	p = att(BASE, size);
	return all(p, size / PAGE, 1000) ? p : (char *)-1;
}

static inline void finish(char *p, long size)
{
	CHECK(x_detach(p) == 0);
	CALL(&owner, r_unmap, BASE, size, 0);
}

/* For peers: reads every page. */
static inline long r_sum(long addr, long pages, long c)
{
	long sum = 0;

	for (long i = 0; i < pages; i++)
		sum += *(volatile long *)(addr + i * PAGE);
	return sum;
}

#endif
