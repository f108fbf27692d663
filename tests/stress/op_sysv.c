// SPDX-License-Identifier: MIT OR Apache-2.0
// System V segments that come and go: the kernel tells nobody of their end.
#define _GNU_SOURCE
#include "layout.h"
#include "worker.h"

#include <sys/shm.h>
#include <unistd.h>

void op_sysv(struct worker *w)
{
	uint64_t len = random_pages(w, 32), at = slice_of(w->id, SLICE_SHARED) + (32ul << 20);
	struct ask hole = { "after shmdt", K_SYSV, REQ_HOLE, next_gen(), (void *)at, len };
	int id = shmget(IPC_PRIVATE, len, 0600);
	void *mem;

	if (id < 0) {
		usleep(100);
		return;
	}
	mem = shmat(id, (void *)at, 0);
	// It lasts as long as somebody has it attached.
	shmctl(id, IPC_RMID, NULL);
	if (mem != (void *)at)
		return;
	publish(w, "sysv", K_SYSV, mem, len);
	publish(w, "sysv", K_SYSV, mem, len);
	if (shmdt(mem))
		fail_note(w->mb, F_OWNER_MEM, K_SYSV, "shmdt: %m");
	ask_and_wait(w, &hole);
}
