// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef STRESS_OP_SYNC_H
#define STRESS_OP_SYNC_H

#include "mailbox.h"

// Handler of the signals that the workers queue, and the comparison at the end.
void signals_install(void);
void signals_check(struct mailbox *mb);

#endif
