/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Every system call of an operation fails once: the bytes must not care.
 *
 * An operation is a CASE, run again and again in a process of its own, each
 * time with another call of the owner's service failing, while it is armed. In
 * those of killed.c that call is the service's last.
 */
#ifndef SWEEP_H
#define SWEEP_H

#include "../conformance/harness.h"

#define SIZE (24 * PAGE)
/* What a fork child gets through a userfaultfd (src/user/owner/children.rs). */
#define WATCHED (64 * PAGE)

/* What the library maps, too (src/user/sys/faults.rs). */
struct words {
	uint32_t armed, fail, error, count, number, detail;
	/* The test's own: what an undisturbed run has left. */
	uint32_t mappings, blocks, descriptors;
};
extern volatile struct words *words;

/* The owner's memory, and where the peer has it attached. */
struct scene {
	struct peer peer;
	char *memory;
	size_t size;
	long segid, there;
};

/* A peer, before there is anything that it could inherit. */
struct scene begin(void);
/* Fresh memory, as anonymous(): locked, or the case is skipped; or shared. */
char *locked(size_t size);
char *shared_anonymous(size_t size);
/* A huge page of its own, where there are any. */
#define HUGE (2ul << 20)
char *huge_page(void);
/* Memory that is shared from the start, its making armed. */
char *newborn(size_t size);
/* SIZE of the program's own data, in a mapping of its own: what is shared along with
 * it is then the same in each run, wherever the program was loaded. */
char *own_data(void);
/* Memory that it has attached without having touched it. */
void open_scene(struct scene *s, char *memory, size_t size);
/* A case that is `flow` with such memory, made once there is a peer. */
#define CASE_OF(name, what, flow, made)                                                   \
	CASE(name, what)                                                                  \
	{                                                                                 \
		struct scene s = begin();                                                 \
                                                                                          \
		flow(&s, made);                                                           \
	}
/* Here each byte is as filled with `seed`; there it is too, or the touch is
 * SIGBUS, and soon it is not any more. */
void expect_bytes(struct scene *s, long seed);
/* As expect_bytes, without the owner having a look: part of the operation. */
void touch_there(struct scene *s, long seed);
/* libc's mmap of fresh memory over it. */
void map_over(struct scene *s);
/* From here on calls fail, and from here on they do not. */
void arm(void);
void disarm(void);
/* Unmaps the memory; nothing is left of it. */
void close_scene(struct scene *s);

#endif
