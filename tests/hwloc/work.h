/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef TESTS_HWLOC_WORK_H
#define TESTS_HWLOC_WORK_H
#include <sys/time.h>

/* Ends this process by SIGPROF when it has worked that long. How long it waits
 * for a processor does not count: other programs decide that. */
static inline void limit_work(int seconds)
{
	struct itimerval work = { .it_value = { .tv_sec = seconds } };

	setitimer(ITIMER_PROF, &work, NULL);
}

#endif
