// SPDX-License-Identifier: MIT OR Apache-2.0
// Touching memory that may answer with a signal.
#ifndef STRESS_GUARD_H
#define STRESS_GUARD_H

#include <setjmp.h>
#include <signal.h>
#include <stdint.h>

struct guard {
	sigjmp_buf back;
	volatile sig_atomic_t armed;
	volatile int signo;
	volatile uint64_t addr;
};
extern _Thread_local struct guard guard;

// Installs the handlers of this process. A signal outside a guarded region
// calls `fatal` (async-signal-safe, may be NULL) and ends the process.
void guard_install(void (*fatal)(int signo, void *addr));

// if (GUARDED()) { touch; guard_off(); } else { guard.signo came at guard.addr }
#define GUARDED() (guard.armed = 1, sigsetjmp(guard.back, 0) == 0)

static inline void guard_off(void)
{
	guard.armed = 0;
}

#endif
