/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Whoever writes to memory that is being shared for the first time: a device by
 * direct I/O, another process. Nothing that the program did says when; CASES_ROUNDS
 * tries more moments.
 */
#include "harness.h"

#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static long rounds(long usual)
{
	const char *more = getenv("CASES_ROUNDS");

	return more ? atol(more) : usual;
}

static unsigned random_state = 12345;

static unsigned below(unsigned n)
{
	random_state = random_state * 1664525 + 1013904223;
	return (random_state >> 8) % n;
}

#define WINDOW (1024 * PAGE)

static long f_touch(long addr, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return peek(addr);
}

static void submit_read(aio_context_t context, int fd, void *to, size_t size)
{
	struct iocb read = { .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = fd };
	struct iocb *list = &read;

	read.aio_buf = (unsigned long)to;
	read.aio_nbytes = size;
	EXPECT_EQ(syscall(SYS_io_submit, context, 1, &list), 1);
}

static void await_read(aio_context_t context, size_t size)
{
	struct io_event event;
	long got;

	do
		got = syscall(SYS_io_getevents, context, 1, 1, &event, NULL);
	while (got < 0 && errno == EINTR);
	EXPECT_EQ(got, 1);
	EXPECT_EQ(event.res, (long)size);
}

static int direct_file(size_t size, long seed)
{
	char name[] = "./xpmem-conformance-XXXXXX", *text = anonymous(size);
	int fd = mkstemp(name);

	if (fd < 0)
		skip_case("no file can be made here");
	fill(text, size, seed);
	EXPECT_EQ(write(fd, text, size), (long)size);
	EXPECT_EQ(fsync(fd), 0);
	munmap(text, size);
	close(fd);
	fd = open(name, O_RDWR | O_DIRECT);
	unlink(name);
	if (fd < 0)
		skip_case("no direct I/O here");
	return fd;
}

CASE(direct_read_during_promotion, "what direct I/O reads into memory while it is shared is not lost")
{
	struct peer p = spawn();
	/* Larger than what is shared at once. */
	size_t size = 128 * PAGE;
	int fd = direct_file(size, 7);
	char *window = anonymous(WINDOW);
	aio_context_t context = 0;
	long addr, faulted = 0;

	if (syscall(SYS_io_setup, 4, &context))
		skip_case("no asynchronous I/O");
	addr = share(&p, window, WINDOW);
	for (long i = 0, n = rounds(200); i < n; i++) {
		size_t at = i % (WINDOW / size) * size;
		char *buffer = window + at;
		long seen;

		if (at == 0)
			EXPECT_EQ(mmap(window, WINDOW, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
				  window);
		memset(buffer, 0x11, size);
		submit_read(context, fd, buffer, size);
		for (unsigned k = below(20000); k; k--)
			__asm__ volatile("");
		start(&p, f_touch, addr + at + below(size), 0, 0, 0);
		await_read(context, size);
		EXPECT_EQ(verify((long)buffer, size, 7), 0);
		seen = finish(&p);
		faulted += FAULTED(seen);
		seen = r_verify(&p, addr + at, size, 7);
		EXPECT(seen == 0 || FAULTED(seen));
		faulted += FAULTED(seen);
		EXPECT_EQ(verify((long)buffer, size, 7), 0);
	}
	if (getenv("CASES_ROUNDS"))
		printf("  %ld direct reads: 0 lost, %ld touches refused\n", rounds(0), faulted);
	/* A pin of a moment is waited for. */
	EXPECT_EQ(faulted, 0);
	quit(&p);
}

struct writer {
	volatile long stop, last, refused;
};

/* Writes ever larger numbers to a word of each page of another process. */
static long f_write_words(long pid, long memory, long pages, long words)
{
	struct writer *w = (struct writer *)words;
	struct iovec remote[64];
	long values[64], number;

	for (long i = 0; i < pages; i++)
		remote[i] = (struct iovec){ (char *)memory + i * PAGE, sizeof number };
	number = w->last;
	do {
		struct iovec local = { values, pages * sizeof number };
		long done;

		for (long i = 0; i < pages; i++)
			values[i] = number + 1;
		do {
			done = process_vm_writev(pid, &local, 1, remote, pages, 0);
			if (done != (long)local.iov_len)
				w->refused++;
		} while (done != (long)local.iov_len && w->refused < 1000000);
		if (w->refused == 1000000)
			return -1;
		w->last = ++number;
	} while (!w->stop);
	return 0;
}

CASE(process_writes_during_promotion, "what another process writes into memory while it is shared is not lost")
{
	struct peer p = spawn(), other;
	size_t pages = 64;
	char *window = anonymous(WINDOW);
	struct writer *w = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	long addr;

	other = spawn();
	addr = share(&p, window, WINDOW);
	for (long i = 0, n = rounds(200); i < n; i++) {
		size_t at = i % (WINDOW / (pages * PAGE)) * pages * PAGE;
		char *buffer = window + at;

		if (at == 0)
			EXPECT_EQ(mmap(window, WINDOW, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
				  window);
		memset(buffer, 0, pages * PAGE);
		w->stop = 0;
		start(&other, f_write_words, getpid(), (long)buffer, pages, (long)w);
		for (unsigned k = below(100000); k; k--)
			__asm__ volatile("");
		EXPECT(r_peek(&p, addr + at + below(pages) * PAGE) >= 0);
		w->stop = 1;
		EXPECT_EQ(finish(&other), 0);
		for (size_t k = 0; k < pages; k++) {
			EXPECT_EQ(*(long *)(buffer + k * PAGE), w->last);
			EXPECT_EQ(r_peek(&p, addr + at + k * PAGE), w->last & 0xff);
		}
	}
	if (getenv("CASES_ROUNDS"))
		printf("  %ld rounds of writes: 0 lost, %ld of %ld refused\n", rounds(0), w->refused,
		       w->last);
	quit(&other);
	quit(&p);
}
