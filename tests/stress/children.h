// SPDX-License-Identifier: MIT OR Apache-2.0
// The driver's processes: start, stop for a moment, kill, and know them again.
#ifndef STRESS_CHILDREN_H
#define STRESS_CHILDREN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define NCHILDREN 5 // the owner, then the attachers
#define OWNER 0

struct child {
	pid_t pid;       // 0: none
	bool expect_end; // killed or retired: its end is no crash
	uint64_t resume_at; // when stopped: time of the SIGCONT
};
extern struct child children[NCHILDREN];

// Re-executes this program with `argv`; the library preloaded when `preload` is not NULL.
void child_start(unsigned n, char *const argv[], const char *preload, const char *debug_file);

// Reaps one; answers its index, NCHILDREN for a stranger, -1 for nobody.
int child_reap(int *status);

void child_stop(unsigned n, unsigned ms);
void child_resume_due(void);
void child_kill(unsigned n);

// States and wait channels of all threads, to stderr.
void child_dump(unsigned n, const char *role);
// The same in short, of the first thread and of the services: pid, state, system
// call, wait channel, ticks of processor in a tenth of a second.
void child_brief(unsigned n, char *text, unsigned long size);
// The same of processes that others of ours have left behind, such as a service
// whose program is dead.
void strangers_dump(void);

// Pids of all processes below this one, killed when `end`; their count.
unsigned strangers(bool end, char *names, unsigned long size);

#endif
