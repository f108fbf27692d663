// SPDX-License-Identifier: MIT OR Apache-2.0
// The calls by which the owner changes its address space, in three kinds: in
// libc, by inline system calls, and over plain shared memory for the checker's
// own test (where unmapping punches the page, as a perfect revocation would).
#ifndef STRESS_VMOPS_H
#define STRESS_VMOPS_H

#include "mailbox.h"

struct vmops {
	// Fresh zeroed memory at `addr`; over what is there when `replace`, else only
	// where nothing is. False when refused.
	bool (*map)(uint64_t addr, uint64_t len, bool replace);
	bool (*unmap)(uint64_t addr, uint64_t len);
	bool (*discard)(uint64_t addr, uint64_t len); // MADV_DONTNEED
	// mremap; `to` 0 grows or shrinks in place. NULL member: not offered.
	bool (*remap)(uint64_t addr, uint64_t len, uint64_t newlen, uint64_t to);
	bool true_holes; // what is unmapped is SIGBUS for an attacher
};

extern const struct vmops vm_libc, vm_raw, vm_plain;

// The file of the plain arena.
void vm_plain_use(int fd);

// Puts private memory over one page of the plain arena: the attachers go on
// seeing the old page, as after a revocation that was forgotten.
void vm_plain_inject_stale(uint64_t addr);

#endif
