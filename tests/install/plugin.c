/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * As an MPI plugin does: dlopen, dlsym of each symbol, work, dlclose while the
 * library's threads live, and go on; then again. With no argument the symbols
 * must be there already (LD_PRELOAD).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const names[] = { "xpmem_version", "xpmem_init",    "xpmem_ioctl",
				     "xpmem_make",    "xpmem_remove",  "xpmem_get",
				     "xpmem_release", "xpmem_attach",  "xpmem_detach" };

static int once(const char *path)
{
	void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : RTLD_DEFAULT;
	long long (*make)(void *, size_t, int, void *);
	int (*version)(void);

	if (path && !library) {
		puts(dlerror());
		return 1;
	}
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
		if (!dlsym(library, names[i])) {
			printf("no %s\n", names[i]);
			return 2;
		}
	/* What upstream does not export must not be found: GASNet looks. */
	if (dlsym(library, "xpmem_make_2") || dlsym(library, "xpmem_get_2"))
		return 3;
	*(void **)&version = dlsym(library, "xpmem_version");
	*(void **)&make = dlsym(library, "xpmem_make");
	if (version() < 0)
		return errno == ENOSYS ? 77 : 4;
	if (make(NULL, (size_t)-1, 1, (void *)0600) <= 0)
		return 5;
	if (path && dlclose(library))
		return 6;
	return 0;
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : NULL;
	int status = once(path), child;

	/* The service goes on; so must the program. */
	for (int i = 0; i < 20 && !status; i++) {
		free(memset(malloc(100000 * (i + 1)), i, 100000));
		usleep(1000);
	}
	if (!status)
		status = once(path);
	if (!status) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(once(path));
		if (waitpid(pid, &child, 0) != pid || child)
			status = 10;
	}
	return status;
}
