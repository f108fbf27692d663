// SPDX-License-Identifier: MIT OR Apache-2.0
// A device writes into memory while attachers have it shared: an asynchronous
// direct read is under way when its buffer is touched for the first time.
#define _GNU_SOURCE
#include "layout.h"
#include "pattern.h"
#include "worker.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

// So long takes a while, and a promotion has time to come in between.
#define LENGTH (256ul << 10)
// In so many pieces: each may end in the midst of one.
#define READS 4

void op_direct(struct worker *w)
{
	uint64_t at = slice_of(w->id, SLICE_BUF) + (24ul << 20), source = at + (8ul << 20), len = LENGTH;
	struct iocb read[READS], *reads[READS];
	uint32_t gen = next_gen(), old = gen;
	struct ask touch = { "direct: touch", K_DEVICE, REQ_TOUCH, gen, (void *)at, len };
	bool locked = rng_one_in(&w->rng, 3), first = rng_one_in(&w->rng, 3);
	aio_context_t context = 0;
	struct io_event event[READS];
	long n, done = 0, wrong = 0;

	if (direct_file < 0)
		skip_note(w->mb, K_DEVICE, "no direct reads, or pins cannot be told");
	if (direct_file < 0 || syscall(SYS_io_setup, READS, &context)) {
		usleep(100);
		return;
	}
	gen = next_gen();
	for (unsigned i = 0; i < READS; i++) {
		read[i] = (struct iocb){ .aio_lio_opcode = IOCB_CMD_PREAD,
					 .aio_fildes = direct_file,
					 .aio_buf = at + i * (len / READS),
					 .aio_nbytes = len / READS,
					 .aio_offset = w->id * DIRECT_PART + i * (len / READS) };
		reads[i] = &read[i];
	}
	if (!vm_libc.map(at, len, false) || !vm_libc.map(source, len, false) ||
	    !direct_store(w, (uint64_t *)source, len, gen))
		goto out;
	pattern_fill((uint64_t *)at, len / 8, w->key, old);
	locked = locked && !mlock((void *)at, len);
	if (!first) {
		ask_start(w, &touch);
		usleep(rng_below(&w->rng, 500));
	}
	if (syscall(SYS_io_submit, context, READS, reads) != READS)
		fail_note(w->mb, F_EFAULT, K_DEVICE, "io_submit: %m");
	if (first)
		ask_start(w, &touch);
	while (done < READS) {
		n = syscall(SYS_io_getevents, context, 1, READS, event, NULL);
		if (n < 0 && errno != EINTR)
			break;
		for (long i = 0; i < n; i++)
			wrong += event[i].res != (int64_t)(len / READS);
		done += n > 0 ? n : 0;
	}
	ask_wait(w);
	if (done == READS && !wrong)
		publish_again(w, locked ? "direct, locked" : "direct", K_DEVICE, (void *)at, len, gen, 0);
	else
		fail_note(w->mb, F_LOST, K_DEVICE, "%d direct reads: %ld answered, %ld wrong: %m", READS, done, wrong);
out:
	vm_libc.unmap(at, len);
	vm_libc.unmap(source, len);
	syscall(SYS_io_destroy, context);
}
