// SPDX-License-Identifier: MIT OR Apache-2.0
// Sources that are shared mappings already: anonymous (Open MPI's FIFO is one)
// and a memfd.
#define _GNU_SOURCE
#include "layout.h"
#include "worker.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

extern pthread_mutex_t fork_lock;

void op_shared(struct worker *w)
{
	uint64_t len = random_pages(w, 64), at = slice_of(w->id, SLICE_SHARED);
	int flags = MAP_SHARED | MAP_FIXED_NOREPLACE, fd = -1;
	bool may_file = w->classes & 1u << K_FILE, may_anon = w->classes & 1u << K_SHARED;
	bool file = may_file && (!may_anon || rng_one_in(&w->rng, 2));
	enum klass k = file ? K_FILE : K_SHARED;

	// A child may go on mapping what is shared with it: then the library refuses
	// it, rightly. No fork while this mapping is there.
	if (pthread_mutex_trylock(&fork_lock)) {
		usleep(100); // not to take the processor from whom we would wait for
		return;
	}
	if (file) {
		fd = memfd_create("stress-source", MFD_CLOEXEC);
		if (fd >= 0 && ftruncate(fd, len))
			goto out;
	} else {
		flags |= MAP_ANONYMOUS;
	}
	if (mmap((void *)at, len, PROT_READ | PROT_WRITE, flags, fd, 0) != (void *)at)
		goto out;
	publish(w, file ? "memfd" : "shared anon", k, (void *)at, len);
	publish(w, file ? "memfd" : "shared anon", k, (void *)at, len);
	munmap((void *)at, len);
out:
	if (fd >= 0)
		close(fd);
	pthread_mutex_unlock(&fork_lock);
}
