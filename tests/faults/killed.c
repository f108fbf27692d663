/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The service is killed at each of its system calls: the program has its bytes, and
 * begins another service. What a peer touches is what it should be, or SIGBUS.
 */
#include "sweep.h"
#include "../stress/rawsys.h"

#include <pthread.h>
#include <sys/syscall.h>

/* A thread that goes on counting in the last word of each page, whatever the service
 * does: every store must be there afterwards. */
static struct {
	pthread_t thread;
	char *memory;
	volatile int ends;
	long rounds;
} counter;

static void *count(void *unused)
{
	while (!counter.ends) {
		for (size_t at = 0; at < SIZE; at += PAGE)
			++*(volatile long *)(counter.memory + at + PAGE - sizeof(long));
		counter.rounds++;
	}
	return unused;
}

static void begin_to_count(char *memory)
{
	counter.memory = memory;
	for (size_t at = 0; at < SIZE; at += PAGE)
		memset(memory + at + PAGE - sizeof(long), 0, sizeof(long));
	EXPECT_EQ(pthread_create(&counter.thread, NULL, count, NULL), 0);
}

static void end_counting(void)
{
	counter.ends = 1;
	EXPECT_EQ(pthread_join(counter.thread, NULL), 0);
	for (size_t at = 0; at < SIZE; at += PAGE)
		EXPECT_EQ(*(long *)(counter.memory + at + PAGE - sizeof(long)), counter.rounds);
	EXPECT(counter.rounds > 0);
}

static void mark(char *memory, char byte)
{
	for (size_t at = 0; at < SIZE; at += PAGE)
		memset(memory + at, byte, PAGE - sizeof(long));
}

static void expect_mark(char *memory, char byte)
{
	for (size_t at = 0; at < SIZE; at += PAGE)
		for (size_t i = 0; i < PAGE - sizeof(long); i++)
			if (memory[at + i] != byte)
				fail(__FILE__, __LINE__, "byte %zu of page %zu is %d", i, at / PAGE,
				     memory[at + i]);
}

static void touch(struct scene *s, char byte)
{
	for (size_t at = 0; at < SIZE; at += PAGE) {
		long got = r_peek(&s->peer, s->there + at);

		EXPECT(got == byte || FAULTED(got));
	}
}

/* There is a service again, and it shares the memory. */
static void expect_service(struct scene *s, char byte)
{
	long segid = make_all(), apid = r_get(&s->peer, segid, XPMEM_RDWR);

	EXPECT(apid > 0);
	s->there = r_attach(&s->peer, apid, (long)s->memory, 1024 * PAGE);
	EXPECT(s->there != -1);
	mark(s->memory, byte);
	for (size_t at = 0; at < SIZE; at += PAGE) {
		EXPECT_EQ(r_peek(&s->peer, s->there + at), byte);
		EXPECT_EQ(r_poke(&s->peer, s->there + at, byte + 1), 0);
		EXPECT_EQ(s->memory[at], byte + 1);
	}
	munmap(s->memory, SIZE);
	quit(&s->peer);
}

static void promotion(struct scene *s, char *memory)
{
	mark(memory, 1);
	begin_to_count(memory);
	open_scene(s, memory, SIZE);
	arm();
	touch(s, 1);
	disarm();
	expect_mark(memory, 1);
	touch(s, 1);
	end_counting();
	expect_service(s, 5);
}

CASE_OF(killed_private, "while private memory comes to be shared and is written to", promotion, anonymous(SIZE))
CASE_OF(killed_huge, "while a huge page does", promotion, huge_page())
CASE_OF(killed_locked, "while locked memory does", promotion, locked(SIZE))

/* For a moment such memory is moved as a whole, and leaves a hole: nobody touches it
 * before what follows the service has put it back. */
static void quiet_promotion(struct scene *s, char *memory)
{
	mark(memory, 1);
	open_scene(s, memory, SIZE);
	arm();
	touch(s, 1);
	disarm();
	EXPECT(make_all() > 0);
	expect_mark(memory, 1);
	touch(s, 1);
	expect_service(s, 5);
}

CASE_OF(killed_shared, "while shared anonymous memory does", quiet_promotion, shared_anonymous(SIZE))
CASE_OF(killed_data, "while the program's own data does", quiet_promotion, own_data())

CASE(killed_born, "while memory comes to be shared from the start")
{
	struct scene s = begin();
	char *memory = newborn(SIZE);

	for (size_t at = 0; at < SIZE; at++)
		EXPECT_EQ(memory[at], 0);
	mark(memory, 1);
	open_scene(&s, memory, SIZE);
	touch(&s, 1);
	expect_mark(memory, 1);
	expect_service(&s, 5);
}

static void shared_scene_of(struct scene *s, size_t size)
{
	char *memory = anonymous(size);

	memset(memory, 1, size);
	open_scene(s, memory, size);
	for (size_t at = 0; at < size; at += PAGE)
		EXPECT_EQ(r_peek(&s->peer, s->there + at), 1);
}

static void shared_scene(struct scene *s)
{
	shared_scene_of(s, SIZE);
}

CASE(killed_protect, "in libc's mprotect")
{
	struct scene s = begin();

	shared_scene(&s);
	arm();
	EXPECT_EQ(mprotect(s.memory, SIZE / 2, PROT_READ), 0);
	disarm();
	expect_mark(s.memory, 1);
	EXPECT_EQ(poke((long)s.memory, 9), -SIGSEGV);
	EXPECT_EQ(poke((long)s.memory + SIZE - PAGE, 1), 0);
	touch(&s, 1);
	EXPECT_EQ(mprotect(s.memory, SIZE / 2, PROT_READ | PROT_WRITE), 0);
	expect_service(&s, 5);
}

CASE(killed_drop, "in libc's madvise that drops content")
{
	struct scene s = begin();

	shared_scene(&s);
	arm();
	EXPECT_EQ(madvise(s.memory, SIZE, MADV_DONTNEED), 0);
	disarm();
	for (size_t at = 0; at < SIZE; at += PAGE)
		EXPECT_EQ(s.memory[at], 0);
	touch(&s, 0);
	expect_service(&s, 5);
}

CASE(killed_unmap, "in libc's munmap, and new memory at the same place")
{
	struct scene s = begin();

	shared_scene(&s);
	arm();
	EXPECT_EQ(munmap(s.memory, SIZE), 0);
	disarm();
	EXPECT(FAULTED(r_peek(&s.peer, s.there)));
	map_over(&s);
	mark(s.memory, 2);
	touch(&s, 2);
	expect_service(&s, 5);
}

/* 0, or a negated signal. */
static long f_store(long addr, long value, long c, long d)
{
	(void)c, (void)d;
	return -poke(addr, value);
}

CASE(killed_recall, "while a file that a raw munmap took is asked back")
{
	struct scene s = begin();
	int fd = memfd_create("lent", MFD_CLOEXEC);
	char *file;
	long there;

	EXPECT_EQ(ftruncate(fd, PAGE), 0);
	file = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	*file = 7;
	shared_scene(&s);
	there = r_attach(&s.peer, r_get(&s.peer, make_all(), XPMEM_RDWR), (long)file, PAGE);
	if (FAULTED(r_peek(&s.peer, there)))
		skip_case("such files are not lent");
	arm();
	raw6(SYS_munmap, (long)file, PAGE, 0, 0, 0, 0);
	disarm();
	expect_mark(s.memory, 1);
	EXPECT(make_all() > 0);
	/* What was shared is the program's own again, and no child's. */
	EXPECT_EQ(run_in_child(f_store, (long)s.memory, 9, 0, 0), 0);
	EXPECT_EQ(s.memory[0], 1);
	expect_service(&s, 5);
}

CASE(killed_move, "in libc's mremap to another place")
{
	struct scene s = begin();
	char *room = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *to;

	shared_scene(&s);
	arm();
	to = mremap(s.memory, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, room);
	disarm();
	EXPECT_EQ(to, room);
	expect_mark(to, 1);
	EXPECT(FAULTED(r_peek(&s.peer, s.there)));
	s.memory = to;
	expect_service(&s, 5);
}

static void fork_once(size_t size)
{
	struct scene s = begin();
	int status = 0;
	pid_t child;

	shared_scene_of(&s, size);
	arm();
	child = fork();
	if (child == 0) {
		for (size_t at = 0; at < size; at += PAGE)
			if (s.memory[at] != 1)
				_exit(1);
		mark(s.memory, 3);
		_exit(0);
	}
	disarm();
	if (child > 0) {
		EXPECT_EQ(waitpid(child, &status, 0), child);
		/* A child that cannot have its copies must not run, or finds nothing. */
		EXPECT(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) != SIGABRT));
	}
	expect_mark(s.memory, 1);
	touch(&s, 1);
	expect_service(&s, 5);
}

static void killed_in_fork(size_t size)
{
	int status;
	pid_t program = fork();

	if (program == 0) {
		fork_once(size);
		exit(0);
	}
	EXPECT_EQ(waitpid(program, &status, 0), program);
	/* While a child could share its parent's memory it is better that there is none. */
	EXPECT(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
}

CASE(killed_fork, "in fork: parent and child have a memory each, or are killed")
{
	killed_in_fork(SIZE);
}

CASE(killed_fork_watched, "the same, with copies through a userfaultfd of the child's")
{
	killed_in_fork(WATCHED);
}
