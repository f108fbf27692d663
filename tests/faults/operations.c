/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The operations: what makes memory shared, and what ends that. */
#include "sweep.h"
#include "../stress/rawsys.h"

#include <stdbool.h>
#include <sys/syscall.h>

// What a raw call has taken away is taken from peers when the service has read of it
// (docs/memory-calls.md): before the call returns, unless it could not stop the threads.
static bool faulted_soon(struct scene *s)
{
	for (int tries = 0; tries < 1000; tries++) {
		if (FAULTED(r_peek(&s->peer, s->there)))
			return true;
		usleep(10000);
	}
	return false;
}

static void promotion(struct scene *s, char *memory)
{
	fill(memory, SIZE, 1);
	open_scene(s, memory, SIZE);
	arm();
	touch_there(s, 1);
	disarm();
	expect_bytes(s, 1);
	close_scene(s);
}

CASE(promote_huge, "a huge page is shared when a part of it is touched")
{
	struct scene s = begin();
	char *memory = huge_page();

	fill(memory, HUGE, 1);
	open_scene(&s, memory, SIZE);
	arm();
	touch_there(&s, 1);
	disarm();
	EXPECT_EQ(verify((long)memory, HUGE, 1), 0);
	expect_bytes(&s, 1);
	s.size = HUGE;
	close_scene(&s);
}

CASE_OF(promote_private, "private memory is shared when it is touched", promotion, anonymous(SIZE))
CASE_OF(promote_locked, "locked memory is", promotion, locked(SIZE))
CASE_OF(promote_shared, "shared anonymous memory is", promotion, shared_anonymous(SIZE))
CASE_OF(promote_data, "the program's own data is", promotion, own_data())

CASE(promote_scattered, "memory with holes is")
{
	struct scene s = begin();
	char *memory = anonymous(SIZE);

	for (size_t at = 0; at < SIZE; at += 4 * PAGE)
		memory[at] = 7;
	open_scene(&s, memory, SIZE);
	arm();
	r_peek(&s.peer, s.there);
	disarm();
	for (size_t at = 0; at < SIZE; at += PAGE) {
		char wanted = at % (4 * PAGE) ? 0 : 7;
		long got = r_peek(&s.peer, s.there + at);

		EXPECT_EQ(memory[at], wanted);
		EXPECT(got == wanted || FAULTED(got));
	}
	close_scene(&s);
}

/* Memory that the peer has touched. */
static void shared_scene(struct scene *s, char *memory)
{
	fill(memory, SIZE, 1);
	open_scene(s, memory, SIZE);
	EXPECT_EQ(r_verify(&s->peer, s->there, SIZE, 1), 0);
}

static void protect_half(struct scene *s, char *memory)
{
	shared_scene(s, memory);
	arm();
	EXPECT_EQ(mprotect(s->memory, SIZE / 2, PROT_READ), 0);
	disarm();
	EXPECT_EQ(verify((long)s->memory, SIZE, 1), 0);
	touch_there(s, 1);
	EXPECT_EQ(mprotect(s->memory, SIZE / 2, PROT_READ | PROT_WRITE), 0);
	expect_bytes(s, 1);
	close_scene(s);
}

CASE_OF(protect, "libc's mprotect", protect_half, anonymous(SIZE))
CASE_OF(protect_shared, "libc's mprotect of shared anonymous memory", protect_half, shared_anonymous(SIZE))

CASE(remove_segment, "xpmem_remove")
{
	struct scene s = begin();

	shared_scene(&s, anonymous(SIZE));
	arm();
	EXPECT_EQ(api->remove(s.segid), 0);
	disarm();
	EXPECT_EQ(verify((long)s.memory, SIZE, 1), 0);
	EXPECT(FAULTED(r_peek(&s.peer, s.there)));
	close_scene(&s);
}

CASE(unmap, "libc's munmap, and new memory at the same place")
{
	struct scene s = begin();

	shared_scene(&s, anonymous(SIZE));
	arm();
	EXPECT_EQ(munmap(s.memory, SIZE), 0);
	disarm();
	EXPECT(FAULTED(r_peek(&s.peer, s.there)));
	map_over(&s);
	fill(s.memory, SIZE, 2);
	expect_bytes(&s, 2);
	close_scene(&s);
}

CASE(replace, "libc's mmap over it")
{
	struct scene s = begin();

	shared_scene(&s, anonymous(SIZE));
	arm();
	map_over(&s);
	disarm();
	EXPECT_EQ(s.memory[0], 0);
	fill(s.memory, SIZE, 2);
	expect_bytes(&s, 2);
	close_scene(&s);
}

CASE(drop, "libc's madvise")
{
	struct scene s = begin();

	shared_scene(&s, anonymous(SIZE));
	arm();
	EXPECT_EQ(madvise(s.memory, SIZE, MADV_DONTNEED), 0);
	disarm();
	for (size_t at = 0; at < SIZE; at += PAGE) {
		long got = r_peek(&s.peer, s.there + at);

		EXPECT_EQ(s.memory[at], 0);
		EXPECT(got == 0 || FAULTED(got));
	}
	fill(s.memory, SIZE, 2);
	expect_bytes(&s, 2);
	close_scene(&s);
}

static void moved(struct scene *s, char *to, char *room)
{
	disarm();
	if (to == MAP_FAILED) {
		EXPECT_EQ(verify((long)s->memory, SIZE, 1), 0);
		touch_there(s, 1);
		if (room)
			munmap(room, 2 * SIZE);
	} else {
		EXPECT_EQ(verify((long)to, SIZE, 1), 0);
		for (size_t at = SIZE; at < 2 * SIZE; at += PAGE)
			EXPECT_EQ(to[at], 0);
		fill(to, 2 * SIZE, 2);
		if (to != s->memory) {
			EXPECT(FAULTED(r_peek(&s->peer, s->there)));
			munmap(to, 2 * SIZE);
		}
	}
	close_scene(s);
}

CASE(move, "libc's mremap to another place")
{
	struct scene s = begin();
	char *room = mmap(NULL, 2 * SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	shared_scene(&s, anonymous(SIZE));
	arm();
	moved(&s, mremap(s.memory, SIZE, 2 * SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, room), room);
}

CASE(grow, "libc's mremap to a larger size")
{
	struct scene s = begin();

	shared_scene(&s, anonymous(SIZE));
	arm();
	moved(&s, mremap(s.memory, SIZE, 2 * SIZE, MREMAP_MAYMOVE), NULL);
}

CASE(raw_unmap, "munmap past libc")
{
	struct scene s = begin();

	shared_scene(&s, anonymous(SIZE));
	arm();
	EXPECT_EQ(raw6(SYS_munmap, (long)s.memory, SIZE, 0, 0, 0, 0), 0);
	disarm();
	EXPECT(faulted_soon(&s));
	map_over(&s);
	fill(s.memory, SIZE, 2);
	expect_bytes(&s, 2);
	close_scene(&s);
}

CASE(raw_move, "mremap past libc")
{
	struct scene s = begin();
	char *room = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *to;

	shared_scene(&s, anonymous(SIZE));
	arm();
	to = (char *)raw6(SYS_mremap, (long)s.memory, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
			  (long)room, 0);
	disarm();
	EXPECT_EQ(to, room);
	EXPECT_EQ(verify((long)to, SIZE, 1), 0);
	EXPECT(faulted_soon(&s));
	fill(to, SIZE, 2);
	EXPECT_EQ(verify((long)to, SIZE, 2), 0);
	munmap(to, SIZE);
	close_scene(&s);
}

CASE(raw_drop, "madvise past libc")
{
	struct scene s = begin();

	shared_scene(&s, anonymous(SIZE));
	arm();
	EXPECT_EQ(raw6(SYS_madvise, (long)s.memory, SIZE, MADV_DONTNEED, 0, 0, 0), 0);
	disarm();
	for (size_t at = 0; at < SIZE; at += PAGE) {
		long got = r_peek(&s.peer, s.there + at);

		EXPECT_EQ(s.memory[at], 0);
		EXPECT(got == 0 || FAULTED(got));
	}
	fill(s.memory, SIZE, 2);
	expect_bytes(&s, 2);
	close_scene(&s);
}

/* A service runs, and all memory from here on is shared from the start. */
char *newborn(size_t size)
{
	char *memory;

	setenv("XPMEM_BORN", "1", 1);
	EXPECT(make_all() > 0);
	arm();
	memory = anonymous(size);
	disarm();
	return memory;
}

CASE(born, "memory is shared from the start")
{
	struct scene s = begin();
	char *memory = newborn(SIZE);

	for (size_t at = 0; at < SIZE; at++)
		EXPECT_EQ(memory[at], 0);
	fill(memory, SIZE, 1);
	open_scene(&s, memory, SIZE);
	touch_there(&s, 1);
	expect_bytes(&s, 1);
	close_scene(&s);
}

static void forked(struct scene *s, char *memory, size_t size)
{
	int status = 0;
	pid_t child;

	fill(memory, size, 1);
	open_scene(s, memory, size);
	EXPECT_EQ(r_verify(&s->peer, s->there, size, 1), 0);
	arm();
	child = fork();
	if (child == 0) {
		disarm();
		if (verify((long)memory, size, 1))
			_exit(1);
		fill(memory, size, 3);
		_exit(verify((long)memory, size, 3) ? 2 : 0);
	}
	disarm();
	if (child > 0) {
		EXPECT_EQ(waitpid(child, &status, 0), child);
		/* A child that cannot have its copies must not run. */
		EXPECT(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
	}
	expect_bytes(s, 1);
	close_scene(s);
}

CASE(fork_child, "fork")
{
	struct scene s = begin();

	forked(&s, anonymous(SIZE), SIZE);
}

CASE(fork_watched, "fork, with copies through a userfaultfd of the child's")
{
	struct scene s = begin();

	forked(&s, anonymous(WATCHED), WATCHED);
}
