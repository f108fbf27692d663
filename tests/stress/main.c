// SPDX-License-Identifier: MIT OR Apache-2.0
// A randomized test of what the library promises: an attachment never shows
// bytes that are not the owner's present ones, and loses no write, whatever the
// owner does to its address space and whoever dies. Reading order: mailbox.h
// (the protocol), worker.h and the op_*.c (the owner), checker.c (the
// attachers' judgement), driver.c (kills and verdict).
#include "../lib/load.h"
#include "attacher.h"
#include "driver.h"
#include "owner.h"
#include "writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	struct options o;
	struct mailbox *mb;

	options_parse(&o, argc, argv);
	if (!o.role)
		return driver_main(&o);
	mb = mailbox_map(o.mailbox_fd, false);
	if (!mb || (!o.plain && !xpmem_api_load(o.lib)))
		return 1;
	// A forked child of the owner shares these; an executed one must not have them.
	fcntl(o.mailbox_fd, F_SETFD, FD_CLOEXEC);
	if (o.plain_fd >= 0)
		fcntl(o.plain_fd, F_SETFD, FD_CLOEXEC);
	if (!strcmp(o.role, "owner"))
		return owner_main(mb, &(struct owner_options){ o.inject, o.plain_fd, o.mailbox_fd, o.classes });
	if (!strcmp(o.role, "writer"))
		return writer_main(mb);
	if (!strcmp(o.role, "sweeper"))
		return sweeper_main();
	return attacher_main(mb, o.self, o.incarnation, o.plain_fd);
}
