/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Attaches the buffer of an owner (owner.c), reads it and writes into it.
 *
 *   cc -o attacher attacher.c $(pkg-config --cflags --libs xpmem)
 *   ./attacher SEGID
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xpmem.h>

int main(int argc, char **argv)
{
	size_t size = sysconf(_SC_PAGESIZE);
	if (argc != 2) {
		fprintf(stderr, "usage: %s SEGID\n", argv[0]);
		return 2;
	}

	/* May this process load and store there? */
	xpmem_apid_t apid = xpmem_get(atoll(argv[1]), XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL);
	if (apid == -1) {
		perror("xpmem_get");
		return 1;
	}

	/* The first page of the segment, wherever there is room. Nothing is copied. */
	struct xpmem_addr place = { .apid = apid, .offset = 0 };
	char *buffer = xpmem_attach(place, size, NULL);
	if (buffer == (void *)-1) {
		perror("xpmem_attach");
		return 1;
	}

	printf("The owner says: %s\n", buffer);
	strcpy(buffer, "Greetings from the attacher.");

	/* The end of the process would do both. */
	if (xpmem_detach(buffer) == -1 || xpmem_release(apid) == -1) {
		perror("xpmem_detach");
		return 1;
	}
	return 0;
}
