/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * XPMEM as a table of functions: those of a library that a program is linked
 * with, of one found at run time (load.h), or of the crate.
 */
#ifndef TESTS_LIB_XPMEM_API_H
#define TESTS_LIB_XPMEM_API_H

#include "../../include/xpmem.h"

struct xpmem_api {
	int (*version)(void);
	int (*init)(void);
	int (*ioctl)(int cmd, void *arg);
	xpmem_segid_t (*make)(void *vaddr, size_t size, int permit_type, void *permit_value);
	int (*remove)(xpmem_segid_t segid);
	xpmem_apid_t (*get)(xpmem_segid_t segid, int flags, int permit_type, void *permit_value);
	int (*release)(xpmem_apid_t apid);
	void *(*attach)(struct xpmem_addr addr, size_t size, void *vaddr);
	int (*detach)(void *vaddr);
};

#endif
