/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory that the kernel reads from or writes to by itself: pipes and sockets that take
 * it by reference, rings. */
#include "harness.h"

#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define WINDOW (1024 * PAGE)
#define SIZE (16 * PAGE)

CASE(kind_splice, "what is on its way in a pipe, by reference, is what it was when it was given")
{
	struct peer p = spawn();
	char *source = anonymous(SIZE), *got = anonymous(SIZE);
	struct iovec part = { source, SIZE };
	int pipes[2];
	long addr;

	fill(source, SIZE, 1);
	EXPECT_EQ(pipe(pipes), 0);
	EXPECT_EQ(vmsplice(pipes[1], &part, 1, SPLICE_F_GIFT), (long)SIZE);
	addr = share(&p, source, SIZE);
	EXPECT_EQ(r_verify(&p, addr, SIZE, 1), 0);
	EXPECT_EQ(read(pipes[0], got, SIZE), (long)SIZE);
	EXPECT_EQ(memcmp(got, source, SIZE), 0);
	/* And of shared memory. */
	EXPECT_EQ(vmsplice(pipes[1], &part, 1, 0), (long)SIZE);
	EXPECT_EQ(munmap(source, SIZE), 0);
	EXPECT(FAULTED(r_peek(&p, addr)));
	memset(got, 0, SIZE);
	EXPECT_EQ(read(pipes[0], got, SIZE), (long)SIZE);
	EXPECT_EQ(verify((long)got, SIZE, 1), 0);
	quit(&p);
}

CASE(kind_zerocopy, "what a socket sends by reference arrives as it was")
{
	struct peer p = spawn();
	char *source = anonymous(SIZE), *got = anonymous(SIZE);
	int fd[2], one = 1;
	long addr, sent;

	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t size = sizeof at;
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&at, size) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&at, &size) || connect(fd[0], (struct sockaddr *)&at, size))
		skip_case("no loopback here");
	fd[1] = accept(listener, NULL, NULL);
	EXPECT(fd[1] >= 0);
	if (setsockopt(fd[0], SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one))
		skip_case("no MSG_ZEROCOPY here");
	fill(source, SIZE, 1);
	sent = send(fd[0], source, SIZE, MSG_ZEROCOPY);
	if (sent < 0 && errno == ENOBUFS)
		skip_case("may not pin so much memory");
	EXPECT(sent > 0);
	addr = share(&p, source, SIZE);
	EXPECT_EQ(r_verify(&p, addr, SIZE, 1), 0);
	EXPECT_EQ(recv(fd[1], got, sent, MSG_WAITALL), sent);
	EXPECT_EQ(memcmp(got, source, sent), 0);
	quit(&p);
}

CASE(kind_rings, "rings that the kernel writes to are refused, or shared; the owner goes on")
{
	struct peer p = spawn();
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE, .size = sizeof attr,
					.config = PERF_COUNT_SW_CPU_CLOCK, .exclude_kernel = 1 };
	struct io_uring_params params = { 0 };
	int perf = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	int ring = (int)syscall(__NR_io_uring_setup, 4, &params);
	unsigned long aio = 0;
	void *places[3] = { MAP_FAILED, MAP_FAILED, MAP_FAILED };

	if (perf >= 0)
		places[0] = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, perf, 0);
	if (ring >= 0)
		places[1] = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	if (!syscall(SYS_io_setup, 8, &aio))
		places[2] = (void *)aio;
	setenv("XPMEM_WAIT", "5", 1);
	for (int i = 0; i < 3; i++) {
		long addr, before;

		if (places[i] == MAP_FAILED)
			continue;
		before = peek((long)places[i]);
		addr = share(&p, places[i], WINDOW);
		if (addr != -1)
			r_peek(&p, addr);
		EXPECT_EQ(peek((long)places[i]), before);
	}
	if (aio)
		EXPECT_EQ(syscall(SYS_io_destroy, aio), 0);
	quit(&p);
}

CASE(kind_buffer_ring, "a ring of buffers that io_uring takes from is read by it, registered first or shared first")
{
	struct peer p = spawn();
	struct io_uring_params params = { 0 };
	int fd = (int)syscall(__NR_io_uring_setup, 4, &params);
	long apid;

	if (fd < 0)
		skip_case("no io_uring");
	setenv("XPMEM_WAIT", "5", 1);
	apid = r_get(&p, make_all(), XPMEM_RDWR);
	for (int first = 0; first < 2; first++) {
		/* A ring of 256, and one buffer, in memory that is shared lazily. */
		char *source = anonymous(WINDOW), *rings, text[64];
		struct io_uring_buf_reg about = { .ring_addr = (unsigned long)source, .ring_entries = 256, .bgid = first };
		struct io_uring_buf *buffers = (struct io_uring_buf *)source;
		struct io_uring_sqe *sqe;
		struct io_uring_cqe *cqe;
		int pipes[2];
		long addr = r_attach(&p, apid, (long)source, WINDOW);

		EXPECT_EQ(pipe(pipes), 0);
		fill(source + PAGE, PAGE, 1);
		if (!first)
			EXPECT(r_peek(&p, addr) >= 0);
		if (syscall(__NR_io_uring_register, fd, IORING_REGISTER_PBUF_RING, &about, 1))
			skip_case("no rings of buffers");
		/* It has been shared before it was pinned. */
		if (first)
			EXPECT(r_peek(&p, addr) >= 0);
		r_peek(&p, addr + PAGE);
		buffers[0].addr = (unsigned long)source + PAGE;
		buffers[0].len = sizeof text;
		buffers[0].bid = 7;
		__atomic_store_n(&((struct io_uring_buf_ring *)source)->tail, 1, __ATOMIC_RELEASE);
		memset(text, 'a' + first, sizeof text);
		EXPECT_EQ(write(pipes[1], text, sizeof text), (long)sizeof text);
		rings = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
		if (rings == MAP_FAILED)
			rings = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
		sqe = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQES);
		EXPECT(rings != MAP_FAILED && (void *)sqe != MAP_FAILED);
		sqe[first] = (struct io_uring_sqe){ .opcode = IORING_OP_READ, .fd = pipes[0], .len = sizeof text,
						    .flags = IOSQE_BUFFER_SELECT, .buf_group = first, .off = -1ul };
		((unsigned *)(rings + params.sq_off.array))[first] = first;
		__atomic_store_n((unsigned *)(rings + params.sq_off.tail), first + 1, __ATOMIC_RELEASE);
		while (syscall(__NR_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
			EXPECT_EQ(errno, EINTR);
		cqe = &((struct io_uring_cqe *)(rings + params.cq_off.cqes))[first];
		__atomic_store_n((unsigned *)(rings + params.cq_off.head), first + 1, __ATOMIC_RELEASE);
		EXPECT_EQ(cqe->res, (int)sizeof text);
		EXPECT_EQ(memcmp(source + PAGE, text, sizeof text), 0);
		EXPECT_EQ(r_peek(&p, addr + PAGE), 'a' + first);
		close(pipes[0]);
		close(pipes[1]);
	}
	quit(&p);
}
