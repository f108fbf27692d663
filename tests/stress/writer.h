// SPDX-License-Identifier: MIT OR Apache-2.0
// The third process: a child of the owner's that attaches nothing and writes to the
// owner's memory by process_vm_writev, as debuggers and MPI's other transports do.
#ifndef STRESS_WRITER_H
#define STRESS_WRITER_H

#include "mailbox.h"

// The owner's side; `mailbox_fd` is what the process inherits.
void writer_start(struct mailbox *mb, int mailbox_fd);
void writer_end(struct mailbox *mb);
// Whether there is one.
bool writer_is_there(void);

// The process itself; answers its exit status.
int writer_main(struct mailbox *mb);

#endif
