// SPDX-License-Identifier: GPL-2.0-only
/* Segments: what an owner exports, and to whom. */
#include <linux/cred.h>
#include <linux/ipc_namespace.h>
#include <linux/nsproxy.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/user_namespace.h>

#include "xpmem.h"

/*
 * The client keeps the space from its first segment on: making one takes every
 * lock of the address space.
 */
int xpmem_client_keep_space(struct xpmem_client *client)
{
	struct xpmem_space *space;
	int err = 0;

	mutex_lock(&client->lock);
	if (!client->space) {
		space = xpmem_space_get_current();
		if (IS_ERR(space))
			err = PTR_ERR(space);
		else
			client->space = space;
	}
	mutex_unlock(&client->lock);
	return err;
}

s64 xpmem_segment_make(struct xpmem_client *client, u64 vaddr, u64 size,
		       s32 type, u64 value)
{
	struct xpmem_segment *segment;
	struct xpmem_space *space;
	int err;

	if (type != XPMEM_PERMIT_MODE || value & ~0777ULL || !size)
		return -EINVAL;
	if (client->mm != current->mm)
		return -XPMEM_ERRNO_NOPROC;
	if (size == XPMEM_MAXADDR_SIZE) {
		if (vaddr)
			return -EINVAL;
		size = TASK_SIZE;
	}
	vaddr = xpmem_untagged(vaddr);
	if (vaddr > TASK_SIZE || size > TASK_SIZE - vaddr)
		return -EINVAL;
	if (!PAGE_ALIGNED(vaddr) || !PAGE_ALIGNED(size))
		return -EINVAL;

	segment = kzalloc(sizeof(*segment), GFP_KERNEL_ACCOUNT);
	if (!segment)
		return -ENOMEM;
	err = xpmem_client_keep_space(client);
	if (err)
		goto free;
	space = xpmem_space_get_current();
	if (IS_ERR(space)) {
		err = PTR_ERR(space);
		goto free;
	}

	kref_init(&segment->obj.ref);
	segment->space = space;
	segment->start = vaddr;
	segment->size = size;
	segment->mode = value;
	/*
	 * Effective ids, as System V IPC does: a set-user-id owner's memory is
	 * not the invoking user's.
	 */
	segment->uid = current_euid();
	segment->gid = current_egid();
	segment->user_ns = get_user_ns(current->nsproxy->ipc_ns->user_ns);
	xpmem_live_inc(XPMEM_LIVE_SEGMENTS);

	err = xpmem_id_add_segment(&segment->obj, client);
	if (err) {
		xpmem_segment_put(segment);
		return err;
	}
	return segment->obj.id;

free:
	kfree(segment);
	return err;
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

/*
 * True for the one caller that withdraws what is mapped of it: from then on
 * every touch of an attachment to it is SIGBUS.
 */
static bool xpmem_segment_unlist(struct xpmem_segment *segment)
{
	if (!xpmem_id_del(&xpmem_segments, &segment->obj))
		return false;
	WRITE_ONCE(segment->removed, true);
	return true;
}

static void xpmem_segment_withdraw(struct xpmem_segment *segment)
{
	if (!xpmem_segment_unlist(segment))
		return;
	xpmem_space_withdraw(segment->space, segment->start, segment->size);
	xpmem_segment_put(segment);
}

/* Every segment of a client that goes: they are all of one space. */
void xpmem_client_withdraw(struct xpmem_client *client)
{
	unsigned long start = ULONG_MAX, end = 0;
	struct xpmem_segment *segment;
	struct xpmem_object *obj;

	while ((obj = xpmem_owned_first(&xpmem_segments, client))) {
		segment = container_of(obj, struct xpmem_segment, obj);
		if (xpmem_segment_unlist(segment)) {
			start = min(start, segment->start);
			end = max(end, segment->start + segment->size);
			xpmem_segment_put(segment);
		}
		xpmem_segment_put(segment);
		cond_resched();
	}
	if (end)
		xpmem_space_withdraw(client->space, start, end - start);
}

int xpmem_segment_remove(s64 segid)
{
	struct xpmem_segment *segment;
	int err = 0;

	if (segid <= 0)
		return -EINVAL;
	segment = xpmem_segment_get(segid);
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
