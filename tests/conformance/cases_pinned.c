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
	/* Which of the registered buffers is used. */
	unsigned short buffer;
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
	r->sqes->buf_index = r->buffer;
	array[*tail & 3] = 0;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	while (syscall(__NR_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		EXPECT(errno == EINTR);
	result = cqes[*head & 7].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return result;
}

#define WINDOW (1024 * PAGE)

static long f_register(long addr, long size, long fd, long d)
{
	struct iovec part = { (void *)addr, size };
	struct ring ring;

	(void)d;
	open_ring(&ring);
	if (syscall(__NR_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &part, 1))
		return -errno;
	return read_fixed(&ring, (int)fd, (void *)(addr + PAGE), 64);
}

CASE(attachment_registered, "an attachment is registered with a device, which writes to it")
{
	char *source = anonymous(8 * PAGE), text[64];
	struct ring probe;
	struct peer p;
	int pipes[2];
	long addr, n;

	open_ring(&probe);
	EXPECT_EQ(pipe(pipes), 0);
	p = spawn();
	fill(source, 8 * PAGE, 1);
	addr = share(&p, source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	memset(text, 'r', sizeof text);
	EXPECT_EQ(write(pipes[1], text, sizeof text), (long)sizeof text);
	n = call(&p, f_register, addr, 8 * PAGE, pipes[0]);
	if (n == -ENOMEM || n == -EPERM)
		skip_case("may not register buffers");
	EXPECT_EQ(n, (long)sizeof text);
	EXPECT_EQ(memcmp(source + PAGE, text, sizeof text), 0);
	quit(&p);
}

CASE(source_pinned, "what a device writes to pinned memory is not lost")
{
	struct peer p = spawn();
	/* Larger than what is shared when it is attached. */
	char *source = anonymous(WINDOW);
	struct iovec part = { source + 4 * PAGE, PAGE };
	struct ring ring;
	int pipes[2];
	char text[64];
	long addr;

	setenv("XPMEM_WAIT", "0.1", 1);
	open_ring(&ring);
	/* Of a huge page none can be shared. */
	madvise(source, WINDOW, MADV_NOHUGEPAGE);
	fill(source, 16 * PAGE, 1);
	if (syscall(__NR_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &part, 1))
		skip_case("may not register buffers");
	addr = share(&p, source, WINDOW);
	/* Refused, or served with the very page: never a copy of it. */
	r_peek(&p, addr + 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	EXPECT_EQ(r_peek(&p, addr + 5 * PAGE), (unsigned char)source[5 * PAGE]);
	EXPECT_EQ(pipe(pipes), 0);
	memset(text, 'd', sizeof text);
	EXPECT_EQ(write(pipes[1], text, sizeof text), (long)sizeof text);
	EXPECT_EQ(read_fixed(&ring, pipes[0], part.iov_base, sizeof text), (int)sizeof text);
	EXPECT_EQ(memcmp(part.iov_base, text, sizeof text), 0);
	quit(&p);
}

CASE(registered_first, "what is registered with a device before a peer has it is shared with both")
{
	struct peer p = spawn();
	char *source = anonymous(WINDOW);
	struct iovec parts[2] = { { source + 4 * PAGE + 100, 3 * PAGE }, { source + 512 * PAGE, 500 * PAGE } };
	struct ring ring;
	int pipes[2];
	char text[64];
	long segid, apid, addr;

	/* Only where it fails is it waited so long. */
	setenv("XPMEM_WAIT", "5", 1);
	open_ring(&ring);
	fill(source, WINDOW, 1);
	segid = make_all();
	if (syscall(__NR_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, parts, 2))
		skip_case("may not register buffers");
	EXPECT_EQ(verify((long)source, WINDOW, 1), 0);
	apid = r_get(&p, segid, XPMEM_RDWR);
	addr = r_attach(&p, apid, (long)source, WINDOW);
	EXPECT_EQ(r_verify(&p, addr, WINDOW, 1), 0);
	EXPECT_EQ(pipe(pipes), 0);
	for (int i = 0; i < 2; i++) {
		ring.buffer = i;
		memset(text, 'd' + i, sizeof text);
		EXPECT_EQ(write(pipes[1], text, sizeof text), (long)sizeof text);
		EXPECT_EQ(read_fixed(&ring, pipes[0], parts[i].iov_base, sizeof text), (int)sizeof text);
		EXPECT_EQ(memcmp(parts[i].iov_base, text, sizeof text), 0);
		addr = r_attach(&p, apid, (long)source, WINDOW);
		EXPECT_EQ(r_peek(&p, addr + ((char *)parts[i].iov_base - source)), 'd' + i);
	}
	/* A peer's store is what the device reads. */
	addr = r_attach(&p, apid, (long)source, WINDOW);
	EXPECT_EQ(r_poke(&p, addr + 512 * PAGE, 'p'), 0);
	EXPECT_EQ(source[512 * PAGE], 'p');
	quit(&p);
}

/* Shared memory is registered with a device while a child has it, too, which ends when
 * that is done, or after so long. Then a peer attaches it and the device writes to it.
 * Whether the peer has it. */
static int written_beside_child(struct peer *p, long segid, int us)
{
	char *source = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct iovec part = { source + 4 * PAGE, PAGE };
	struct ring ring;
	char text[64];
	int pipes[2], shown;
	long apid, addr;
	pid_t child;

	open_ring(&ring);
	EXPECT_EQ(pipe(pipes), 0);
	fill(source, 16 * PAGE, 1);
	fflush(NULL);
	child = fork();
	if (child == 0) {
		us ? usleep(us) : pause();
		_exit(0);
	}
	if (syscall(__NR_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &part, 1))
		skip_case("may not register buffers");
	if (!us)
		kill(child, SIGKILL);
	EXPECT_EQ(waitpid(child, NULL, 0), child);
	apid = r_get(p, segid, XPMEM_RDWR);
	EXPECT(apid > 0);
	addr = r_attach(p, apid, (long)source, 16 * PAGE);
	/* Of a larger one nothing is refused before it is touched. */
	shown = addr != -1 && r_verify(p, addr, 16 * PAGE, 1) == 0;
	if (!shown)
		r_peek(p, r_attach(p, apid, (long)source, WINDOW) + 4 * PAGE);
	memset(text, 'd', sizeof text);
	EXPECT_EQ(write(pipes[1], text, sizeof text), (long)sizeof text);
	EXPECT_EQ(read_fixed(&ring, pipes[0], part.iov_base, sizeof text), (int)sizeof text);
	EXPECT_EQ(memcmp(part.iov_base, text, sizeof text), 0);
	if (shown)
		EXPECT_EQ(r_peek(p, addr + 4 * PAGE), 'd');
	close(ring.fd);
	return shown;
}

CASE(registered_related, "what a device writes to shared memory that a child had when it was registered is not lost")
{
	struct peer p = spawn();

	setenv("XPMEM_WAIT", "0.1", 1);
	written_beside_child(&p, make_all(), 0);
	quit(&p);
}

CASE(registered_beside_a_child, "a registration waits for a child to go, so that peers have what is registered")
{
	struct peer p = spawn();
	long segid = make_all();
	int tries = 100;

	/* A child for which this machine has no time is waited for in vain. */
	while (!written_beside_child(&p, segid, 1000) && --tries)
		;
	EXPECT(tries);
	quit(&p);
}

#define HUGE (512 * PAGE)

CASE(source_pinned_huge, "a pin on a part of a huge page neither loses what the device writes nor holds the owner up")
{
	struct peer p = spawn();
	char *source = anonymous(4 * HUGE);
	struct iovec part;
	struct ring ring;
	int pipes[2];
	char text[64];
	long addr, byte;

	setenv("XPMEM_WAIT", "0.1", 1);
	source = (char *)(((unsigned long)source + HUGE - 1) & -(unsigned long)HUGE);
	madvise(source, 2 * HUGE, MADV_HUGEPAGE);
	fill(source, 16 * PAGE, 1);
	source[HUGE] = 'n';
	part = (struct iovec){ source + 4 * PAGE, PAGE };
	open_ring(&ring);
	if (syscall(__NR_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &part, 1))
		skip_case("may not register buffers");
	/* The huge page is mapped in parts, as ibv_fork_init leaves it. */
	EXPECT_EQ(madvise(source + 8 * PAGE, PAGE, MADV_DONTFORK), 0);
	addr = share(&p, source, 2 * HUGE);
	/* The very page, or none; and the service goes on. */
	byte = r_peek(&p, addr + 4 * PAGE);
	EXPECT(FAULTED(byte) || byte == (unsigned char)source[4 * PAGE]);
	EXPECT_EQ(r_peek(&p, addr + HUGE), 'n');
	EXPECT_EQ(pipe(pipes), 0);
	memset(text, 'd', sizeof text);
	EXPECT_EQ(write(pipes[1], text, sizeof text), (long)sizeof text);
	EXPECT_EQ(read_fixed(&ring, pipes[0], part.iov_base, sizeof text), (int)sizeof text);
	EXPECT_EQ(memcmp(part.iov_base, text, sizeof text), 0);
	/* All of it when the device has let go. */
	EXPECT_EQ(syscall(__NR_io_uring_register, ring.fd, IORING_UNREGISTER_BUFFERS, NULL, 0), 0);
	addr = share(&p, source, 2 * HUGE);
	for (int i = 0; i < 100 && FAULTED(byte = r_peek(&p, addr + 4 * PAGE)); i++)
		usleep(50000);
	EXPECT_EQ(byte, 'd');
	quit(&p);
}

/* What a device has pinned after it was shared: 16 pages, a peer's attachment of
 * them, and a ring that writes to the fifth. */
struct shared {
	struct peer peer;
	char *source;
	long segid, addr;
	struct ring ring;
	int pipes[2];
};

static void pin_shared(struct shared *s)
{
	struct iovec part;
	long apid;

	s->peer = spawn();
	s->source = anonymous(16 * PAGE);
	part.iov_base = s->source + 4 * PAGE;
	part.iov_len = PAGE;
	open_ring(&s->ring);
	EXPECT_EQ(pipe(s->pipes), 0);
	fill(s->source, 16 * PAGE, 1);
	s->segid = make_all();
	apid = r_get(&s->peer, s->segid, XPMEM_RDWR);
	s->addr = r_attach(&s->peer, apid, (long)s->source, 16 * PAGE);
	EXPECT_EQ(r_verify(&s->peer, s->addr, 16 * PAGE, 1), 0);
	if (syscall(__NR_io_uring_register, s->ring.fd, IORING_REGISTER_BUFFERS, &part, 1))
		skip_case("may not register buffers");
}

/* The device writes, and the owner sees it. */
static void expect_written(struct shared *s, int byte)
{
	char text[64];

	memset(text, byte, sizeof text);
	EXPECT_EQ(write(s->pipes[1], text, sizeof text), (long)sizeof text);
	EXPECT_EQ(read_fixed(&s->ring, s->pipes[0], s->source + 4 * PAGE, sizeof text), (int)sizeof text);
	EXPECT_EQ(memcmp(s->source + 4 * PAGE, text, sizeof text), 0);
}

CASE(pinned_then_removed, "a device keeps the pages that xpmem_remove takes from peers")
{
	struct shared s;
	long apid;

	pin_shared(&s);
	EXPECT_EQ(api->remove(s.segid), 0);
	EXPECT(FAULTED(r_peek(&s.peer, s.addr + 4 * PAGE)));
	expect_written(&s, 'd');
	/* Shared anew it is the same page still. */
	apid = r_get(&s.peer, make_all(), XPMEM_RDWR);
	s.addr = r_attach(&s.peer, apid, (long)s.source, 16 * PAGE);
	EXPECT_EQ(r_peek(&s.peer, s.addr + 4 * PAGE), 'd');
	expect_written(&s, 'e');
	EXPECT_EQ(r_peek(&s.peer, s.addr + 4 * PAGE), 'e');
	quit(&s.peer);
}

CASE(pinned_then_protected, "a device keeps pages whose protection changes")
{
	struct shared s;

	pin_shared(&s);
	EXPECT_EQ(mprotect(s.source, 16 * PAGE, PROT_READ), 0);
	EXPECT(FAULTED(r_poke(&s.peer, s.addr + 4 * PAGE, 9)));
	EXPECT_EQ(mprotect(s.source, 16 * PAGE, PROT_NONE), 0);
	EXPECT(FAULTED(r_peek(&s.peer, s.addr + 4 * PAGE)));
	EXPECT_EQ(mprotect(s.source, 16 * PAGE, PROT_READ | PROT_WRITE), 0);
	expect_written(&s, 'd');
	EXPECT_EQ(r_peek(&s.peer, s.addr + 4 * PAGE), 'd');
	EXPECT_EQ(r_poke(&s.peer, s.addr + 4 * PAGE, 9), 0);
	EXPECT_EQ(s.source[4 * PAGE], 9);
	quit(&s.peer);
}

CASE(pinned_then_not_for_children, "a device keeps pages that are not to be inherited, as ibv_fork_init asks")
{
	struct shared s;

	pin_shared(&s);
	EXPECT_EQ(madvise(s.source + 4 * PAGE, PAGE, MADV_DONTFORK), 0);
	expect_written(&s, 'd');
	EXPECT_EQ(r_peek(&s.peer, s.addr + 4 * PAGE), 'd');
	EXPECT_EQ(madvise(s.source + 4 * PAGE, PAGE, MADV_DOFORK), 0);
	expect_written(&s, 'e');
	EXPECT_EQ(r_peek(&s.peer, s.addr + 4 * PAGE), 'e');
	quit(&s.peer);
}

CASE(pinned_then_forked, "a device keeps its pages over a fork, and the child has a copy")
{
	struct shared s;
	int status;
	pid_t pid;

	pin_shared(&s);
	fflush(NULL);
	pid = fork();
	EXPECT(pid >= 0);
	if (pid == 0)
		_exit(verify((long)s.source, 16 * PAGE, 1) != 0);
	EXPECT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
	expect_written(&s, 'd');
	EXPECT_EQ(r_peek(&s.peer, s.addr + 4 * PAGE), 'd');
	quit(&s.peer);
}

CASE(pinned_then_resized, "a device keeps pages of memory that shrinks and grows where it is")
{
	struct shared s;

	pin_shared(&s);
	EXPECT_EQ(mremap(s.source, 16 * PAGE, 8 * PAGE, 0), (long)s.source);
	expect_written(&s, 'd');
	EXPECT(FAULTED(r_peek(&s.peer, s.addr + 12 * PAGE)));
	EXPECT_EQ(mremap(s.source, 8 * PAGE, 16 * PAGE, 0), (long)s.source);
	EXPECT_EQ(s.source[12 * PAGE], 0);
	expect_written(&s, 'e');
	EXPECT_EQ(r_peek(&s.peer, s.addr + 4 * PAGE), 'e');
	EXPECT_EQ(r_peek(&s.peer, s.addr + 12 * PAGE), 0);
	quit(&s.peer);
}

CASE(attach_pinned, "who attaches what cannot be shared is told at once, and can take another way")
{
	struct peer p = spawn();
	char *source = anonymous(16 * PAGE);
	struct iovec part = { source + 4 * PAGE, PAGE };
	struct ring ring;
	long apid, addr;

	open_ring(&ring);
	if (mlock(source, 16 * PAGE))
		skip_case("may not lock memory");
	fill(source, 16 * PAGE, 1);
	if (syscall(__NR_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &part, 1))
		skip_case("may not register buffers");
	apid = r_get(&p, make_all(), XPMEM_RDWR);
	EXPECT(apid > 0);
	addr = r_attach(&p, apid, (long)source, 16 * PAGE);
	if (addr == -1)
		EXPECT_EQ(errno, ENOMEM);
	else
		EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 1), 0);
	/* What stands beside it can be. */
	addr = r_attach(&p, apid, (long)source + 5 * PAGE, 11 * PAGE);
	EXPECT(addr != -1);
	/* And all of it when the device has let go. */
	EXPECT_EQ(syscall(__NR_io_uring_register, ring.fd, IORING_UNREGISTER_BUFFERS, NULL, 0), 0);
	addr = -1;
	for (int i = 0; i < 100 && addr == -1; i++)
		addr = r_attach(&p, apid, (long)source, 16 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 1), 0);
	quit(&p);
}
