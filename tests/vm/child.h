/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A child that does one thing, and says when it is about to. */
#ifndef CHILD_H
#define CHILD_H

#include "t.h"

/* For a case that has one such child. */
static int ready;

/* In a child, which says through its pipe when it is ready. */
static inline pid_t child_start(void (*fn)(void), int *ready)
{
	int to[2];
	pid_t pid;

	if (pipe(to))
		abort();
	fflush(stdout);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(to[0]);
		*ready = to[1];
		dev = -1;
		dev_open();
		fn();
		_exit(0);
	}
	close(to[1]);
	*ready = to[0];
	return pid;
}

static inline void say_ready(void)
{
	if (write(ready, "x", 1) != 1)
		_exit(2);
}

static inline int wait_ready(void)
{
	char c = 0;

	return read(ready, &c, 1) == 1;
}

#endif
