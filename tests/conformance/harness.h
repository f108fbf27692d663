/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The conformance suite: one process a case, peers that do as they are told.
 *
 * A case runs in a process of its own that has called nothing yet. It spawns
 * peers before its first XPMEM call, so that they are unrelated to what it
 * exports, and has them run functions: the image is the same, so a function's
 * address is too. Everything is written from the case's own point of view.
 *
 * XPMEM is called through `api`, which C programs fill with the functions of
 * the library and the Rust program with those of the crate.
 */
#ifndef HARNESS_H
#define HARNESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lib/xpmem_api.h"

extern const struct xpmem_api *api;

/* Entry: --list, --only NAME..., --timeout SECONDS. Ends with the closing line. */
int conformance_main(int argc, char **argv, const struct xpmem_api *table);

enum backend { BACKEND_USER, BACKEND_KERNEL, BACKEND_FAKE, BACKENDS };
extern enum backend backend;

/* expectations.c: whether the case is about this back end at all. */
int concerns(const char *name, enum backend backend);
/* expectations.c: why this case cannot pass on this back end, or NULL. */
const char *excused(const char *name, enum backend backend);
/* The module and the service at a time. */
int over_both(void);

struct test_case {
	const char *name;
	const char *what;
	void (*run)(void);
};

#define CASE(name, what)                                                                  \
	static void case_##name(void);                                                    \
	static const struct test_case entry_##name = { #name, what, case_##name };        \
	__attribute__((used, section("xpmem_cases")))                                     \
	static const struct test_case *const pointer_##name = &entry_##name;              \
	static void case_##name(void)

#define PAGE 4096ul

/* ---- verdicts; each ends the case */
void fail(const char *file, int line, const char *format, ...)
	__attribute__((noreturn, format(printf, 3, 4)));
void skip_case(const char *why) __attribute__((noreturn));

#define EXPECT(condition)                                                                 \
	do {                                                                              \
		if (!(condition))                                                         \
			fail(__FILE__, __LINE__, "not true: %s (errno %d)", #condition,   \
			     errno);                                                      \
	} while (0)
#define EXPECT_EQ(got, wanted)                                                            \
	do {                                                                              \
		long got_ = (long)(got), wanted_ = (long)(wanted);                        \
		if (got_ != wanted_)                                                      \
			fail(__FILE__, __LINE__, "%s is %ld (%#lx), not %ld (errno %d)",  \
			     #got, got_, got_, wanted_, errno);                           \
	} while (0)
#define EXPECT_ERR(call, wanted)                                                          \
	do {                                                                              \
		errno = 0;                                                                \
		long got_ = (long)(call);                                                 \
		if (got_ != -1 || errno != (wanted))                                      \
			fail(__FILE__, __LINE__, "%s is %ld with errno %d (%s), not -1 with %d", \
			     #call, got_, errno, strerror(errno), (wanted));              \
	} while (0)

/* ---- memory */

/* A byte, or -SIGBUS or -SIGSEGV. */
long peek(long addr);
/* 0, or -SIGBUS or -SIGSEGV. */
long poke(long addr, long value);
/* Adds to the word there. */
long add_to(long addr, long n);
/* Any fault will do. */
#define FAULTED(result) ((result) == -SIGBUS || (result) == -SIGSEGV)
/* A pattern that depends on place and seed; 0, or 1 + the first wrong index, or
 * a negated signal. */
void fill(void *p, size_t size, long seed);
long verify(long addr, long size, long seed);
long fill_there(long addr, long size, long seed);
/* size bytes of fresh private anonymous memory. */
void *anonymous(size_t size);
/* The number that a file begins with; -1 where there is none. */
long number_in(const char *file);
/* Whether the page is mapped at all. */
int mapped(long addr);

/* ---- peers */
typedef long (*function)(long, long, long, long);
struct peer {
	pid_t pid;
	int request, reply;
};
struct peer spawn(void);
/* A peer in new namespaces (CLONE_NEWPID and so on); skips where that is denied. */
struct peer spawn_in(int namespaces);
/* Runs f in the peer; errno is what it was there. */
long call4(struct peer *p, function f, long a, long b, long c, long d);
#define call(p, f, a, b, c) call4(p, f, (long)(a), (long)(b), (long)(c), 0)
void start(struct peer *p, function f, long a, long b, long c, long d);
long finish(struct peer *p);
/* Lets the peer exit, and expects that it does so in peace. */
void quit(struct peer *p);
void kill_peer(struct peer *p);

/* Runs f in a child of this process; the child's answer (0 to 120), or 200 and
 * the signal. */
long run_in_child(function f, long a, long b, long c, long d);

/* XPMEM in the peer. */
long r_get(struct peer *p, long segid, int flags);
long r_attach(struct peer *p, long apid, long offset, long size);
long r_attach_at(struct peer *p, long apid, long offset, long size, long vaddr);
long r_detach(struct peer *p, long addr);
long r_release(struct peer *p, long apid);
long r_peek(struct peer *p, long addr);
long r_poke(struct peer *p, long addr, long value);
long r_verify(struct peer *p, long addr, long size, long seed);
long r_fill(struct peer *p, long addr, long size, long seed);

/* The peer's page goes when its owner ends: `last` until then, SIGBUS after. */
void expect_gone(struct peer *p, long addr, long last);

/* For peers and threads to run. */
long f_make_all(long, long, long, long);
long f_fill(long addr, long size, long seed, long);
long f_mapped(long addr, long, long, long);
long f_munmap(long addr, long size, long, long);

/* Counts SIGALRM from now on; flags as for sigaction. */
void count_alarms(int flags);
extern volatile sig_atomic_t alarms;

/* XPMEM here. */
long make_all(void);
long make_range(void *p, size_t size);
long get_rw(long segid);
long attach(long apid, long offset, long size, long vaddr);

/* Exports the whole address space and attaches [p, p + size) in the peer. */
long share(struct peer *peer, void *p, size_t size);

/* A child of one of a process's threads that goes by the service's name; 0 for none. */
pid_t service_beside(pid_t program);

/* ---- privileges */
/* From root to uid and gid 65534; nothing for others. */
void drop_privileges(void);
long drop_to(long uid, long, long, long);
int is_root(void);

#endif
