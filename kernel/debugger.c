// SPDX-License-Identifier: GPL-2.0-only
/* What a debugger reads and writes of attached memory: the owner's page. */
#include <linux/highmem.h>
#include <linux/sched/mm.h>

#include "xpmem.h"

/* One page of the owner's, for a debugger. LP64 has no high memory. */
static int xpmem_access_page(struct mm_struct *mm, unsigned long addr,
			     void *buf, int len, int write)
{
	unsigned int offset = offset_in_page(addr);
	struct vm_area_struct *vma = vma_lookup(mm, addr);
	struct page *page;

	if (!vma || !xpmem_owner_allows(vma, write))
		return -EFAULT;
	len = min_t(int, len, PAGE_SIZE - offset);
	/* Never FOLL_FORCE: what the owner may not write, nobody may. */
	if (xpmem_gup_page(mm, addr & PAGE_MASK, write ? FOLL_WRITE : 0,
			   &page) != 1)
		return -EFAULT;
	if (write) {
		memcpy(page_address(page) + offset, buf, len);
		flush_dcache_page(page);
		set_page_dirty_lock(page);
	} else {
		memcpy(buf, page_address(page) + offset, len);
	}
	put_page(page);
	return len;
}

/*
 * ptrace and /proc/PID/mem; the attacher's mmap_lock is held, so nothing can be
 * waited for. While the owner holds its memory what is there is not what counts:
 * not to be had now. xpmem_hold() sees to it that nobody is still at it then.
 */
int xpmem_vma_access(struct vm_area_struct *vma, unsigned long addr, void *buf,
		     int len, int write)
{
	struct xpmem_attachment *att = vma->vm_private_data;
	struct xpmem_segment *segment = att->access->segment;
	struct mm_struct *owner = segment->space->mm;
	unsigned long source = addr - vma->vm_start +
			       (vma->vm_pgoff << PAGE_SHIFT);
	int done = 0, ret = 0, n;

	if (write && !(vma->vm_flags & VM_WRITE))
		return -EACCES;
	if (!xpmem_access_valid(att->access) || !mmget_not_zero(owner))
		return -EIO;
	if (owner != vma->vm_mm && !mmap_read_trylock(owner)) {
		mmput_async(owner);
		return -EAGAIN;
	}
	if (xpmem_space_held(segment->space) & 1)
		ret = -EAGAIN;
	while (!ret && done < len) {
		n = xpmem_access_page(owner, source + done, buf + done,
				      len - done, write);
		if (n < 0)
			ret = n;
		else
			done += n;
	}
	if (owner != vma->vm_mm)
		mmap_read_unlock(owner);
	mmput_async(owner);
	return done ? done : ret;
}
