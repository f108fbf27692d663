// SPDX-License-Identifier: GPL-2.0-only
/* Taking attachments away again: detach, release, and the end of a client. */
#include <linux/mman.h>

#include "xpmem.h"

/*
 * Unmaps [start, end), if it is still a VMA of the attachment when the
 * mmap_lock is held for writing: vm_munmap() cannot be told to look. Mapping
 * a file over it can: xpmem_get_unmapped_area() looks, with the lock held, and
 * xpmem_file_mmap() then refuses, after the kernel has made room. That leaves
 * a hole. The caller looks whether it did. -ESTALE: no such VMA any more.
 */
static long xpmem_unmap_exactly(struct xpmem_attachment *att, struct file *file,
				unsigned long start, unsigned long end)
{
	struct xpmem_access *access = att->access;
	long ret;

	access->unmapping = att;
	WRITE_ONCE(access->unmapper, current);
	ret = vm_mmap(file, start, end - start, PROT_NONE,
		      MAP_SHARED | MAP_FIXED, 0);
	WRITE_ONCE(access->unmapper, NULL);
	return ret;
}

/* The attachment's first VMA that ends after @from. */
static bool xpmem_attachment_find(struct xpmem_attachment *att,
				  unsigned long from, unsigned long *start,
				  unsigned long *end)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	bool found = false;

	/* Only mremap() moves the bounds, with the lock held for writing. */
	mmap_read_lock(mm);
	from = max(from, att->lo);
	while (from < att->hi && !found) {
		vma = find_vma_intersection(mm, from, att->hi);
		if (!vma)
			break;
		*start = vma->vm_start;
		*end = vma->vm_end;
		from = vma->vm_end;
		found = xpmem_vma_is_attachment(vma) &&
			vma->vm_private_data == att;
	}
	mmap_read_unlock(mm);
	return found;
}

/*
 * Unmaps every VMA of the attachment from the caller's address space.
 * access->unmap is held, so that no other detach or release does the same, but
 * a thread may munmap() it meanwhile and map something else there. With @file,
 * which is the permit's, that is left alone.
 */
static int xpmem_attachment_unmap(struct xpmem_attachment *att, struct file *file)
{
	unsigned long start, end, from = 0, tried = 0;
	bool found = false;
	int err;

	for (;;) {
		if (!xpmem_attachment_find(att, from, &start, &end)) {
			/* What was moved meanwhile is where we have been. */
			if (!found)
				return 0;
			found = false;
			from = 0;
			continue;
		}
		found = true;
		from = start;
		if (file && tried != end) {
			if (xpmem_unmap_exactly(att, file, start, end) != -ESTALE)
				tried = end;
			continue;
		}
		/* Not to be had in one step: too many mappings, say. */
		if (file)
			xpmem_event(XPMEM_EV_UNMAP_TWO_STEPS);
		err = vm_munmap(start, end - start);
		if (err)
			return err;
		from = end;
	}
}

/* Split, moved, or another detach or a release is at it. Drops the mmap_lock. */
static noinline int xpmem_detach_parts(struct mm_struct *mm,
				       struct xpmem_attachment *att)
{
	struct xpmem_access *access = att->access;
	int err;

	refcount_inc(&att->ref);
	mmap_read_unlock(mm);
	mutex_lock(&access->unmap);
	err = xpmem_attachment_unmap(att, NULL);
	mutex_unlock(&access->unmap);
	xpmem_attachment_put(att);
	return err;
}

int xpmem_detach(struct xpmem_client *client, u64 vaddr)
{
	struct mm_struct *mm = current->mm;
	struct xpmem_attachment *att;
	struct xpmem_access *access;
	struct vm_area_struct *vma;
	unsigned long start, end;
	int err;

	if (!mm)
		return 0;
	vaddr = xpmem_untagged(vaddr);
	mmap_read_lock(mm);
	vma = vma_lookup(mm, vaddr);
	if (!vma || !xpmem_vma_is_attachment(vma)) {
		mmap_read_unlock(mm);
		return vma ? -EINVAL : 0;
	}
	att = vma->vm_private_data;
	access = att->access;
	start = vma->vm_start;
	end = vma->vm_end;
	/* Nearly always the VMA found is all of it, and nobody is at it. */
	if (start > att->lo || end < att->hi || !mutex_trylock(&access->unmap))
		return xpmem_detach_parts(mm, att);
	kref_get(&access->obj.ref);
	mmap_read_unlock(mm);

	err = vm_munmap(start, end - start);
	mutex_unlock(&access->unmap);
	xpmem_access_put(access);
	/* The last one: the next may have its place. */
	if (start == READ_ONCE(client->top))
		WRITE_ONCE(client->top, end);
	return err;
}

/*
 * Unmaps what the permit attached. From another address space (the last
 * descriptor was closed elsewhere) the mappings stay, and any touch is to be
 * SIGBUS: true, and the caller withdraws what is mapped of the segment.
 */
static bool xpmem_access_revoke(struct xpmem_access *access)
{
	struct xpmem_attachment *att;
	bool left = false;
	struct file *file;

	if (!xpmem_id_del(&xpmem_accesses, &access->obj))
		return false;

	mutex_lock(&access->unmap);
	spin_lock(&access->lock);
	WRITE_ONCE(access->revoked, true);
	file = access->file;
	access->file = NULL;
	while ((att = hlist_entry_safe(access->attachments.first,
				       struct xpmem_attachment, link))) {
		/* Its last put takes access->lock first: it is alive. */
		hlist_del_init(&att->link);
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

	if (file)
		fput(file);
	xpmem_access_put(access);
	return left;
}

/* Puts them, and withdraws at once what one space has of them. */
static void xpmem_withdraw_all(struct hlist_head *accesses)
{
	struct xpmem_access *first, *access;
	struct xpmem_segment *segment;
	unsigned long start, end;
	struct hlist_node *next;

	while (!hlist_empty(accesses)) {
		first = hlist_entry(accesses->first, struct xpmem_access,
				    obj.owned);
		start = ULONG_MAX;
		end = 0;
		hlist_for_each_entry_safe(access, next, accesses, obj.owned) {
			segment = access->segment;
			if (segment->space != first->segment->space)
				continue;
			start = min(start, segment->start);
			end = max(end, segment->start + segment->size);
			hlist_del_init(&access->obj.owned);
			if (access != first)
				xpmem_access_put(access);
		}
		xpmem_space_withdraw(first->segment->space, start, end - start);
		xpmem_access_put(first);
	}
}

/*
 * Every permit of a client that goes. One by one they would be withdrawn from
 * all that is mapped of the space, which may be as many mappings as permits.
 */
void xpmem_client_revoke(struct xpmem_client *client)
{
	struct xpmem_access *access;
	struct xpmem_object *obj;
	HLIST_HEAD(left);

	while ((obj = xpmem_owned_first(&xpmem_accesses, client))) {
		access = container_of(obj, struct xpmem_access, obj);
		/* Out of the table, its place in the client's list is free. */
		if (xpmem_access_revoke(access))
			hlist_add_head(&obj->owned, &left);
		else
			xpmem_access_put(access);
		cond_resched();
	}
	xpmem_withdraw_all(&left);
}

int xpmem_access_release(struct xpmem_client *client, s64 apid)
{
	struct xpmem_access *access;
	int err = 0;

	if (apid <= 0)
		return -EINVAL;
	access = xpmem_access_get(apid);
	if (!access)
		return -ENOENT;
	if (access->mm == current->mm) {
		/* What it had attached becomes free: search anew. */
		if (!hlist_empty(&access->attachments))
			WRITE_ONCE(client->top, 0);
		if (xpmem_access_revoke(access))
			xpmem_space_withdraw(access->segment->space,
					     access->segment->start,
					     access->segment->size);
	} else {
		err = -EACCES;
	}
	xpmem_access_put(access);
	return err;
}
