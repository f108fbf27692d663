/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One owner, a peer that has made all of its memory, and access to it from here. */
#ifndef OWNER_H
#define OWNER_H

#include "t.h"

#define BASE 0x200000000000L	/* where the owner maps things; 2 MiB-aligned */

static struct peer owner;
static long segid, apid;

/* A field of the owner's mappings in [from, to), in kB; -1 where there is none. */
static inline long owner_kb(const char *field, unsigned long from, unsigned long to)
{
	char line[256], path[64], key[64];
	unsigned long start, end;
	long kb, found = -1;
	int here = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", owner.pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start < to && from < end;
		else if (here && sscanf(line, "%63[^:]: %ld kB", key, &kb) == 2 && !strcmp(key, field))
			found = (found < 0 ? 0 : found) + kb;
	}
	if (f)
		fclose(f);
	return found;
}

/* Begins a program with one owner; 0, or what it ends with. */
static inline int owner_begin(void)
{
	t_catch();
	dev_open();
	owner = peer_start();
	segid = CALL(&owner, r_make, 0, MAXADDR, 0666);
	apid = x_get(segid, RW);
	if (segid > 0 && apid > 0)
		return 0;
	printf("make %ld, get %ld\n", segid, apid);
	return 1;
}

/* Ends it. */
static inline int owner_end(void)
{
	x_release(apid);
	peer_stop(&owner);
	return t_done();
}

#endif
