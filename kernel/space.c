// SPDX-License-Identifier: GPL-2.0-only
/*
 * A space: an exported address space as a file whose offset is the owner's
 * virtual address. An mm has one at most, whoever of its threads, descriptors
 * and libraries made segments: the mmu notifier finds it and counts its users.
 */
#include <linux/errno.h>
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
static struct workqueue_struct *xpmem_spaces_wq;

static int xpmem_fs_init_context(struct fs_context *fc)
{
	if (!init_pseudo(fc, ANON_INODE_FS_MAGIC))
		return -ENOMEM;
	/* Of a process with READ_IMPLIES_EXEC mmap() would ask for VM_EXEC. */
	fc->s_iflags |= SB_I_NOEXEC;
	return 0;
}

/* Mounted while there is a space: the super block then pins the module. */
static struct file_system_type xpmem_fs_type = {
	.owner = THIS_MODULE,
	.name = "xpmem",
	.init_fs_context = xpmem_fs_init_context,
	.kill_sb = kill_anon_super,
};

/* What waits for the owner's invalidations: nobody's call shall. */
static void xpmem_space_free(struct work_struct *work)
{
	struct xpmem_space *space =
		container_of(work, struct xpmem_space, work);

	mmu_interval_notifier_remove(&space->veto);
	iput(space->inode);
	mmdrop(space->mm);
	xpmem_user_uncharge(space->user, XPMEM_KIND_SPACE);
	xpmem_user_put(space->user);
	kfree(space);
	xpmem_live_dec(XPMEM_LIVE_SPACES);
	simple_release_fs(&xpmem_mnt, &xpmem_mnt_count);
}

/* Called by SRCU, which cannot wait. */
static void xpmem_notifier_free(struct mmu_notifier *notifier)
{
	struct xpmem_space *space =
		container_of(notifier, struct xpmem_space, notifier);

	INIT_WORK(&space->work, xpmem_space_free);
	queue_work(xpmem_spaces_wq, &space->work);
}

/*
 * Called by mmu_notifier_get(), under the mmap_lock of the caller's own @mm,
 * which is held for writing.
 */
static struct mmu_notifier *xpmem_notifier_alloc(struct mm_struct *mm)
{
	struct xpmem_space *space;
	int err = -ENOMEM;

	space = kzalloc(sizeof(*space), GFP_KERNEL_ACCOUNT);
	if (!space)
		return ERR_PTR(-ENOMEM);
	spin_lock_init(&space->lock);
	INIT_LIST_HEAD(&space->looks);
	init_waitqueue_head(&space->quiet);
	init_rwsem(&space->inval);
	space->user = xpmem_user_get_current();
	if (!space->user)
		goto free;
	err = -ENOSPC;
	if (!xpmem_user_charge(space->user, XPMEM_KIND_SPACE))
		goto put_user;
	/* Already mounted by xpmem_space_get_current(): this only counts. */
	err = simple_pin_fs(&xpmem_fs_type, &xpmem_mnt, &xpmem_mnt_count);
	if (err)
		goto uncharge;
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
	err = mmu_interval_notifier_insert_locked(&space->veto, mm, 0,
						  ULONG_MAX, &xpmem_veto_ops);
	if (err)
		goto drop;
	xpmem_live_inc(XPMEM_LIVE_SPACES);
	return &space->notifier;

drop:
	mmdrop(mm);
	iput(space->inode);
unpin:
	simple_release_fs(&xpmem_mnt, &xpmem_mnt_count);
uncharge:
	xpmem_user_uncharge(space->user, XPMEM_KIND_SPACE);
put_user:
	xpmem_user_put(space->user);
free:
	kfree(space);
	return ERR_PTR(err);
}

static const struct mmu_notifier_ops xpmem_notifier_ops = {
	.alloc_notifier = xpmem_notifier_alloc,
	.free_notifier = xpmem_notifier_free,
	.invalidate_range_start = xpmem_change_start,
	.invalidate_range_end = xpmem_change_end,
	.release = xpmem_owner_exits,
};

/* The space of the caller's mm, made if there is none; with a reference. */
struct xpmem_space *xpmem_space_get_current(void)
{
	struct mmu_notifier *notifier;
	int err;

	err = simple_pin_fs(&xpmem_fs_type, &xpmem_mnt, &xpmem_mnt_count);
	if (err)
		return ERR_PTR(err);
	notifier = mmu_notifier_get(&xpmem_notifier_ops, current->mm);
	simple_release_fs(&xpmem_mnt, &xpmem_mnt_count);
	if (!IS_ERR(notifier))
		return container_of(notifier, struct xpmem_space, notifier);
	/* Any signal stops the kernel's taking of all locks: then once more. */
	if (notifier == ERR_PTR(-EINTR))
		return ERR_PTR(-ERESTARTNOINTR);
	return ERR_CAST(notifier);
}

void xpmem_space_put(struct xpmem_space *space)
{
	mmu_notifier_put(&space->notifier);
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

int xpmem_spaces_init(void)
{
	xpmem_spaces_wq = alloc_workqueue("xpmem", WQ_UNBOUND, 0);
	return xpmem_spaces_wq ? 0 : -ENOMEM;
}

/* What was a space is gone; the functions that freed it may not have returned. */
void xpmem_spaces_exit(void)
{
	mmu_notifier_synchronize();
	destroy_workqueue(xpmem_spaces_wq);
}
