/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A client in C and in C++: exports, attaches its own page, checks it. */
#include <xpmem.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
	struct xpmem_addr addr;
	xpmem_segid_t segid;
	char *page, *seen;
	void *memory = NULL;

	if (xpmem_version() < 0) {
		if (errno == ENOSYS)
			puts("no XPMEM on this machine");
		return errno == ENOSYS ? 77 : 1;
	}
	if (posix_memalign(&memory, 4096, 4096))
		return 2;
	page = (char *)memory;
	page[7] = 42;
	segid = xpmem_make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE, (void *)0600);
	if (segid <= 0)
		return 3;
	addr.apid = xpmem_get(segid, XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL);
	addr.offset = (off_t)(unsigned long)page;
	if (addr.apid <= 0)
		return 4;
	seen = (char *)xpmem_attach(addr, 4096, NULL);
	if (seen == (char *)-1)
		return 5;
	if (seen[7] != 42)
		return 6;
	seen[8] = 43;
	if (page[8] != 43)
		return 7;
	if (xpmem_detach(seen) || xpmem_release(addr.apid) || xpmem_remove(segid))
		return 8;
	return 0;
}
