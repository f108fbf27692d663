/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Loads a library between two marks that strace shows: write(-1, "mark", 4). */
#include "../lib/proc.h"

#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long tasks = proc_entries("/proc/self/task"), fds = proc_entries("/proc/self/fd");
	void *library;
	ssize_t mark;

	(void)argc;
	mark = write(-1, "mark", 4);
	library = dlopen(argv[1], RTLD_NOW);
	mark += write(-1, "mark", 4);
	if (!library) {
		puts(dlerror());
		return 1;
	}
	if (proc_entries("/proc/self/task") != tasks || proc_entries("/proc/self/fd") != fds || mark != -2) {
		puts("a thread or a descriptor came with the library");
		return 1;
	}
	return 0;
}
