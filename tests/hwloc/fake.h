/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef FAKE_H
#define FAKE_H

#include <stddef.h>
#include <stdint.h>

struct fake_arguments {
	void *topology;
	int fd;
	uint64_t offset;
	void *addr;
	size_t length;
	unsigned long flags;
};

/* What was called, with what last; and the errno to fail with, if any. */
struct fake_calls {
	unsigned init, destroy, get_length, write, adopt;
	struct fake_arguments last;
	int error;
};

#endif
