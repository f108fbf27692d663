// SPDX-License-Identifier: GPL-2.0-only
/*
 * Attachments: VMAs that map a space's file. The kernel splits, trims, moves
 * and drops them like any mapping; we only count.
 */
#include <linux/mman.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "xpmem.h"

static const struct vm_operations_struct xpmem_vm_ops;

void xpmem_attachment_put(struct xpmem_attachment *att)
{
	struct xpmem_access *access = att->access;

	if (!refcount_dec_and_test(&att->ref))
		return;
	spin_lock(&access->lock);
	if (!hlist_unhashed(&att->link))
		__hlist_del(&att->link);
	spin_unlock(&access->lock);
	xpmem_access_put(access);
	xpmem_live_dec(XPMEM_LIVE_ATTACHMENTS);
	kfree(att);
}

static void xpmem_vma_open(struct vm_area_struct *vma)
{
	struct xpmem_attachment *att = vma->vm_private_data;

	refcount_inc(&att->ref);
}

static void xpmem_vma_close(struct vm_area_struct *vma)
{
	struct xpmem_attachment *att = vma->vm_private_data;

	xpmem_exempt_del(&att->split);
	xpmem_attachment_put(att);
}

/*
 * The kernel is about to split the VMA at @addr, under a lock that our notifier
 * would take (revoke.c). There is no hook for when it has: the exemption stays,
 * and stays true, as long as the range is the attachment's. Every way for it to
 * cease to be closes a VMA.
 *
 * The kernel notifies only of a PMD that the VMA has whole. Of any other, part
 * may be memory that others map: that it goes must never be ignored.
 */
static int xpmem_vma_may_split(struct vm_area_struct *vma, unsigned long addr)
{
	struct xpmem_attachment *att = vma->vm_private_data;
	unsigned long start = addr & PMD_MASK;

	xpmem_exempt_del(&att->split);
	if (start < vma->vm_start || vma->vm_end - start < PMD_SIZE)
		return 0;
	att->split.mm = att->access->mm;
	att->split.start = start;
	xpmem_exempt_add(&att->split);
	return 0;
}

/* mremap: called on the copy, at its new address. */
static int xpmem_vma_mremap(struct vm_area_struct *vma)
{
	struct xpmem_attachment *att = vma->vm_private_data;

	spin_lock(&att->access->lock);
	att->lo = min(att->lo, vma->vm_start);
	att->hi = max(att->hi, vma->vm_end);
	spin_unlock(&att->access->lock);
	return 0;
}

static const struct vm_operations_struct xpmem_vm_ops = {
	.open = xpmem_vma_open,
	.close = xpmem_vma_close,
	.may_split = xpmem_vma_may_split,
	.mremap = xpmem_vma_mremap,
	.fault = xpmem_fault,
	.huge_fault = xpmem_huge_fault,
#ifdef XPMEM_FAULT_LOCK
	.map_pages = xpmem_map_pages,
#endif
	.pfn_mkwrite = xpmem_pfn_mkwrite,
	.access = xpmem_vma_access,
};

/*
 * Called for attach, and for remap_file_pages() on an attachment: whatever
 * the caller asks for must lie in the segment.
 */
static int xpmem_file_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct xpmem_access *access = file->private_data;
	struct xpmem_segment *segment = access->segment;
	unsigned long first = segment->start >> PAGE_SHIFT;
	unsigned long pages = segment->size >> PAGE_SHIFT;
	struct xpmem_attachment *att;

	if (READ_ONCE(access->unmapper) == current)
		return -ECANCELED;
	/* MAYSHARE: of a file opened for reading, SHARED is taken off. */
	if (!(vma->vm_flags & VM_MAYSHARE) || vma->vm_flags & VM_EXEC)
		return -EINVAL;
	if (vma->vm_mm != access->mm)
		return -EACCES;
	if (vma->vm_pgoff < first || vma->vm_pgoff - first > pages ||
	    vma_pages(vma) > pages - (vma->vm_pgoff - first))
		return -EINVAL;

	/* Not zeroed: each member is set here, or with the one beside it. */
	att = kmalloc(sizeof(*att), GFP_KERNEL_ACCOUNT);
	if (!att)
		return -ENOMEM;
	refcount_set(&att->ref, 1);
	att->access = access;
	att->lo = vma->vm_start;
	att->hi = vma->vm_end;
	mutex_init(&att->tables);
	att->window = XPMEM_WINDOW_MAX;
	INIT_HLIST_NODE(&att->split.node);

	spin_lock(&access->lock);
	if (access->revoked) {
		spin_unlock(&access->lock);
		kfree(att);
		return -ENOENT;
	}
	hlist_add_head(&att->link, &access->attachments);
	spin_unlock(&access->lock);
	kref_get(&access->obj.ref);
	xpmem_live_inc(XPMEM_LIVE_ATTACHMENTS);

	/*
	 * PFNMAP: no page is counted or pinned. IO: MADV_DOFORK cannot undo
	 * DONTCOPY. The file stays: zapping huge entries relies on it.
	 */
	vm_flags_set(vma, VM_PFNMAP | VM_IO | VM_DONTCOPY | VM_DONTEXPAND |
			  VM_DONTDUMP);
	vm_flags_clear(vma, VM_MAYEXEC);
	vma->vm_private_data = att;
	vma->vm_ops = &xpmem_vm_ops;
	return 0;
}

static int xpmem_file_release(struct inode *inode, struct file *file)
{
	xpmem_access_put(file->private_data);
	return 0;
}

/* Free, and not the guard below a stack: how large that is, modules cannot see. */
static bool xpmem_is_free(unsigned long addr, unsigned long len)
{
	struct vm_area_struct *vma = find_vma(current->mm, addr);

	return !vma || (addr + len <= vma->vm_start &&
			!(vma->vm_flags & (VM_GROWSDOWN | VM_SHADOW_STACK)));
}

/*
 * Room at an address congruent to the source modulo the huge page size. Older
 * kernels look for such a place only where files are DAX: then more room than
 * needed, and a place in it.
 */
static unsigned long xpmem_congruent_area(struct file *file, unsigned long addr,
					  unsigned long len,
					  unsigned long pgoff,
					  unsigned long flags)
{
	unsigned long source = pgoff << PAGE_SHIFT, found, wide;

	found = thp_get_unmapped_area(file, addr, len, pgoff, flags);
	if (flags & MAP_FIXED || len < PMD_SIZE || IS_ERR_VALUE(found) ||
	    !((found ^ source) & ~PMD_MASK))
		return found;
	wide = thp_get_unmapped_area(file, 0, len + PMD_SIZE, pgoff, flags);
	if (IS_ERR_VALUE(wide))
		return found;
	return wide + ((source - wide) & ~PMD_MASK);
}

/*
 * Addresses congruent to the source modulo the huge page size. An @addr that
 * is not fixed is where xpmem_attach() expects room; it is congruent.
 */
static unsigned long xpmem_get_unmapped_area(struct file *file,
					     unsigned long addr,
					     unsigned long len,
					     unsigned long pgoff,
					     unsigned long flags)
{
	struct xpmem_access *access = file->private_data;
	struct vm_area_struct *vma;

	if (READ_ONCE(access->unmapper) != current) {
		if (!(flags & MAP_FIXED) && addr) {
			if (xpmem_is_free(addr, len))
				return addr;
			addr = 0;
		}
		return xpmem_congruent_area(file, addr, len, pgoff, flags);
	}
	vma = find_vma_intersection(current->mm, addr, addr + len);
	if (!vma || vma->vm_ops != &xpmem_vm_ops ||
	    vma->vm_private_data != access->unmapping ||
	    vma->vm_start != addr || vma->vm_end != addr + len)
		return -ESTALE;
	return addr;
}

static const struct file_operations xpmem_file_ops = {
	.owner = THIS_MODULE,
	.mmap = xpmem_file_mmap,
	.get_unmapped_area = xpmem_get_unmapped_area,
	.release = xpmem_file_release,
};

/* The permit's file, made at its first attach; with a reference. */
static struct file *xpmem_access_file(struct xpmem_access *access)
{
	struct file *file, *spare = NULL;

	for (;;) {
		spin_lock(&access->lock);
		if (access->revoked) {
			spin_unlock(&access->lock);
			file = ERR_PTR(-ENOENT);
			break;
		}
		if (!access->file) {
			access->file = spare;
			spare = NULL;
		}
		file = access->file ? get_file(access->file) : NULL;
		spin_unlock(&access->lock);
		if (file)
			break;
		spare = xpmem_space_file(access->segment->space,
					 &xpmem_file_ops,
					 access->write ? O_RDWR : O_RDONLY,
					 access);
		if (IS_ERR(spare))
			return spare;
		kref_get(&access->obj.ref);
	}
	if (spare)
		fput(spare);
	return file;
}

bool xpmem_vma_is_attachment(const struct vm_area_struct *vma)
{
	return vma->vm_ops == &xpmem_vm_ops;
}

static bool xpmem_overlaps_attachment(struct mm_struct *mm, unsigned long addr,
				      unsigned long size)
{
	unsigned long end = addr + size;
	struct vm_area_struct *vma;
	bool found = false;

	mmap_read_lock(mm);
	while (addr < end) {
		vma = find_vma_intersection(mm, addr, end);
		if (!vma)
			break;
		found = xpmem_vma_is_attachment(vma);
		if (found)
			break;
		addr = vma->vm_end;
	}
	mmap_read_unlock(mm);
	return found;
}

static int xpmem_attach_check(const struct xpmem_access *access,
			      unsigned long offset, unsigned long size,
			      unsigned long vaddr)
{
	const struct xpmem_segment *segment = access->segment;
	unsigned long source = segment->start + offset;

	if (!xpmem_access_valid(access) || !xpmem_space_alive(segment->space))
		return -ENOENT;
	if (access->mm != current->mm)
		return -EACCES;
	/* A negative offset is beyond any segment. */
	if (!size || offset > segment->size || size > segment->size - offset)
		return -EINVAL;
	if (!vaddr)
		return 0;
	if (vaddr > TASK_SIZE || size > TASK_SIZE - vaddr)
		return -ENOMEM;
	if (segment->space->mm == current->mm && vaddr < source + size &&
	    source < vaddr + size)
		return -EINVAL;
	if (xpmem_overlaps_attachment(current->mm, vaddr, size))
		return -EINVAL;
	return 0;
}

/*
 * Room for an attachment is likely below the last one of the descriptor:
 * looking there is cheaper than a search from the top of the address space,
 * which is made when there is none. Small attachments are searched for: near
 * others they need no page table of their own. 0: nobody knows.
 */
static unsigned long xpmem_attach_hint(const struct xpmem_client *client,
				       unsigned long source, unsigned long size)
{
	unsigned long top = READ_ONCE(client->top), addr = top - size;

	if (size < PMD_SIZE || top < size + PMD_SIZE + TASK_UNMAPPED_BASE ||
	    client->mm != current->mm)
		return 0;
	return addr - ((addr - source) & ~PMD_MASK);
}

/* Answers the address; errors as IS_ERR_VALUE() sees them. */
unsigned long xpmem_attach(struct xpmem_client *client, s64 apid, s64 offset,
			   u64 size, u64 vaddr)
{
	struct xpmem_access *access;
	unsigned long addr, source;
	struct file *file;

	if (apid <= 0)
		return -EINVAL;
	if (!PAGE_ALIGNED(vaddr) || !PAGE_ALIGNED(offset))
		return -EINVAL;
	access = xpmem_access_get(apid);
	if (!access)
		return -ENOENT;
	size = PAGE_ALIGN(size);
	addr = xpmem_attach_check(access, offset, size, vaddr);
	if (addr)
		goto put_access;
	file = xpmem_access_file(access);
	if (IS_ERR(file)) {
		addr = PTR_ERR(file);
		goto put_access;
	}
	source = access->segment->start + offset;
	addr = vm_mmap(file,
		       vaddr ?: xpmem_attach_hint(client, source, size), size,
		       PROT_READ | (access->write ? PROT_WRITE : 0),
		       MAP_SHARED | (vaddr ? MAP_FIXED : 0), source);
	fput(file);
	if (!vaddr && size >= PMD_SIZE && !IS_ERR_VALUE(addr))
		WRITE_ONCE(client->top, addr);
put_access:
	xpmem_access_put(access);
	return addr;
}
