/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Exports a buffer, and shows what another process has written into it.
 *
 *   cc -o owner owner.c $(pkg-config --cflags --libs xpmem)
 *   ./owner                  prints how to start the attacher; Enter ends it
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xpmem.h>

int main(void)
{
	/* Segments are whole pages. */
	size_t size = sysconf(_SC_PAGESIZE);
	char *buffer = aligned_alloc(size, size);
	if (!buffer)
		return 1;
	strcpy(buffer, "Hello from the owner.");

	/* Mode 0600: processes of this user may load and store. */
	xpmem_segid_t segid = xpmem_make(buffer, size, XPMEM_PERMIT_MODE, (void *)0600);
	if (segid == -1) {
		perror("xpmem_make");
		return 1;
	}

	/* The number is all that an attacher needs; it may travel in any way. */
	printf("./attacher %lld\n", (long long)segid);
	fflush(stdout);
	getchar();

	printf("The buffer: %s\n", buffer);
	/* Whoever still has it attached gets SIGBUS from here on. */
	if (xpmem_remove(segid) == -1)
		perror("xpmem_remove");
	free(buffer);
	return 0;
}
