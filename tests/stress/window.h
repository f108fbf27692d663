// SPDX-License-Identifier: MIT OR Apache-2.0
// The attacher's cached windows into the owner, in the ways real clients cut
// them. A window once made serves for the owner's life: a hit makes no call.
#ifndef STRESS_WINDOW_H
#define STRESS_WINDOW_H

#include "mailbox.h"

enum window_style {
	WIN_VADER, // aligned 8 MiB, one byte more asked for, as Open MPI's vader does
	WIN_GIANT, // a few windows of many GiB, all made before the first check
	WIN_EXACT, // the pages of the buffer and no more; the oldest make room for new ones
	WIN_PLAIN, // no library: the whole arena as one file
};

// Which thread of the attacher this is: exact windows come and go, and must not
// go while the other thread looks through them.
extern _Thread_local unsigned window_lane;

// A window may be refused (ENOMEM): what is to be seen through it may be what cannot be shared.
extern _Thread_local bool window_may_fail;

// Opens the owner of `epoch`; false when it failed (noted unless the owner is gone).
bool windows_open(struct mailbox *mb, enum window_style style, uint32_t epoch, int plain_fd);

// Where the owner's `addr` is here, and in *run how many bytes from there on are
// in one piece (at most `len`). NULL when no window could be made.
void *window_at(struct mailbox *mb, uint64_t addr, uint64_t len, uint64_t *run);

// Gives everything back. Each call must answer 0 even when the owner is dead.
void windows_close(struct mailbox *mb);

#endif
