// SPDX-License-Identifier: GPL-2.0-only
/*
 * A space: an exported address space as a file whose offset is the owner's
 * virtual address, and the notifier that keeps its mappings true.
 */
#include <linux/hashtable.h>
#include <linux/lockdep.h>
#include <linux/magic.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pseudo_fs.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "xpmem.h"

static struct vfsmount *xpmem_mnt;
static int xpmem_mnt_count;
static struct lock_class_key xpmem_i_mmap_key;

static int xpmem_fs_init_context(struct fs_context *fc)
{
	return init_pseudo(fc, ANON_INODE_FS_MAGIC) ? 0 : -ENOMEM;
}

/* Mounted while there is a space: the super block then pins the module. */
static struct file_system_type xpmem_fs_type = {
	.owner = THIS_MODULE,
	.name = "xpmem",
	.init_fs_context = xpmem_fs_init_context,
	.kill_sb = kill_anon_super,
};

/*
 * Notifications that are none of ours, though they come to our callback. Each
 * is about a part of an attachment, and an attachment is never a source
 * (hmm_range_fault() refuses VM_PFNMAP), so there is nothing to revoke; but
 * acting on them would not end well:
 *
 * - Zapping an attacher's page tables starts that process's own notifiers, and
 *   so ours again when it exports memory too. Where two processes attach each
 *   other's attachments that has no end.
 * - Splitting an attachment's VMA starts them (__split_huge_pmd()) with the
 *   i_mmap_rwsem of the space it maps held for writing. Where a process
 *   attaches itself that is the very lock we would take; where two processes
 *   attach each other, each would hold the lock that the other one waits for.
 */
static DEFINE_HASHTABLE(xpmem_exempt, 6);
static DEFINE_SPINLOCK(xpmem_exempt_lock);

static void xpmem_exempt_add(struct xpmem_exemption *e)
{
	spin_lock(&xpmem_exempt_lock);
	if (!hlist_unhashed(&e->node))
		hash_del(&e->node);
	e->task = current;
	hash_add(xpmem_exempt, &e->node, (unsigned long)current);
	spin_unlock(&xpmem_exempt_lock);
}

void xpmem_exempt_del(struct xpmem_exemption *e)
{
	spin_lock(&xpmem_exempt_lock);
	if (!hlist_unhashed(&e->node))
		hash_del(&e->node);
	spin_unlock(&xpmem_exempt_lock);
}

static bool xpmem_is_exempt(const struct mmu_notifier_range *range)
{
	struct xpmem_exemption *e;
	bool found = false;

	spin_lock(&xpmem_exempt_lock);
	hash_for_each_possible(xpmem_exempt, e, node, (unsigned long)current)
		if (e->task == current &&
		    (!e->mm || (e->mm == range->mm && e->start == range->start &&
				e->start + PMD_SIZE == range->end)))
			found = true;
	spin_unlock(&xpmem_exempt_lock);
	return found;
}

/*
 * The current task is about to split the attachment's VMA at @addr. There is
 * no hook for when it has: the exemption stays, and stays true, as long as the
 * range is the attachment's. Every way for it to cease to be closes a VMA.
 *
 * The kernel notifies only of a PMD that the VMA has whole. Of any other, part
 * may be memory that others map: that it goes must never be ignored.
 */
void xpmem_split_begin(struct vm_area_struct *vma, unsigned long addr)
{
	struct xpmem_attachment *att = vma->vm_private_data;
	unsigned long start = addr & PMD_MASK;

	xpmem_exempt_del(&att->split);
	if (start < vma->vm_start || vma->vm_end - start < PMD_SIZE)
		return;
	att->split.mm = att->access->mm;
	att->split.start = start;
	xpmem_exempt_add(&att->split);
}

/* Takes [start, start + size) from every attacher; size 0: all from start. */
static void xpmem_space_unmap(struct xpmem_space *space, unsigned long start,
			      unsigned long size)
{
	struct address_space *mapping = space->inode->i_mapping;
	struct xpmem_exemption self = {};

	if (!mapping_mapped(mapping))
		return;
	xpmem_event(XPMEM_EV_INVALIDATE_MAPPED);

	xpmem_exempt_add(&self);
	/*
	 * lockdep has one map for all processes' notifiers, and one class for
	 * all spaces' i_mmap_rwsem: it would take the nested start, which goes
	 * no deeper, for a recursion, and the split of a VMA for an inversion.
	 */
	lockdep_off();
	unmap_mapping_range(mapping, start, size, 1);
	lockdep_on();
	xpmem_exempt_del(&self);
}

static bool xpmem_invalidate(struct mmu_interval_notifier *notifier,
			     const struct mmu_notifier_range *range,
			     unsigned long seq)
{
	struct xpmem_space *space =
		container_of(notifier, struct xpmem_space, notifier);
	unsigned long size = range->end - range->start;

	if (xpmem_is_exempt(range))
		return true;
	xpmem_event(XPMEM_EV_INVALIDATE);
	if (mmu_notifier_range_blockable(range))
		down_write(&space->inval);
	else if (!down_write_trylock(&space->inval))
		return false;
	mmu_interval_set_seq(notifier, seq);
	up_write(&space->inval);

	/* Whoever maps the file from here on finds the sequence moved. */
	if (!mapping_mapped(space->inode->i_mapping))
		return true;
	if (!mmu_notifier_range_blockable(range))
		return false;
	/* The owner's exit asks for everything, up to ULONG_MAX. */
	xpmem_space_unmap(space, range->start,
			  range->end == ULONG_MAX ? 0 : size);
	return true;
}

static const struct mmu_interval_notifier_ops xpmem_notifier_ops = {
	.invalidate = xpmem_invalidate,
};

/*
 * After the caller set a flag that faults read under space->inval: what was
 * inserted before is taken away, and nothing is inserted after.
 */
void xpmem_space_withdraw(struct xpmem_space *space, unsigned long start,
			  unsigned long size)
{
	down_write(&space->inval);
	up_write(&space->inval);
	xpmem_space_unmap(space, start, size);
}

/* @mm is the caller's own. */
struct xpmem_space *xpmem_space_create(struct mm_struct *mm)
{
	struct xpmem_space *space;
	int err;

	space = kzalloc(sizeof(*space), GFP_KERNEL_ACCOUNT);
	if (!space)
		return ERR_PTR(-ENOMEM);
	kref_init(&space->ref);
	init_rwsem(&space->inval);
	err = simple_pin_fs(&xpmem_fs_type, &xpmem_mnt, &xpmem_mnt_count);
	if (err)
		goto free;
	space->inode = alloc_anon_inode(xpmem_mnt->mnt_sb);
	if (IS_ERR(space->inode)) {
		err = PTR_ERR(space->inode);
		goto unpin;
	}
	/*
	 * Taken inside notifiers, that is under the i_mmap_rwsem and anon_vma
	 * locks of whatever file or memory is being unmapped.
	 */
	lockdep_set_class(&space->inode->i_mapping->i_mmap_rwsem,
			  &xpmem_i_mmap_key);
	space->mm = mm;
	mmgrab(mm);
	err = mmu_interval_notifier_insert(&space->notifier, mm, 0, ULONG_MAX,
					   &xpmem_notifier_ops);
	if (err)
		goto drop;
	xpmem_live_inc(XPMEM_LIVE_SPACES);
	return space;

drop:
	mmdrop(mm);
	iput(space->inode);
unpin:
	simple_release_fs(&xpmem_mnt, &xpmem_mnt_count);
free:
	kfree(space);
	return ERR_PTR(err);
}

static void xpmem_space_free(struct kref *ref)
{
	struct xpmem_space *space = container_of(ref, struct xpmem_space, ref);

	/* Waits for a running callback; never called from one. */
	mmu_interval_notifier_remove(&space->notifier);
	iput(space->inode);
	simple_release_fs(&xpmem_mnt, &xpmem_mnt_count);
	mmdrop(space->mm);
	xpmem_live_dec(XPMEM_LIVE_SPACES);
	kfree(space);
}

void xpmem_space_put(struct xpmem_space *space)
{
	kref_put(&space->ref, xpmem_space_free);
}

/* A file of the space. Its release() must drop what @data is. */
struct file *xpmem_space_file(struct xpmem_space *space,
			      const struct file_operations *fops, int flags,
			      void *data)
{
	struct file *file;

	/* fput() puts the module. */
	__module_get(THIS_MODULE);
	ihold(space->inode);
	file = alloc_file_pseudo(space->inode, xpmem_mnt, "xpmem", flags, fops);
	if (IS_ERR(file)) {
		iput(space->inode);
		module_put(THIS_MODULE);
		return file;
	}
	file->private_data = data;
	return file;
}
