// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef STRESS_OWNER_H
#define STRESS_OWNER_H

#include "worker.h"

struct owner_options {
	enum inject inject;
	int plain_fd;      // -1: over the library
	int mailbox_fd;
	unsigned classes;  // mask of enum klass that may run
};

// Exports itself and churns until retired; answers the exit status of the process.
int owner_main(struct mailbox *mb, const struct owner_options *o);

// Exports and withdraws once: what the start of any process of this user does.
int sweeper_main(void);

#endif
