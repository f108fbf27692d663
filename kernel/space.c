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
 * Tasks inside xpmem_space_unmap(). Zapping an attacher's page tables starts
 * that process's own notifiers, and so ours again when it exports memory too.
 * The range is then part of an attachment, which is never a source
 * (hmm_range_fault() refuses VM_PFNMAP): there is nothing to revoke. Going on
 * would not end either, where two processes attach each other's attachments.
 */
struct xpmem_unmapper {
	struct hlist_node node;
	struct task_struct *task;
};

#define XPMEM_UNMAPPER_BITS	6
static DEFINE_HASHTABLE(xpmem_unmappers, XPMEM_UNMAPPER_BITS);
static DEFINE_SPINLOCK(xpmem_unmappers_lock);

static bool xpmem_is_unmapper(void)
{
	struct xpmem_unmapper *u;
	bool found = false;

	spin_lock(&xpmem_unmappers_lock);
	hash_for_each_possible(xpmem_unmappers, u, node, (unsigned long)current)
		if (u->task == current)
			found = true;
	spin_unlock(&xpmem_unmappers_lock);
	return found;
}

/* Takes [start, start + size) from every attacher; size 0: all from start. */
static void xpmem_space_unmap(struct xpmem_space *space, unsigned long start,
			      unsigned long size)
{
	struct address_space *mapping = space->inode->i_mapping;
	struct xpmem_unmapper self = { .task = current };

	if (!mapping_mapped(mapping))
		return;
	xpmem_event(XPMEM_EV_INVALIDATE_MAPPED);

	spin_lock(&xpmem_unmappers_lock);
	hash_add(xpmem_unmappers, &self.node, (unsigned long)current);
	spin_unlock(&xpmem_unmappers_lock);

	/*
	 * lockdep has one map for all processes' notifiers and would take the
	 * nested start (see above, bounded to one level) for a recursion. Let
	 * it check the one lock that matters, then look away.
	 */
	might_lock_read(&mapping->i_mmap_rwsem);
	lockdep_off();
	unmap_mapping_range(mapping, start, size, 1);
	lockdep_on();

	spin_lock(&xpmem_unmappers_lock);
	hash_del(&self.node);
	spin_unlock(&xpmem_unmappers_lock);
}

static bool xpmem_invalidate(struct mmu_interval_notifier *notifier,
			     const struct mmu_notifier_range *range,
			     unsigned long seq)
{
	struct xpmem_space *space =
		container_of(notifier, struct xpmem_space, notifier);
	unsigned long size = range->end - range->start;

	if (xpmem_is_unmapper())
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
