// SPDX-License-Identifier: GPL-2.0-only
/* Segments: what an owner exports, and to whom. */
#include <linux/cred.h>
#include <linux/ipc_namespace.h>
#include <linux/nsproxy.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/user_namespace.h>

#include "xpmem.h"

static struct xpmem_space *xpmem_client_space(struct xpmem_client *client)
{
	struct xpmem_space *space;

	mutex_lock(&client->lock);
	space = client->space;
	if (!space) {
		space = xpmem_space_create(client->mm);
		if (!IS_ERR(space))
			client->space = space;
	}
	if (!IS_ERR(space))
		kref_get(&space->ref);
	mutex_unlock(&client->lock);
	return space;
}

static int xpmem_make_check(struct xpmem_client *client,
			    struct xpmem_ioc_make *arg)
{
	if (arg->permit_type != XPMEM_PERMIT_MODE ||
	    arg->permit_value & ~0777ULL || !arg->size)
		return -EINVAL;
	if (client->mm != current->mm)
		return -XPMEM_ERRNO_NOPROC;
	if (arg->size == XPMEM_MAXADDR_SIZE) {
		if (arg->vaddr)
			return -EINVAL;
		arg->size = TASK_SIZE;
	}
	if (arg->vaddr > TASK_SIZE || arg->size > TASK_SIZE - arg->vaddr)
		return -EINVAL;
	if (!PAGE_ALIGNED(arg->vaddr) || !PAGE_ALIGNED(arg->size))
		return -EINVAL;
	return 0;
}

int xpmem_make(struct xpmem_client *client, struct xpmem_ioc_make *arg)
{
	struct xpmem_segment *segment;
	struct xpmem_space *space;
	int err;

	err = xpmem_make_check(client, arg);
	if (err)
		return err;
	segment = kzalloc(sizeof(*segment), GFP_KERNEL_ACCOUNT);
	if (!segment)
		return -ENOMEM;
	space = xpmem_client_space(client);
	if (IS_ERR(space)) {
		kfree(segment);
		return PTR_ERR(space);
	}

	kref_init(&segment->obj.ref);
	INIT_LIST_HEAD(&segment->obj.owned);
	segment->space = space;
	segment->start = arg->vaddr;
	segment->size = arg->size;
	segment->mode = arg->permit_value;
	/*
	 * Effective ids, as System V IPC does: a set-user-id owner's memory is
	 * not the invoking user's.
	 */
	segment->uid = current_euid();
	segment->gid = current_egid();
	segment->user_ns = get_user_ns(current->nsproxy->ipc_ns->user_ns);
	xpmem_live_inc(XPMEM_LIVE_SEGMENTS);

	err = xpmem_id_add(&xpmem_segments, &segment->obj, &client->segments);
	if (err) {
		xpmem_segment_put(segment);
		return err;
	}
	arg->segid = segment->obj.id;
	return 0;
}

struct xpmem_segment *xpmem_segment_get(s64 segid)
{
	struct xpmem_object *obj = xpmem_id_get(&xpmem_segments, segid);

	return obj ? container_of(obj, struct xpmem_segment, obj) : NULL;
}

static void xpmem_segment_free(struct kref *ref)
{
	struct xpmem_segment *segment =
		container_of(ref, struct xpmem_segment, obj.ref);

	xpmem_space_put(segment->space);
	put_user_ns(segment->user_ns);
	xpmem_live_dec(XPMEM_LIVE_SEGMENTS);
	kfree(segment);
}

void xpmem_segment_put(struct xpmem_segment *segment)
{
	kref_put(&segment->obj.ref, xpmem_segment_free);
}

/* From here on every touch of an attachment to it is SIGBUS. */
void xpmem_segment_withdraw(struct xpmem_segment *segment)
{
	if (!xpmem_id_del(&xpmem_segments, &segment->obj))
		return;
	WRITE_ONCE(segment->removed, true);
	xpmem_space_withdraw(segment->space, segment->start, segment->size);
	xpmem_segment_put(segment);
}

int xpmem_remove(struct xpmem_client *client, struct xpmem_ioc_remove *arg)
{
	struct xpmem_segment *segment;
	int err = 0;

	if (arg->segid <= 0)
		return -EINVAL;
	segment = xpmem_segment_get(arg->segid);
	if (!segment)
		return -ENOENT;
	if (!xpmem_space_alive(segment->space))
		err = -ENOENT;
	else if (segment->space->mm != current->mm)
		err = -EACCES;
	else
		xpmem_segment_withdraw(segment);
	xpmem_segment_put(segment);
	return err;
}

/* As for System V IPC objects. */
bool xpmem_segment_permits(const struct xpmem_segment *segment, bool write)
{
	unsigned int wanted = write ? 0006 : 0004;
	unsigned int granted = segment->mode;

	if (uid_eq(current_euid(), segment->uid))
		granted >>= 6;
	else if (in_egroup_p(segment->gid))
		granted >>= 3;
	if (!(wanted & ~granted))
		return true;
	return ns_capable(segment->user_ns, CAP_IPC_OWNER);
}
