/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* io_uring without a library: one request at a time. */
#ifndef URING_H
#define URING_H

#include "t.h"
#include <linux/io_uring.h>

struct uring {
	int fd;
	char *ring;
	unsigned long size;
	unsigned int *sq_tail, *sq_flags, *cq_head, *cq_tail;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
};

static inline int uring_start(struct uring *r, unsigned int flags)
{
	struct io_uring_params p = { .flags = flags, .sq_thread_idle = 10000 };

	r->fd = syscall(SYS_io_uring_setup, 1, &p);
	if (r->fd < 0)
		return -errno;
	r->size = p.cq_off.cqes + p.cq_entries * sizeof(*r->cqe);
	if (r->size < p.sq_off.array + p.sq_entries * sizeof(int))
		r->size = p.sq_off.array + p.sq_entries * sizeof(int);
	r->ring = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	r->sqe = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQES);
	if (r->ring == MAP_FAILED || r->sqe == MAP_FAILED || !(p.features & IORING_FEAT_SINGLE_MMAP))
		return -errno;
	r->sq_tail = (void *)(r->ring + p.sq_off.tail);
	r->sq_flags = (void *)(r->ring + p.sq_off.flags);
	r->cq_head = (void *)(r->ring + p.cq_off.head);
	r->cq_tail = (void *)(r->ring + p.cq_off.tail);
	r->cqe = (void *)(r->ring + p.cq_off.cqes);
	*(unsigned int *)(r->ring + p.sq_off.array) = 0;
	return 0;
}

/* What is mapped of it keeps it, too. */
static inline void uring_end(struct uring *r)
{
	munmap(r->ring, r->size);
	munmap(r->sqe, PAGE);
	close(r->fd);
}

/* Reads a page of the file to @to, by a worker or the ring's own thread. */
static inline void uring_read(struct uring *r, unsigned int flags, int fd, void *to)
{
	memset(r->sqe, 0, sizeof(*r->sqe));
	r->sqe->opcode = IORING_OP_READ;
	r->sqe->flags = flags & IORING_SETUP_SQPOLL ? 0 : IOSQE_ASYNC;
	r->sqe->fd = fd;
	r->sqe->addr = (long)to;
	r->sqe->len = PAGE;
	__atomic_store_n(r->sq_tail, *r->sq_tail + 1, __ATOMIC_SEQ_CST);
	if (!(flags & IORING_SETUP_SQPOLL))
		syscall(SYS_io_uring_enter, r->fd, 1, 0, 0, NULL, 0);
	else if (__atomic_load_n(r->sq_flags, __ATOMIC_SEQ_CST) & IORING_SQ_NEED_WAKEUP)
		syscall(SYS_io_uring_enter, r->fd, 1, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0);
}

static inline long uring_wait(struct uring *r)
{
	for (int i = 0; i < 1000; i++) {
		if (__atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE) != *r->cq_head) {
			long res = r->cqe[*r->cq_head & 1].res;

			++*r->cq_head;
			return res;
		}
		usleep(10000);
	}
	return -ETIME;
}

#endif
