// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "ring.h"

#include "rawsys.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static unsigned *word(struct ring *r, unsigned offset)
{
	return (unsigned *)(r->rings + offset);
}

bool ring_open(struct ring *r)
{
	const size_t page = 4096;
	void *rings, *sqes;

	memset(r, 0, sizeof(*r));
	r->fd = (int)syscall(SYS_io_uring_setup, RING_ENTRIES, &r->params);
	if (r->fd < 0)
		return false;
	rings = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	sqes = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQES);
	if (!(r->params.features & IORING_FEAT_SINGLE_MMAP) || rings == MAP_FAILED || sqes == MAP_FAILED) {
		close(r->fd);
		errno = ENOSYS;
		return false;
	}
	r->rings = rings;
	r->sqes = sqes;
	return true;
}

long ring_register(struct ring *r, void *mem, uint64_t len, bool raw)
{
	struct iovec part = { mem, len };

	if (raw)
		return raw6(SYS_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, (long)&part, 1, 0, 0);
	return syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, &part, 1) ? -errno : 0;
}

long ring_unregister(struct ring *r)
{
	return syscall(SYS_io_uring_register, r->fd, IORING_UNREGISTER_BUFFERS, NULL, 0) ? -errno : 0;
}

bool ring_begin(struct ring *r, const struct transfer *t, unsigned n)
{
	unsigned *tail = word(r, r->params.sq_off.tail), *array = word(r, r->params.sq_off.array);
	unsigned mask = *word(r, r->params.sq_off.ring_mask), taken = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned place = (*tail + i) & mask;
		struct io_uring_sqe *e = &r->sqes[place];

		memset(e, 0, sizeof(*e));
		e->opcode = t[i].opcode;
		e->fd = t[i].fd;
		e->addr = (uint64_t)t[i].mem;
		e->len = t[i].len;
		e->off = t[i].at;
		array[place] = place;
	}
	__atomic_store_n(tail, *tail + n, __ATOMIC_RELEASE);
	while (taken < n) {
		long did = syscall(SYS_io_uring_enter, r->fd, n - taken, 0, 0, NULL, 0);

		if (did < 0 && errno != EINTR && errno != EAGAIN)
			return false;
		taken += did > 0 ? did : 0;
	}
	return true;
}

unsigned ring_finish(struct ring *r, unsigned n, uint32_t len, int *odd)
{
	unsigned *head = word(r, r->params.cq_off.head), *tail = word(r, r->params.cq_off.tail);
	unsigned mask = *word(r, r->params.cq_off.ring_mask), wrong = 0;
	struct io_uring_cqe *answers = (struct io_uring_cqe *)(r->rings + r->params.cq_off.cqes);

	for (unsigned i = 0; i < n; i++) {
		while (*head == __atomic_load_n(tail, __ATOMIC_ACQUIRE))
			syscall(SYS_io_uring_enter, r->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
		if (answers[*head & mask].res != (int)len) {
			*odd = answers[*head & mask].res;
			wrong++;
		}
		__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	}
	return wrong;
}
