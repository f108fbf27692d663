/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What /proc says of a process. Each function answers -1 where it says nothing. */
#ifndef TESTS_LIB_PROC_H
#define TESTS_LIB_PROC_H

/* Entries of a folder, without "." and "..". */
long proc_entries(const char *folder);

/* Lines of a file. */
long proc_lines(const char *file);

/* The number behind "FIELD:" in /proc/PID/status; pid 0 is the caller. */
long proc_status(int pid, const char *field);

/* The state of a process: R, S, D, T, t, Z; '?' where there is none. */
char proc_state(int pid);

/* Calls found(child, context) for each child of the threads of `pid`, 0 for the
 * caller; answers how many there are. */
long proc_children(int pid, void (*found)(int child, void *context), void *context);

#endif
