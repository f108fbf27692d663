// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef STRESS_ATTACHER_H
#define STRESS_ATTACHER_H

#include "mailbox.h"

// Serves requests until the run stops; answers the exit status of the process.
int attacher_main(struct mailbox *mb, unsigned self, uint32_t incarnation, int plain_fd);

#endif
