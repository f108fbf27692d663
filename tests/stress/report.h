// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef STRESS_REPORT_H
#define STRESS_REPORT_H

#include "options.h"

// What the driver did to its processes.
struct deeds {
	unsigned owners, owner_kills, attacher_kills, stops, traces;
	uint64_t late_revocations; // as the library counts them
	char hang[5][160]; // of each process, when one made no progress
};

// Prints figures and verdicts; answers the exit status.
int report(struct mailbox *mb, const struct options *o, const struct deeds *d);

#endif
