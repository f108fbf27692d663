/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Three makes; a child makes one; its child makes none, and ends with exit(). */
#include <xpmem.h>

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void make(int times)
{
	while (times-- > 0)
		if (xpmem_make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE, (void *)0600) <= 0)
			exit(1);
}

static int wait_for(pid_t pid)
{
	int status;

	return pid < 0 || waitpid(pid, &status, 0) != pid || status;
}

int main(void)
{
	pid_t pid;

	if (xpmem_version() < 0)
		return 77;
	make(3);
	pid = fork();
	if (pid == 0) {
		make(1);
		pid = fork();
		if (pid == 0)
			exit(0);
		exit(wait_for(pid));
	}
	return wait_for(pid);
}
