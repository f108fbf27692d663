/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Calls that wait, and limits, that programs seldom use. */
#include "harness.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#define WINDOW (1024 * PAGE)

struct waiter {
	uint32_t *word;
	long number, answer, error;
	volatile long about;
};

struct futex_of_many {
	uint64_t value, word;
	uint32_t flags, reserved;
};

static void *wait_for_word(void *arg)
{
	struct waiter *w = arg;
	struct futex_of_many one = { 0, (unsigned long)w->word, 2, 0 };
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += 60;
	w->about = 1;
	if (w->number == 449) /* futex_waitv */
		w->answer = syscall(449, &one, 1, 0, &until, CLOCK_MONOTONIC);
	else /* futex_wait */
		w->answer = syscall(455, w->word, 0ul, 0xfffffffful, 2, &until, CLOCK_MONOTONIC);
	w->error = errno;
	return NULL;
}

static void waits_of(long number)
{
	struct peer p = spawn();
	char *source = anonymous(WINDOW);
	struct waiter w = { .word = (uint32_t *)source, .number = number };
	pthread_t thread;
	long addr;

	if (syscall(number, 0, 0, 0, 0, 0, 0) < 0 && errno == ENOSYS)
		skip_case("no such call");
	addr = share(&p, source, WINDOW);
	EXPECT_EQ(pthread_create(&thread, NULL, wait_for_word, &w), 0);
	while (!w.about)
		sched_yield();
	usleep(20000);
	/* Its own page last. */
	for (long i = 63; i >= 0; i--)
		EXPECT(r_peek(&p, addr + i * PAGE) >= 0);
	usleep(20000);
	EXPECT_EQ(r_poke(&p, addr, 1), 0);
	for (int i = 0; i < 100 && syscall(SYS_futex, source, FUTEX_WAKE, 1, NULL, NULL, 0) < 1; i++)
		usleep(10000);
	EXPECT_EQ(pthread_join(thread, NULL), 0);
	if (w.answer < 0)
		EXPECT_EQ(w.error, EAGAIN);
	quit(&p);
}

CASE(kind_futex_waitv, "who waits for several futexes is not told of a stop, and is woken")
{
	waits_of(449);
}

CASE(kind_futex_wait, "nor who waits by the newer call for one")
{
	waits_of(455);
}

CASE(kind_file_size_limit, "a program that may write no large files shares its memory, and gets no signal")
{
	struct peer p = spawn();
	char *source = anonymous(WINDOW);
	struct rlimit limit;
	long addr;

	/* The hard limit cannot be lifted: it is ENOSYS then. */
	EXPECT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = 1 << 20;
	EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	fill(source, WINDOW, 1);
	addr = share(&p, source, WINDOW);
	EXPECT_EQ(r_verify(&p, addr, WINDOW, 1), 0);
	EXPECT_EQ(r_poke(&p, addr, 9), 0);
	EXPECT_EQ(source[0], 9);
	quit(&p);
}

CASE(kind_data_limit, "a program at its limit of data shares what it has, or its peer is told")
{
	struct peer p = spawn();
	char *source = anonymous(WINDOW);
	struct rlimit limit = { 64 << 20, 64 << 20 };
	long addr, seen;

	setenv("XPMEM_WAIT", "5", 1);
	fill(source, WINDOW, 1);
	EXPECT(make_all() > 0);
	EXPECT_EQ(setrlimit(RLIMIT_DATA, &limit), 0);
	while (mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
		;
	addr = share(&p, source, WINDOW);
	EXPECT(addr != -1);
	seen = r_verify(&p, addr, WINDOW, 1);
	EXPECT(seen == 0 || FAULTED(seen));
	EXPECT_EQ(verify((long)source, WINDOW, 1), 0);
	quit(&p);
}

CASE(kind_collapsed, "memory that the owner, and the peer, have collapsed into huge pages stays what it is")
{
	struct peer p = spawn();
	char *room = anonymous(3 * 512 * PAGE), *source;
	long addr;

	source = (char *)(((unsigned long)room + 512 * PAGE - 1) & -(512 * PAGE));
	fill(source, 512 * PAGE, 1);
	addr = share(&p, source, 512 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, PAGE, 1), 0);
	if (madvise(source, 512 * PAGE, 25) && errno == EINVAL)
		errno = 0;
	EXPECT_EQ(verify((long)source, 512 * PAGE, 1), 0);
	EXPECT_EQ(r_verify(&p, addr, 512 * PAGE, 1), 0);
	madvise(source, 512 * PAGE, 25);
	EXPECT_EQ(verify((long)source, 512 * PAGE, 1), 0);
	EXPECT_EQ(r_verify(&p, addr, 512 * PAGE, 1), 0);
	EXPECT_EQ(r_poke(&p, addr + 100 * PAGE, 9), 0);
	EXPECT_EQ(source[100 * PAGE], 9);
	EXPECT_EQ(munmap(source + 200 * PAGE, PAGE), 0);
	EXPECT(FAULTED(r_peek(&p, addr + 200 * PAGE)));
	EXPECT_EQ(r_peek(&p, addr + 100 * PAGE), 9);
	quit(&p);
}

CASE(kind_mergeable, "memory that may be merged with others of the same content is shared as it is")
{
	struct peer p = spawn();
	char *source = anonymous(WINDOW);
	long addr;

	if (madvise(source, WINDOW, MADV_MERGEABLE))
		skip_case("no merging of pages");
	memset(source, 7, WINDOW);
	addr = share(&p, source, WINDOW);
	for (int i = 0; i < 1024; i += 64)
		EXPECT_EQ(r_poke(&p, addr + i * PAGE, i / 64), 0);
	for (int i = 0; i < 1024; i++)
		EXPECT_EQ(source[i * PAGE], i % 64 ? 7 : i / 64);
	EXPECT_EQ(madvise(source, WINDOW, MADV_UNMERGEABLE), 0);
	for (int i = 0; i < 1024; i++)
		EXPECT_EQ(source[i * PAGE], i % 64 ? 7 : i / 64);
	quit(&p);
}
