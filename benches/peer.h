// SPDX-License-Identifier: MIT OR Apache-2.0
// The other process: it owns the memory, and does as it is told over a
// SOCK_SEQPACKET socket, which is also the bare RPC that attaching is held against.
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum peer_do {
	PEER_PING,       // answers, nothing else
	PEER_MAKE,       // exports its address space; answers the segid
	PEER_ALLOC,      // `arg` bytes, touched; answers the address
	PEER_MALLOC,     // the same by malloc
	PEER_ALLOC_HUGE, // the same on huge pages
	PEER_FREE,       // the last allocation
	PEER_FREE_AT,    // the one on huge pages before it, at `arg`
	PEER_LOADS,      // nanoseconds of 1000 random loads of an allocation on huge pages at `arg`
	PEER_HUGE,       // how much of that is on huge pages
	PEER_DIRTY,      // a thread goes on writing to 1 % of its pages, until PEER_FREE
	PEER_END,
};

struct peer {
	pid_t pid;
	int sock;
};

// Starts this program again as the peer; its library's counters go to `stats`
// (NULL: nowhere).
struct peer peer_start(const char *lib, const char *stats);
int64_t peer_call(struct peer *p, enum peer_do what, int64_t arg);
void peer_end(struct peer *p);

// Nanoseconds of a random load of memory, each of which waits for the one before.
double random_loads(const char *mem, size_t len);

// How much of memory is mapped as huge pages.
size_t huge_bytes(const char *mem, size_t len);

// The peer's own main.
int peer_main(int sock, const char *lib);

#endif
