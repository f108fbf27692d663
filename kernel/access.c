// SPDX-License-Identifier: GPL-2.0-only
/* Access permits: what an attacher was granted. */
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "xpmem.h"

int xpmem_get(struct xpmem_client *client, struct xpmem_ioc_get *arg)
{
	struct xpmem_segment *segment;
	struct xpmem_access *access;
	bool write = arg->flags == XPMEM_RDWR;
	int err;

	if (arg->segid <= 0)
		return -EINVAL;
	if (arg->flags != XPMEM_RDONLY && arg->flags != XPMEM_RDWR)
		return -EINVAL;
	if (arg->permit_type != XPMEM_PERMIT_MODE || arg->permit_value)
		return -EINVAL;
	segment = xpmem_segment_get(arg->segid);
	if (!segment)
		return -ENOENT;
	err = -ENOENT;
	if (!xpmem_space_alive(segment->space))
		goto put_segment;
	err = -EACCES;
	if (!xpmem_segment_permits(segment, write))
		goto put_segment;
	err = -XPMEM_ERRNO_NOPROC;
	if (client->mm != current->mm)
		goto put_segment;

	err = -ENOMEM;
	access = kzalloc(sizeof(*access), GFP_KERNEL_ACCOUNT);
	if (!access)
		goto put_segment;
	kref_init(&access->obj.ref);
	INIT_LIST_HEAD(&access->obj.owned);
	access->segment = segment;
	access->mm = client->mm;
	mmgrab(access->mm);
	access->write = write;
	spin_lock_init(&access->lock);
	mutex_init(&access->unmap);
	INIT_LIST_HEAD(&access->attachments);
	xpmem_live_inc(XPMEM_LIVE_PERMITS);

	err = xpmem_id_add(&xpmem_accesses, &access->obj, &client->accesses);
	if (err) {
		xpmem_access_put(access);
		return err;
	}
	arg->apid = access->obj.id;
	return 0;

put_segment:
	xpmem_segment_put(segment);
	return err;
}

struct xpmem_access *xpmem_access_get(s64 apid)
{
	struct xpmem_object *obj = xpmem_id_get(&xpmem_accesses, apid);

	return obj ? container_of(obj, struct xpmem_access, obj) : NULL;
}

static void xpmem_access_free(struct kref *ref)
{
	struct xpmem_access *access =
		container_of(ref, struct xpmem_access, obj.ref);

	xpmem_segment_put(access->segment);
	mmdrop(access->mm);
	xpmem_live_dec(XPMEM_LIVE_PERMITS);
	kfree(access);
}

void xpmem_access_put(struct xpmem_access *access)
{
	kref_put(&access->obj.ref, xpmem_access_free);
}

/*
 * Unmaps what the permit attached. From another address space (the last
 * descriptor was closed elsewhere) the mappings stay, and any touch is SIGBUS.
 */
void xpmem_access_revoke(struct xpmem_access *access)
{
	struct xpmem_segment *segment = access->segment;
	struct xpmem_attachment *att;
	bool left = false;
	struct file *file;

	if (!xpmem_id_del(&xpmem_accesses, &access->obj))
		return;

	mutex_lock(&access->unmap);
	spin_lock(&access->lock);
	WRITE_ONCE(access->revoked, true);
	file = access->file;
	access->file = NULL;
	while ((att = list_first_entry_or_null(&access->attachments,
					       struct xpmem_attachment, link))) {
		/* Its last put takes access->lock first: it is alive. */
		list_del_init(&att->link);
		if (!refcount_inc_not_zero(&att->ref))
			continue;
		spin_unlock(&access->lock);
		if (access->mm != current->mm ||
		    xpmem_attachment_unmap(att, file))
			left = true;
		xpmem_attachment_put(att);
		spin_lock(&access->lock);
	}
	spin_unlock(&access->lock);
	mutex_unlock(&access->unmap);

	if (left)
		xpmem_space_withdraw(segment->space, segment->start,
				     segment->size);
	if (file)
		fput(file);
	xpmem_access_put(access);
}

int xpmem_give_back(struct xpmem_client *client, struct xpmem_ioc_release *arg)
{
	struct xpmem_access *access;
	int err = 0;

	if (arg->apid <= 0)
		return -EINVAL;
	access = xpmem_access_get(arg->apid);
	if (!access)
		return -ENOENT;
	if (access->mm == current->mm)
		xpmem_access_revoke(access);
	else
		err = -EACCES;
	xpmem_access_put(access);
	return err;
}
