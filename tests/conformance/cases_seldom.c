/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Waits, limits and settings that programs seldom use. */
#include "harness.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#define WINDOW (1024 * PAGE)
#define SIZE (16 * PAGE)

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

CASE(kind_mdwe, "a program that may make nothing executable shares its memory")
{
	struct peer p = spawn();
	char *source = anonymous(WINDOW);
	long addr;

	if (prctl(65, 1, 0, 0, 0))
		skip_case("no such setting");
	fill(source, WINDOW, 1);
	addr = share(&p, source, WINDOW);
	EXPECT_EQ(r_verify(&p, addr, WINDOW, 1), 0);
	EXPECT_EQ(munmap(source, SIZE), 0);
	EXPECT(FAULTED(r_peek(&p, addr)));
	EXPECT_EQ(mmap(source, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), source);
	source[0] = 3;
	EXPECT_EQ(r_peek(&p, addr), 3);
	EXPECT_EQ(mprotect(source, SIZE, PROT_READ), 0);
	free(malloc(1 << 20));
	quit(&p);
}

static volatile sig_atomic_t ticks;
static void on_tick(int signo)
{
	(void)signo;
	ticks++;
}

CASE(kind_profiled, "a program that is profiled by a timer's signals is shared as any")
{
	struct peer p = spawn();
	char *source = anonymous(WINDOW);
	struct itimerval often = { { 0, 200 }, { 0, 200 } };
	struct sigaction sa = { .sa_handler = on_tick, .sa_flags = SA_RESTART };
	long addr;

	EXPECT_EQ(sigaction(SIGPROF, &sa, NULL), 0);
	EXPECT_EQ(sigaction(SIGALRM, &sa, NULL), 0);
	EXPECT_EQ(setitimer(ITIMER_PROF, &often, NULL), 0);
	EXPECT_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
	fill(source, WINDOW, 1);
	addr = share(&p, source, WINDOW);
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(r_verify(&p, addr, WINDOW, 1), 0);
		EXPECT_EQ(munmap(source, WINDOW), 0);
		EXPECT_EQ(mmap(source, WINDOW, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), source);
		fill(source, WINDOW, 1);
	}
	memset(&often, 0, sizeof often);
	setitimer(ITIMER_PROF, &often, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	EXPECT(ticks > 0);
	quit(&p);
}

CASE(kind_code, "memory that is executable is shared, and code in it runs before and after")
{
	struct peer p = spawn();
	char *source = mmap(NULL, WINDOW, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long addr;
#if defined(__x86_64__)
	static const unsigned char code[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
#else
	static const unsigned char code[] = { 0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6 };
#endif
	int (*f)(void);

	if (source == MAP_FAILED)
		skip_case("no memory that is both");
	memcpy(source, code, sizeof code);
	__builtin___clear_cache(source, source + sizeof code);
	memcpy(&f, &source, sizeof f);
	EXPECT_EQ(f(), 42);
	addr = share(&p, source, WINDOW);
	EXPECT_EQ(r_peek(&p, addr), code[0]);
	EXPECT_EQ(f(), 42);
#if defined(__x86_64__)
	EXPECT_EQ(r_poke(&p, addr + 1, 43), 0);
	EXPECT_EQ(f(), 43);
#endif
	EXPECT_EQ(mprotect(source, WINDOW, PROT_READ | PROT_EXEC), 0);
	EXPECT(f() >= 42);
	EXPECT(FAULTED(r_poke(&p, addr + 1, 44)));
	EXPECT_EQ(r_peek(&p, addr), code[0]);
	quit(&p);
}

static void *sleeper(void *arg)
{
	pause();
	return arg;
}

CASE(kind_cancelled, "a thread that is cancelled while its stack is shared ends")
{
	struct peer p = spawn();
	long apid = r_get(&p, make_all(), XPMEM_RDWR);

	for (int i = 0; i < 20; i++) {
		pthread_t t;
		pthread_attr_t a;
		size_t size;
		void *stack;
		long addr;

		EXPECT_EQ(pthread_create(&t, NULL, sleeper, NULL), 0);
		pthread_getattr_np(t, &a);
		pthread_attr_getstack(&a, &stack, &size);
		pthread_attr_destroy(&a);
		addr = r_attach(&p, apid, (long)stack + (long)size - 16 * (long)PAGE, 16 * PAGE);
		EXPECT(addr != -1);
		EXPECT(r_peek(&p, addr + 15 * PAGE) >= 0);
		EXPECT_EQ(pthread_cancel(t), 0);
		EXPECT_EQ(pthread_join(t, NULL), 0);
		EXPECT_EQ(r_detach(&p, addr), 0);
	}
	quit(&p);
}

CASE(kind_read_only_file, "MAP_PRIVATE of a read-only file that is only readable: its bytes, and no store by a peer")
{
	struct peer p = spawn();
	int fd = open("/proc/self/exe", O_RDONLY);
	char *source = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
	long addr;

	EXPECT(source != MAP_FAILED);
	addr = share(&p, source, SIZE);
	for (int i = 0; i < 16; i++)
		EXPECT_EQ(r_peek(&p, addr + i * PAGE + 7), (unsigned char)source[i * PAGE + 7]);
	EXPECT(FAULTED(r_poke(&p, addr, 9)));
	EXPECT_EQ(source[1], 'E');
	quit(&p);
}
