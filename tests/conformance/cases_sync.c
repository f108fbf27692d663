/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* An attachment is ordinary memory: locks, atomics, and the kernel's own access. */
#include "harness.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

static long f_add(long addr, long times, long c, long d)
{
	long *word = (long *)addr;

	(void)c, (void)d;
	for (long i = 0; i < times; i++)
		__atomic_fetch_add(word, 1, __ATOMIC_RELAXED);
	return 0;
}

CASE(atomics, "atomic additions of two processes and the owner all count")
{
	struct peer p = spawn(), q = spawn();
	char *source = anonymous(PAGE);
	long segid = make_all(), one, two;

	one = r_attach(&p, r_get(&p, segid, XPMEM_RDWR), (long)source, PAGE);
	two = r_attach(&q, r_get(&q, segid, XPMEM_RDWR), (long)source, PAGE);
	EXPECT(one != -1 && two != -1);
	/* The first touch comes while the owner writes, too. */
	start(&p, f_add, one + 64, 300000, 0, 0);
	start(&q, f_add, two + 64, 300000, 0, 0);
	f_add((long)source + 64, 300000, 0, 0);
	EXPECT_EQ(finish(&p), 0);
	EXPECT_EQ(finish(&q), 0);
	EXPECT_EQ(*(long *)(source + 64), 900000);
	quit(&p);
	quit(&q);
}

struct shared {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	long turn, count;
	uint32_t futex;
};

static long f_turns(long addr, long mine, long rounds, long d)
{
	struct shared *s = (struct shared *)addr;

	(void)d;
	for (long i = 0; i < rounds; i++) {
		if (pthread_mutex_lock(&s->mutex))
			return 1;
		while (s->turn != mine)
			if (pthread_cond_wait(&s->cond, &s->mutex))
				return 2;
		s->count++;
		s->turn = !mine;
		pthread_cond_broadcast(&s->cond);
		pthread_mutex_unlock(&s->mutex);
	}
	return 0;
}

CASE(mutex_and_condition, "a process-shared mutex and condition variable on an attachment")
{
	struct peer p = spawn();
	struct shared *s = anonymous(PAGE);
	pthread_mutexattr_t mutex;
	pthread_condattr_t cond;
	long addr;

	pthread_mutexattr_init(&mutex);
	pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&s->mutex, &mutex);
	pthread_condattr_init(&cond);
	pthread_condattr_setpshared(&cond, PTHREAD_PROCESS_SHARED);
	pthread_cond_init(&s->cond, &cond);
	addr = share(&p, s, PAGE);
	EXPECT_EQ(r_peek(&p, addr), *(unsigned char *)s);
	start(&p, f_turns, addr, 1, 2000, 0);
	EXPECT_EQ(f_turns((long)s, 0, 2000, 0), 0);
	EXPECT_EQ(finish(&p), 0);
	EXPECT_EQ(s->count, 4000);
	quit(&p);
}

static long f_futex_wait(long addr, long value, long c, long d)
{
	struct timespec limit = { 10, 0 };

	(void)c, (void)d;
	while (__atomic_load_n((uint32_t *)addr, __ATOMIC_ACQUIRE) == (uint32_t)value)
		if (syscall(SYS_futex, addr, FUTEX_WAIT, value, &limit, NULL, 0) && errno != EAGAIN &&
		    errno != EINTR)
			return -1;
	return 0;
}

CASE(futex, "a shared futex wakes a waiter in the other process, both ways")
{
	struct peer p = spawn();
	uint32_t *word = anonymous(PAGE);
	struct timespec nap = { 0, 20000000 };
	long addr = share(&p, word, PAGE), woken;

	EXPECT_EQ(r_peek(&p, addr), 0);
	for (int i = 0; i < 5; i++) {
		start(&p, f_futex_wait, addr, i, 0, 0);
		nanosleep(&nap, NULL);
		__atomic_store_n(word, i + 1, __ATOMIC_RELEASE);
		woken = syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
		EXPECT(woken == 1 || woken == 0);
		EXPECT_EQ(finish(&p), 0);
	}
	quit(&p);
}

static void *wait_here(void *word)
{
	return (void *)f_futex_wait((long)word, 0, 0, 0);
}

static long f_set_and_wake(long addr, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	__atomic_store_n((uint32_t *)addr, 1, __ATOMIC_RELEASE);
	return syscall(SYS_futex, addr, FUTEX_WAKE, 1, NULL, NULL, 0);
}

CASE(futex_waiter_before_sharing, "a thread that waited before its page was shared is woken through it")
{
	struct peer p = spawn();
	uint32_t *word = anonymous(PAGE);
	struct timespec nap = { 0, 50000000 };
	pthread_t thread;
	void *result;
	long addr;

	EXPECT_EQ(pthread_create(&thread, NULL, wait_here, word), 0);
	nanosleep(&nap, NULL);
	addr = share(&p, word, PAGE);
	EXPECT_EQ(r_peek(&p, addr), 0);
	nanosleep(&nap, NULL);
	EXPECT(call(&p, f_set_and_wake, addr, 0, 0) >= 0);
	EXPECT_EQ(pthread_join(thread, &result), 0);
	EXPECT_EQ((long)result, 0);
	quit(&p);
}

static long f_direct(long addr, long size, long c, long d)
{
	char path[256];
	const char *folder = getenv("TMPDIR");
	int fd;
	ssize_t n;

	(void)c, (void)d;
	snprintf(path, sizeof path, "%s/xpmem-direct-XXXXXX", folder ? folder : "/tmp");
	fd = mkostemp(path, O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		return -1;
	unlink(path);
	n = write(fd, (void *)addr, size);
	if (n == size && pread(fd, (void *)(addr + size), size, 0) != size)
		n = -2;
	close(fd);
	return n;
}

CASE(direct_io, "O_DIRECT writes from and reads into an attachment")
{
	struct peer p = spawn();
	char *source = anonymous(16 * PAGE);
	long addr, n;

	fill(source, 8 * PAGE, 1);
	addr = share(&p, source, 16 * PAGE);
	for (int i = 0; i < 16; i++)
		EXPECT(r_peek(&p, addr + i * PAGE) >= 0);
	n = call(&p, f_direct, addr, 8 * PAGE, 0);
	if (n == -1 && errno == EINVAL)
		skip_case("no O_DIRECT in TMPDIR");
	EXPECT_EQ(n, 8 * PAGE);
	EXPECT_EQ(verify((long)source + 8 * PAGE, 8 * PAGE, 1), 0);
	quit(&p);
}

static long f_readv(long pid, long addr, long size, long seed)
{
	char *bytes = malloc(size);
	struct iovec local = { bytes, size }, remote = { (void *)addr, size };
	ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);

	if (n == size && verify((long)bytes, size, seed))
		n = -2;
	free(bytes);
	return n;
}

static long f_self(long b, long c, long d, long e)
{
	(void)b, (void)c, (void)d, (void)e;
	return getpid();
}

CASE(vm_readv, "process_vm_readv of an attachment, from the attacher itself")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long addr, pid;

	fill(source, 8 * PAGE, 1);
	addr = share(&p, source, 8 * PAGE);
	pid = call(&p, f_self, 0, 0, 0);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT_EQ(call4(&p, f_readv, pid, addr, 8 * PAGE, 1), 8 * PAGE);
	quit(&p);
}

/* write(2) from and read(2) into the attachment, through a pipe. */
static long f_pipe(long from, long to, long size, long d)
{
	int fds[2];
	long done = 0;

	(void)d;
	if (pipe(fds))
		return -1;
	while (done < size) {
		long part = size - done < 4096 ? size - done : 4096;

		if (write(fds[1], (void *)(from + done), part) != part)
			return -2;
		if (read(fds[0], (void *)(to + done), part) != part)
			return -3;
		done += part;
	}
	close(fds[0]);
	close(fds[1]);
	return 0;
}

CASE(read_and_write, "read(2) and write(2) on pages touched before")
{
	struct peer p = spawn();
	char *source = anonymous(64 * PAGE);
	long addr;

	fill(source, 32 * PAGE, 1);
	addr = share(&p, source, 64 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 32 * PAGE, 1), 0);
	for (int i = 32; i < 64; i++)
		EXPECT_EQ(r_peek(&p, addr + i * PAGE), 0);
	EXPECT_EQ(call(&p, f_pipe, addr, addr + 32 * PAGE, 32 * PAGE), 0);
	EXPECT_EQ(verify((long)source + 32 * PAGE, 32 * PAGE, 1), 0);
	quit(&p);
}

CASE(read_and_write_untouched, "a syscall is the first to touch a small attachment")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long addr;

	fill(source, 4 * PAGE, 1);
	addr = share(&p, source, 8 * PAGE);
	EXPECT_EQ(call(&p, f_pipe, addr, addr + 4 * PAGE, 4 * PAGE), 0);
	EXPECT_EQ(verify((long)source + 4 * PAGE, 4 * PAGE, 1), 0);
	quit(&p);
}

struct churn {
	volatile long stop;
	long *words;
	long size;
	long sum;
};

static void *churner(void *argument)
{
	struct churn *c = argument;

	while (!c->stop) {
		for (long i = 0; i < c->size / (long)sizeof(long); i += 64)
			c->words[i]++;
		c->sum++;
	}
	return NULL;
}

CASE(promotion_under_writes, "no store of the owner's threads is lost while a peer first touches")
{
	struct peer p = spawn();
	enum { THREADS = 4, PART = 64 * 4096 };
	struct churn churn[THREADS];
	pthread_t threads[THREADS];
	char *source = anonymous(THREADS * PART);
	long addr;

	for (int i = 0; i < THREADS; i++) {
		churn[i] = (struct churn){ 0, (long *)(source + i * PART), PART, 0 };
		EXPECT_EQ(pthread_create(&threads[i], NULL, churner, &churn[i]), 0);
	}
	addr = share(&p, source, THREADS * PART);
	for (int i = 0; i < THREADS * PART / 4096; i++)
		EXPECT(r_peek(&p, addr + i * PAGE) >= 0);
	for (int i = 0; i < THREADS; i++)
		churn[i].stop = 1;
	for (int i = 0; i < THREADS; i++) {
		EXPECT_EQ(pthread_join(threads[i], NULL), 0);
		for (long k = 0; k < PART / (long)sizeof(long); k += 64)
			EXPECT_EQ(churn[i].words[k], churn[i].sum);
	}
	quit(&p);
}
