// SPDX-License-Identifier: MIT OR Apache-2.0
// The command line, of the program as a user starts it and of the roles it
// starts itself in.
#ifndef STRESS_OPTIONS_H
#define STRESS_OPTIONS_H

#include "worker.h"

struct options {
	const char *role; // NULL: the driver
	const char *lib, *preload, *dir;
	unsigned seconds;
	uint64_t seed, min_steps, end_steps;
	bool plain, kill_attachers, kill_owners, stops, trace;
	unsigned owner_life; // seconds, on average
	unsigned classes;
	enum inject inject;
	int expect; // enum fail that must be found, or -1: nothing may be found
	// Of a role:
	int mailbox_fd, plain_fd;
	unsigned self;
	uint32_t incarnation;
};

// Ends the program with a message when the command line is wrong.
void options_parse(struct options *o, int argc, char **argv);

#endif
