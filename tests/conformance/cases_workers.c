/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Threads of the kernel that work for the program: io_uring's. They write to its
 * memory, and cannot be stopped as its own can.
 */
#include "harness.h"

#include <linux/io_uring.h>
#include <sys/syscall.h>

#define WINDOW (1024 * PAGE)

struct ring {
	int fd;
	char *rings;
	struct io_uring_sqe *sqes;
	struct io_uring_params params;
};

static void open_ring(struct ring *r, unsigned flags)
{
	memset(r, 0, sizeof *r);
	r->params.flags = flags;
	r->params.sq_thread_idle = 2000;
	r->fd = (int)syscall(__NR_io_uring_setup, 4, &r->params);
	if (r->fd < 0)
		skip_case("no io_uring");
	r->rings = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	r->sqes = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQES);
	EXPECT((void *)r->rings != MAP_FAILED && (void *)r->sqes != MAP_FAILED);
	if (!(r->params.features & IORING_FEAT_SINGLE_MMAP))
		skip_case("an io_uring of old");
}

static unsigned *word(struct ring *r, unsigned offset)
{
	return (unsigned *)(r->rings + offset);
}

static void begin_read(struct ring *r, int fd, void *to, unsigned size)
{
	unsigned *tail = word(r, r->params.sq_off.tail), place = *tail & *word(r, r->params.sq_off.ring_mask);

	r->sqes[place] = (struct io_uring_sqe){ .opcode = IORING_OP_READ, .fd = fd, .addr = (unsigned long)to,
						.len = size, .flags = IOSQE_ASYNC };
	word(r, r->params.sq_off.array)[place] = place;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (r->params.flags & IORING_SETUP_SQPOLL) {
		__sync_synchronize();
		if (*(volatile unsigned *)word(r, r->params.sq_off.flags) & IORING_SQ_NEED_WAKEUP)
			syscall(__NR_io_uring_enter, r->fd, 0, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0);
		return;
	}
	while (syscall(__NR_io_uring_enter, r->fd, 1, 0, 0, NULL, 0) < 0)
		EXPECT_EQ(errno, EINTR);
}

static int end_read(struct ring *r)
{
	unsigned *head = word(r, r->params.cq_off.head), *tail = word(r, r->params.cq_off.tail);
	struct io_uring_cqe *answers = (struct io_uring_cqe *)(r->rings + r->params.cq_off.cqes);
	int result;

	while (*head == __atomic_load_n(tail, __ATOMIC_ACQUIRE))
		syscall(__NR_io_uring_enter, r->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
	result = answers[*head & *word(r, r->params.cq_off.ring_mask)].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return result;
}

static long f_peek(long addr, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return peek(addr);
}

static void reads_of(unsigned flags)
{
	struct peer p = spawn();
	size_t size = 64 * PAGE;
	int fd = memfd_create("conformance", MFD_CLOEXEC);
	char *window = anonymous(WINDOW), *text = anonymous(size);
	struct ring ring;
	long addr, refused = 0, odd = 0;

	fill(text, size, 7);
	EXPECT_EQ(write(fd, text, size), (long)size);
	open_ring(&ring, flags);
	addr = share(&p, window, WINDOW);
	for (long i = 0; i < 200; i++) {
		size_t at = i % (WINDOW / size) * size;
		char *buffer = window + at;
		int answer;

		if (at == 0)
			EXPECT_EQ(mmap(window, WINDOW, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
				  window);
		memset(buffer, 0x11, size);
		start(&p, f_peek, addr + at + i * 7 % 64 * PAGE, 0, 0, 0);
		for (volatile unsigned k = i * 977 % 40000; k; k--)
			;
		begin_read(&ring, fd, buffer, size);
		answer = end_read(&ring);
		EXPECT(finish(&p) >= 0);
		if (answer < 0) {
			EXPECT_EQ(answer, -EFAULT);
			refused++;
			continue;
		}
		odd += answer != (int)size;
		EXPECT_EQ(verify((long)buffer, answer, 7), 0);
		EXPECT_EQ(r_verify(&p, addr + at, answer, 7), 0);
	}
	if (refused || odd)
		printf("  %ld of 200 reads refused, %ld cut short\n", refused, odd);
	quit(&p);
}

CASE(workers_read, "what io_uring's workers read into memory while it is shared is there")
{
	reads_of(0);
}

CASE(workers_poll, "so is what its polling thread reads")
{
	reads_of(IORING_SETUP_SQPOLL);
}

CASE(workers_wait, "a worker that waits for others to write is not told of a stop")
{
	struct peer p = spawn();
	char *window = anonymous(WINDOW), text[64];
	struct ring ring;
	int pipes[2];
	long addr;

	open_ring(&ring, 0);
	EXPECT_EQ(pipe(pipes), 0);
	addr = share(&p, window, WINDOW);
	memset(text, 'w', sizeof text);
	for (int i = 0; i < 50; i++) {
		char *to = window + (512 + i) * PAGE;

		begin_read(&ring, pipes[0], to, sizeof text);
		usleep(i % 5 * 1000);
		/* What the read is for among it. */
		EXPECT(r_peek(&p, addr + i * PAGE) >= 0);
		EXPECT(r_peek(&p, addr + (512 + i) * PAGE) >= 0);
		EXPECT_EQ(write(pipes[1], text, sizeof text), (long)sizeof text);
		EXPECT_EQ(end_read(&ring), (int)sizeof text);
		EXPECT_EQ(memcmp(to, text, sizeof text), 0);
		EXPECT_EQ(r_peek(&p, addr + (512 + i) * PAGE), 'w');
	}
	quit(&p);
}
