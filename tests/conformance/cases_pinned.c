/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory that a device, here the kernel's io_uring, has pinned. */
#include "harness.h"

#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <sys/uio.h>

struct ring {
	int fd;
	char *rings;
	struct io_uring_sqe *sqes;
	struct io_uring_params params;
};

static void open_ring(struct ring *r)
{
	memset(r, 0, sizeof *r);
	r->fd = (int)syscall(__NR_io_uring_setup, 4, &r->params);
	if (r->fd < 0)
		skip_case("no io_uring");
	if (!(r->params.features & IORING_FEAT_SINGLE_MMAP))
		skip_case("an io_uring of old");
	r->rings = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	r->sqes = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQES);
	if (r->rings == MAP_FAILED)
		r->rings = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	EXPECT(r->rings != MAP_FAILED && r->sqes != MAP_FAILED);
}

/* Reads from `fd` into the registered buffer, by way of its pinned pages. */
static int read_fixed(struct ring *r, int fd, void *to, unsigned size)
{
	unsigned *tail = (unsigned *)(r->rings + r->params.sq_off.tail);
	unsigned *array = (unsigned *)(r->rings + r->params.sq_off.array);
	unsigned *head = (unsigned *)(r->rings + r->params.cq_off.head);
	struct io_uring_cqe *cqes = (struct io_uring_cqe *)(r->rings + r->params.cq_off.cqes);
	int result;

	memset(r->sqes, 0, sizeof *r->sqes);
	r->sqes->opcode = IORING_OP_READ_FIXED;
	r->sqes->fd = fd;
	r->sqes->addr = (unsigned long)to;
	r->sqes->len = size;
	array[*tail & 3] = 0;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	while (syscall(__NR_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		EXPECT(errno == EINTR);
	result = cqes[*head & 7].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return result;
}

CASE(source_pinned, "what a device writes to pinned memory is not lost")
{
	struct peer p = spawn();
	char *source = anonymous(16 * PAGE);
	struct iovec part = { source + 4 * PAGE, PAGE };
	struct ring ring;
	int pipes[2];
	char text[64];
	long addr;

	open_ring(&ring);
	fill(source, 16 * PAGE, 1);
	if (syscall(__NR_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &part, 1))
		skip_case("may not register buffers");
	addr = share(&p, source, 16 * PAGE);
	/* Refused, or served with the very page: never a copy of it. */
	r_peek(&p, addr + 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	EXPECT_EQ(pipe(pipes), 0);
	memset(text, 'd', sizeof text);
	EXPECT_EQ(write(pipes[1], text, sizeof text), (long)sizeof text);
	EXPECT_EQ(read_fixed(&ring, pipes[0], part.iov_base, sizeof text), (int)sizeof text);
	EXPECT_EQ(memcmp(part.iov_base, text, sizeof text), 0);
	quit(&p);
}
