// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "guard.h"

#include <string.h>
#include <unistd.h>

_Thread_local struct guard guard;
static void (*on_fatal)(int, void *);

static void handler(int signo, siginfo_t *info, void *context)
{
	(void)context;
	if (guard.armed) {
		guard.armed = 0;
		guard.signo = signo;
		guard.addr = (uint64_t)info->si_addr;
		siglongjmp(guard.back, 1);
	}
	if (on_fatal)
		on_fatal(signo, info->si_addr);
	signal(signo, SIG_DFL);
	raise(signo);
	_exit(128 + signo);
}

void guard_install(void (*fatal)(int, void *))
{
	// SA_NODEFER: the jump out of the handler leaves no mask to restore.
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER };

	on_fatal = fatal;
	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGSEGV, &sa, NULL);
	// libc's, when a futex of a page that has gone with its owner answers EFAULT.
	sigaction(SIGABRT, &sa, NULL);
}
