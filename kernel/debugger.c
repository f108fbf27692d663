// SPDX-License-Identifier: GPL-2.0-only
/*
 * What ptrace() and /proc/PID/mem read and write of attached memory: the owner's
 * page. So do ps and its like, which read a process's arguments wherever it says
 * that they are: who reads did not choose what, and must not wait for it.
 */
#include <linux/hugetlb.h>
#include <linux/magic.h>
#include <linux/sched/mm.h>

#include "xpmem.h"

/* A change is over in a moment, or the reader is told. */
#define XPMEM_DEBUG_TRIES	64

/*
 * Memory that is not there yet, or not writable: had where nobody is asked for
 * it. Of other files (a server's) only what the owner has mapped already.
 */
static int xpmem_debug_fault(struct xpmem_window *w,
			     struct vm_area_struct *owner_vma)
{
	vm_fault_t ret;

	if (!vma_is_anonymous(owner_vma) && !is_vm_hugetlb_page(owner_vma) &&
	    file_inode(owner_vma->vm_file)->i_sb->s_magic != TMPFS_MAGIC)
		return -EAGAIN;
	ret = xpmem_fault_nowait(w, owner_vma);
	if (ret & VM_FAULT_ERROR)
		return -EFAULT;
	return ret & VM_FAULT_RETRY ? -EAGAIN : -EBUSY;
}

/* With w->look begun. -EBUSY: look again. */
static int xpmem_debug_look(struct xpmem_window *w, void *buf, int offset,
			    int len)
{
	struct vm_area_struct *owner_vma =
		xpmem_owner_vma(w->space->mm, w->source, w->write);
	int err;

	if (!owner_vma)
		return -EFAULT;
	err = xpmem_window_look(w);
	if (err)
		return err;
	if (xpmem_window_shows(w, w->one))
		return xpmem_window_copy(w, buf, offset, len);
	if (xpmem_window_error(w))
		return -EFAULT;
	return xpmem_debug_fault(w, owner_vma);
}

/* Within one page; the owner's mmap_lock is held. */
static int xpmem_debug_page(struct xpmem_window *w, void *buf, int offset,
			    int len)
{
	int try, err;

	for (try = 0; try < XPMEM_DEBUG_TRIES; try++) {
		err = xpmem_look_begin(w->space, &w->look, w->source,
				       w->source + PAGE_SIZE);
		if (!err) {
			err = xpmem_debug_look(w, buf, offset, len);
			xpmem_look_end(w->space, &w->look);
			if (err != -EBUSY)
				return err;
		} else if (err != -EAGAIN) {
			return err;
		}
		cond_resched();
	}
	return -EAGAIN;
}

/*
 * The attacher's mmap_lock is held, so nothing is waited for. While the owner
 * holds its memory what is there is not what counts: not to be had now.
 * xpmem_hold() sees to it that nobody is still at it then.
 */
int xpmem_vma_access(struct vm_area_struct *vma, unsigned long addr, void *buf,
		     int len, int write)
{
	struct xpmem_attachment *att = vma->vm_private_data;
	struct xpmem_space *space = att->access->segment->space;
	struct mm_struct *owner = space->mm;
	unsigned long source = addr - vma->vm_start +
			       (vma->vm_pgoff << PAGE_SHIFT);
	struct xpmem_window w = {
		.att = att,
		.space = space,
		.write = write,
		.pages = 1,
	};
	int done = 0, ret = 0, offset, n;

	w.pfns = &w.one;
	if (write && !(vma->vm_flags & VM_WRITE))
		return -EACCES;
	if (!xpmem_access_valid(att->access) || !mmget_not_zero(owner))
		return -EIO;
	if (owner != vma->vm_mm && !mmap_read_trylock(owner)) {
		mmput_async(owner);
		return -EAGAIN;
	}
	while (done < len) {
		offset = offset_in_page(source + done);
		n = min_t(int, len - done, PAGE_SIZE - offset);
		w.source = source + done - offset;
		ret = xpmem_debug_page(&w, buf + done, offset, n);
		if (ret)
			break;
		done += n;
	}
	if (owner != vma->vm_mm)
		mmap_read_unlock(owner);
	mmput_async(owner);
	return done ? done : ret;
}
