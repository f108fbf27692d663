// SPDX-License-Identifier: GPL-2.0-only
/* Access permits: what an attacher was granted. */
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "xpmem.h"

static struct kmem_cache *xpmem_access_cache;

/* What a permit is again when it is freed: it need not be done for each. */
static void xpmem_access_construct(void *object)
{
	struct xpmem_access *access = object;

	spin_lock_init(&access->lock);
	mutex_init(&access->unmap);
	INIT_HLIST_HEAD(&access->attachments);
}

int xpmem_access_init(void)
{
	xpmem_access_cache = kmem_cache_create("xpmem_access",
					       sizeof(struct xpmem_access), 0,
					       SLAB_ACCOUNT,
					       xpmem_access_construct);
	return xpmem_access_cache ? 0 : -ENOMEM;
}

void xpmem_access_exit(void)
{
	kmem_cache_destroy(xpmem_access_cache);
}

s64 xpmem_access_grant(struct xpmem_client *client, s64 segid, s32 flags,
		       s32 type, u64 value)
{
	struct xpmem_segment *segment;
	struct xpmem_access *access;
	bool write = flags == XPMEM_RDWR;
	int err;

	if (segid <= 0)
		return -EINVAL;
	if (flags != XPMEM_RDONLY && flags != XPMEM_RDWR)
		return -EINVAL;
	if (type != XPMEM_PERMIT_MODE || value)
		return -EINVAL;
	segment = xpmem_segment_get(segid);
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
	/* Not zeroed: each member is set here, before, or by xpmem_id_add(). */
	access = kmem_cache_alloc(xpmem_access_cache, GFP_KERNEL);
	if (!access)
		goto put_segment;
	kref_init(&access->obj.ref);
	access->segment = segment;
	access->mm = client->mm;
	mmgrab(access->mm);
	access->write = write;
	access->revoked = false;
	access->file = NULL;
	access->unmapper = NULL;
	xpmem_live_inc(XPMEM_LIVE_PERMITS);

	err = xpmem_id_add_access(&access->obj, client);
	if (err) {
		xpmem_access_put(access);
		return err;
	}
	return access->obj.id;

put_segment:
	xpmem_segment_put(segment);
	return err;
}

static void xpmem_access_free(struct kref *ref)
{
	struct xpmem_access *access =
		container_of(ref, struct xpmem_access, obj.ref);

	xpmem_segment_put(access->segment);
	mmdrop(access->mm);
	xpmem_live_dec(XPMEM_LIVE_PERMITS);
	kmem_cache_free(xpmem_access_cache, access);
}

void xpmem_access_put(struct xpmem_access *access)
{
	kref_put(&access->obj.ref, xpmem_access_free);
}
