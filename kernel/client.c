// SPDX-License-Identifier: GPL-2.0-only
/* An open file of /dev/xpmem. */
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "xpmem.h"

int xpmem_open(struct inode *inode, struct file *file)
{
	struct xpmem_client *client;

	if (!current->mm)
		return -EINVAL;
	client = kzalloc(sizeof(*client), GFP_KERNEL_ACCOUNT);
	if (!client)
		return -ENOMEM;
	client->user = xpmem_user_get_current();
	if (!client->user) {
		kfree(client);
		return -ENOMEM;
	}
	mutex_init(&client->lock);
	client->mm = current->mm;
	mmgrab(client->mm);
	file->private_data = client;
	return 0;
}

/* Whatever faults on the caller's memory waits, or does so no more. */
int xpmem_hold(struct xpmem_client *client, s64 hold)
{
	int err;

	if (hold != 0 && hold != 1)
		return -EINVAL;
	if (client->mm != current->mm)
		return -XPMEM_ERRNO_NOPROC;
	err = xpmem_client_keep_space(client);
	if (err)
		return err;
	mutex_lock(&client->lock);
	if (client->holds != hold) {
		client->holds = hold;
		xpmem_space_hold(client->space, hold);
	}
	mutex_unlock(&client->lock);
	/* Let those finish that found it not held (debugger.c). */
	if (hold && !mmap_write_lock_killable(client->mm))
		mmap_write_unlock(client->mm);
	return 0;
}

/*
 * The last descriptor went, by close, exec or exit, in whatever process held
 * it. Permits first: their attachments are then gone before the segments.
 */
int xpmem_release(struct inode *inode, struct file *file)
{
	struct xpmem_client *client = file->private_data;

	xpmem_client_revoke(client);
	xpmem_client_withdraw(client);
	if (client->holds)
		xpmem_space_hold(client->space, false);
	if (client->space)
		xpmem_space_put(client->space);
	mmdrop(client->mm);
	xpmem_user_put(client->user);
	kfree(client);
	return 0;
}
