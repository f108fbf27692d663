// SPDX-License-Identifier: MIT OR Apache-2.0
// What sharing costs a large owner: one with many threads, much memory, many peers.
#ifndef BENCH_SCALE_H
#define BENCH_SCALE_H

#include "../../tests/lib/load.h"
#include "../sample.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE 4096ul
#define MIB (1ul << 20)
#define GIB (1ul << 30)

// A process that runs `main_of` with this end of a socket; it has not loaded the
// library yet. It ends with its parent.
struct other {
	pid_t pid;
	int sock;
};
struct other other_start(void (*main_of)(int sock, void *arg), void *arg);
void other_end(struct other *o);

// Numbers over the socket; each ends the program when the other is gone.
void tell(int sock, int64_t number);
int64_t hear(int sock);

// Ends the program with `why` and errno.
void die(const char *why);
void load_library(void);
char *mapped(size_t len);
void touch_pages(volatile char *mem, size_t len);
// A field of /proc/self/FILE in its own unit, `name` with its colon; 0: not there.
long proc_field(const char *file, const char *name);
long proc_entries(const char *dir);
long proc_lines(const char *file);
long service_descriptors(void);

// `ranks` is for the last alone.
void bench_forks(int ranks);
void bench_threads(int ranks);
void bench_window(int ranks);
void bench_ranks(int ranks);

#endif
