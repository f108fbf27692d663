// SPDX-License-Identifier: MIT OR Apache-2.0
// What a process holds, counted from /proc, before and after.
#ifndef STRESS_LEAKS_H
#define STRESS_LEAKS_H

#include "mailbox.h"

struct footprint {
	long fds, threads, maps, memory, children, zombies;
};

void footprint_take(struct footprint *f);

// Notes each number that grew (mappings with some slack: the allocator splits them).
void footprint_compare(struct mailbox *mb, const char *who, const struct footprint *before,
		       const struct footprint *after);

// Bytes of sparse, address-sized memfds of this process that lie in [lo, hi); -1 where it
// has none.
long memfd_bytes_in(uint64_t lo, uint64_t hi);

// Entries below `dir` that are no directories, named in `names`.
long files_below(const char *dir, char *names, size_t size);

#endif
