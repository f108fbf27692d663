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
	int err;

	while (xpmem_attachment_find(att, from, &start, &end)) {
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
	return 0;
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

	if (left)
		xpmem_space_withdraw(segment->space, segment->start,
				     segment->size);
	if (file)
		fput(file);
	xpmem_access_put(access);
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
		xpmem_access_revoke(access);
	} else {
		err = -EACCES;
	}
	xpmem_access_put(access);
	return err;
}
