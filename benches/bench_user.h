// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef BENCH_USER_H
#define BENCH_USER_H

#include "peer.h"

#include <stdint.h>

#define PAGE 4096ul
#define MIB (1ul << 20)
#define HUGE_PAGE (2 * MIB)

// A page-aligned piece of memory of this process, touched, for source or target.
char *own_memory(size_t len);

// The owner's [addr, addr+len) in this process; ends the program when refused.
char *attached(int64_t apid, int64_t addr, size_t len);

// Reads a byte of each page.
void touch_all(const char *mem, size_t len);

// Each prints its own lines. `segid` is of `p`.
void bench_copy(struct peer *p, int64_t apid);
void bench_attach(struct peer *p, int64_t apid);
void bench_first(struct peer *p, int64_t apid);
void bench_cold(struct peer *with, int64_t apid, const char *lib);
void bench_huge(struct peer *p, int64_t apid);
void bench_stop(const char *lib);

#endif
