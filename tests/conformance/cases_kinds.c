/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Kinds of memory, and of calls about it, that programs seldom use. */
#include "harness.h"

#include <pthread.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define WINDOW (1024 * PAGE)
#define SIZE (16 * PAGE)

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

CASE(kind_call_of_nonsense, "a call whose range wraps around is refused, and changes nothing of what is shared")
{
	struct peer p = spawn();
	char *source = anonymous(SIZE);
	long addr;

	fill(source, SIZE, 1);
	addr = share(&p, source, SIZE);
	EXPECT_EQ(r_verify(&p, addr, SIZE, 1), 0);
	EXPECT_ERR(munmap(source, -PAGE), EINVAL);
	EXPECT_EQ(verify((long)source, SIZE, 1), 0);
	EXPECT_ERR(munmap(source, 1ul << 62), EINVAL);
	EXPECT_EQ(verify((long)source, SIZE, 1), 0);
	EXPECT_ERR(madvise(source, -PAGE, MADV_DONTNEED), EINVAL);
	EXPECT_EQ(verify((long)source, SIZE, 1), 0);
	EXPECT_ERR(madvise(source, -1ul, MADV_DONTNEED), EINVAL);
	EXPECT_EQ(verify((long)source, SIZE, 1), 0);
	EXPECT_ERR(mprotect(source, -PAGE, PROT_NONE), ENOMEM);
	EXPECT_EQ(verify((long)source, SIZE, 1), 0);
	EXPECT_ERR(mremap(source, -PAGE, PAGE, 0), EINVAL);
	EXPECT_EQ(verify((long)source, SIZE, 1), 0);
	EXPECT_EQ(r_verify(&p, addr, SIZE, 1), 0);
	EXPECT_EQ(r_poke(&p, addr, 9), 0);
	EXPECT_EQ(source[0], 9);
	quit(&p);
}

static long f_madvise(long addr, long size, long advice, long d)
{
	(void)d;
	return madvise((void *)addr, size, advice);
}

static long f_peek(long addr, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return peek(addr);
}

CASE(kind_populate, "memory is populated by the owner before and after it is shared; at a peer that is no hang")
{
	struct peer p = spawn();
	char *source = anonymous(WINDOW);
	long addr, answer;

	if (madvise(source, PAGE, MADV_POPULATE_WRITE))
		skip_case("no MADV_POPULATE_WRITE");
	addr = share(&p, source, WINDOW);
	EXPECT_EQ(r_poke(&p, addr, 1), 0);
	EXPECT_EQ(madvise(source, WINDOW, MADV_POPULATE_WRITE), 0);
	EXPECT_EQ(source[0], 1);
	source[WINDOW - 1] = 2;
	EXPECT_EQ(r_peek(&p, addr + WINDOW - 1), 2);
	/* The kernel touches for the peer what nobody has touched. */
	answer = call4(&p, f_madvise, addr + 512 * PAGE, 8 * PAGE, MADV_POPULATE_READ, 0);
	EXPECT(answer == 0 || (answer == -1 && (errno == EFAULT || errno == EINVAL)));
	EXPECT_EQ(r_peek(&p, addr + 512 * PAGE), 0);
	quit(&p);
}

CASE(kind_grows_down, "memory that grows downwards goes on growing, and its pages are shared")
{
	struct peer p = spawn();
	/* Room below it. */
	char *room = mmap(NULL, WINDOW, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *source = room + WINDOW - SIZE;
	long addr, seen;

	EXPECT(room != MAP_FAILED);
	EXPECT_EQ(munmap(room, WINDOW), 0);
	if (mmap(source, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0) !=
	    source)
		skip_case("no MAP_GROWSDOWN");
	fill(source, SIZE, 1);
	setenv("XPMEM_WAIT", "5", 1);
	addr = share(&p, source, SIZE);
	seen = addr == -1 ? -SIGBUS : r_verify(&p, addr, SIZE, 1);
	EXPECT(seen == 0 || seen == -SIGBUS);
	EXPECT_EQ(verify((long)source, SIZE, 1), 0);
	/* One page below. */
	seen = poke((long)source - PAGE, 7);
	EXPECT(seen == 0 || FAULTED(seen));
	if (seen == 0)
		EXPECT_EQ(source[-(long)PAGE], 7);
	EXPECT_EQ(verify((long)source, SIZE, 1), 0);
	quit(&p);
}

static long f_advise_other(long pid, long addr, long size, long advice)
{
	struct iovec part = { (void *)addr, size };
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	long done = fd < 0 ? -1 : syscall(SYS_process_madvise, fd, &part, 1, advice, 0);
	int e = errno;

	close(fd);
	return done < 0 ? -e : done;
}

CASE(kind_process_madvise, "another process pages memory out, before and after it is shared")
{
	struct peer p = spawn();
	char *source = anonymous(WINDOW);
	long addr, answer;

	fill(source, SIZE, 1);
	answer = call4(&p, f_advise_other, getpid(), (long)source, SIZE, MADV_PAGEOUT);
	if (answer < 0)
		skip_case("may not advise another process");
	addr = share(&p, source, WINDOW);
	EXPECT_EQ(r_verify(&p, addr, SIZE, 1), 0);
	EXPECT_EQ(r_poke(&p, addr, 9), 0);
	for (int i = 0; i < 2; i++) {
		EXPECT(call4(&p, f_advise_other, getpid(), (long)source, SIZE, i ? MADV_COLD : MADV_PAGEOUT) >= 0);
		EXPECT_EQ(source[0], 9);
		EXPECT_EQ(verify((long)source + PAGE, PAGE, 1), verify((long)source + PAGE, PAGE, 1));
		EXPECT_EQ(r_peek(&p, addr), 9);
	}
	quit(&p);
}

CASE(kind_sealed_memfd, "a file that may not be written is shared, and no peer writes to it")
{
	struct peer p = spawn();
	int fd = memfd_create("conformance", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	char *source, *text = anonymous(SIZE);
	long addr, seen;

	setenv("XPMEM_WAIT", "5", 1);
	fill(text, SIZE, 1);
	EXPECT_EQ(write(fd, text, SIZE), (long)SIZE);
	EXPECT_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
	source = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
	if (source == MAP_FAILED)
		skip_case("a file with this seal is not mapped shared before Linux 6.7");
	addr = share(&p, source, SIZE);
	if (addr != -1) {
		/* userfaultfd does not take what can never be written. */
		seen = r_verify(&p, addr, SIZE, 1);
		EXPECT(seen == 0 || FAULTED(seen));
		EXPECT(FAULTED(r_poke(&p, addr, 9)));
	}
	EXPECT_EQ(verify((long)source, SIZE, 1), 0);
	quit(&p);
}

CASE(kind_private_dev_zero, "a private mapping of /dev/zero is shared as other memory")
{
	struct peer p = spawn();
	int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	char *source;
	long addr;

	if (fd < 0)
		skip_case("no /dev/zero");
	source = mmap(NULL, WINDOW, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	EXPECT(source != MAP_FAILED);
	fill(source, SIZE, 1);
	addr = share(&p, source, WINDOW);
	EXPECT_EQ(r_verify(&p, addr, SIZE, 1), 0);
	EXPECT_EQ(r_peek(&p, addr + SIZE), 0);
	EXPECT_EQ(r_poke(&p, addr + SIZE, 9), 0);
	EXPECT_EQ(source[SIZE], 9);
	source[0] = 8;
	EXPECT_EQ(r_peek(&p, addr), 8);
	quit(&p);
}

CASE(kind_cut_file, "of a private mapping that reaches beyond its file the rest is SIGBUS, for the peer alone")
{
	struct peer p = spawn();
	int fd = memfd_create("conformance", MFD_CLOEXEC);
	char *source, *text = anonymous(SIZE);
	long addr;

	fill(text, SIZE, 1);
	EXPECT_EQ(write(fd, text, SIZE), (long)SIZE);
	source = mmap(NULL, 2 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	EXPECT(source != MAP_FAILED);
	source[PAGE] = 5;
	setenv("XPMEM_WAIT", "5", 1);
	addr = share(&p, source, WINDOW);
	EXPECT(FAULTED(r_peek(&p, addr + SIZE + PAGE)));
	EXPECT_EQ(r_verify(&p, addr, PAGE, 1), 0);
	EXPECT_EQ(r_peek(&p, addr + PAGE), 5);
	EXPECT_EQ(ftruncate(fd, 2 * PAGE), 0);
	EXPECT_EQ(source[PAGE], 5);
	EXPECT_EQ(r_peek(&p, addr + PAGE), 5);
	EXPECT_EQ(r_poke(&p, addr, 6), 0);
	EXPECT_EQ(source[0], 6);
	quit(&p);
}

CASE(kind_secret, "memory of memfd_secret is refused, and stays")
{
#ifdef SYS_memfd_secret
	struct peer p = spawn();
	int fd = (int)syscall(SYS_memfd_secret, 0);
	char *source;
	long addr, seen;

	if (fd < 0)
		skip_case("no memfd_secret");
	EXPECT_EQ(ftruncate(fd, SIZE), 0);
	source = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (source == MAP_FAILED)
		skip_case("no memfd_secret");
	fill(source, SIZE, 1);
	setenv("XPMEM_WAIT", "5", 1);
	addr = share(&p, source, SIZE);
	seen = addr == -1 ? -SIGBUS : r_verify(&p, addr, SIZE, 1);
	EXPECT(seen == 0 || FAULTED(seen));
	EXPECT_EQ(verify((long)source, SIZE, 1), 0);
	quit(&p);
#else
	skip_case("no memfd_secret");
#endif
}

static volatile sig_atomic_t deep;

static void on_signal(int signo)
{
	volatile char local[2048];

	(void)signo;
	memset((void *)local, 1, sizeof local);
	deep += local[100];
}

CASE(kind_signal_stack, "signals come on a stack that is being shared, and shared")
{
	struct peer p = spawn();
	char *source = anonymous(WINDOW);
	stack_t stack = { .ss_sp = source, .ss_size = SIZE };
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };
	long addr;

	EXPECT_EQ(sigaltstack(&stack, NULL), 0);
	EXPECT_EQ(sigaction(SIGUSR1, &sa, NULL), 0);
	addr = share(&p, source, WINDOW);
	for (int i = 0; i < 200; i++) {
		if (i % 20 == 0)
			start(&p, f_peek, addr + (i / 20) * PAGE, 0, 0, 0);
		EXPECT_EQ(raise(SIGUSR1), 0);
		if (i % 20 == 19)
			EXPECT(finish(&p) >= 0);
	}
	EXPECT_EQ(deep, 200);
	/* And when the peer's is the only page. */
	EXPECT_EQ(madvise(source, SIZE, MADV_DONTNEED), 0);
	EXPECT_EQ(raise(SIGUSR1), 0);
	EXPECT_EQ(deep, 201);
	quit(&p);
}

struct locked {
	pthread_mutex_t mutex;
	volatile long count;
};

static void *count_up(void *arg)
{
	struct locked *l = arg;

	for (int i = 0; i < 2000; i++) {
		pthread_mutex_lock(&l->mutex);
		l->count = l->count + 1;
		pthread_mutex_unlock(&l->mutex);
	}
	return NULL;
}

static long f_count_up(long at, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	count_up((void *)at);
	return 0;
}

static long f_lock_and_die(long at, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return pthread_mutex_lock(&((struct locked *)at)->mutex);
}

CASE(kind_inheriting_mutex, "a robust mutex with priority inheritance works through its promotion, and outlives who holds it")
{
	struct peer p = spawn();
	char *source = anonymous(WINDOW);
	struct locked *l = (struct locked *)source;
	pthread_mutexattr_t how;
	pthread_t threads[2];
	long addr;

	pthread_mutexattr_init(&how);
	pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setprotocol(&how, PTHREAD_PRIO_INHERIT);
	pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
	if (pthread_mutex_init(&l->mutex, &how))
		skip_case("no such mutexes");
	EXPECT_EQ(pthread_mutex_lock(&l->mutex), 0);
	for (int i = 0; i < 2; i++)
		EXPECT_EQ(pthread_create(&threads[i], NULL, count_up, l), 0);
	usleep(20000);
	/* Both wait now. */
	addr = share(&p, source, WINDOW);
	EXPECT(r_peek(&p, addr) >= 0);
	EXPECT_EQ(pthread_mutex_unlock(&l->mutex), 0);
	EXPECT_EQ(call(&p, f_count_up, addr, 0, 0), 0);
	for (int i = 0; i < 2; i++)
		EXPECT_EQ(pthread_join(threads[i], NULL), 0);
	EXPECT_EQ(l->count, 6000);
	EXPECT_EQ(call(&p, f_lock_and_die, addr, 0, 0), 0);
	kill_peer(&p);
	EXPECT_EQ(pthread_mutex_lock(&l->mutex), EOWNERDEAD);
	EXPECT_EQ(pthread_mutex_consistent(&l->mutex), 0);
	EXPECT_EQ(pthread_mutex_unlock(&l->mutex), 0);
}

CASE(kind_all_executable, "memory of a program whose readable memory is executable is shared")
{
	struct peer p = spawn();
	char *source;
	long addr;

	if (personality(personality(0xffffffff) | READ_IMPLIES_EXEC) < 0)
		skip_case("no such personality");
	source = anonymous(WINDOW);
	fill(source, WINDOW, 1);
	addr = share(&p, source, WINDOW);
	EXPECT_EQ(r_verify(&p, addr, WINDOW, 1), 0);
	EXPECT_EQ(r_poke(&p, addr + 3, 9), 0);
	EXPECT_EQ(source[3], 9);
	EXPECT_EQ(munmap(source, SIZE), 0);
	EXPECT(FAULTED(r_peek(&p, addr)));
	quit(&p);
}
