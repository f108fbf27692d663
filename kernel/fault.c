// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults on attachments. What the owner's page tables have is taken over as it
 * is (window.c). Where they lack the touched page, that page alone is faulted
 * in, as a thread of the owner's would; where that may take time, no lock is
 * held that anybody else waits for, and the faulting task can be killed.
 */
#include <linux/hugetlb.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "xpmem.h"

/* How often a fault looks before the attacher's mmap_lock is let go. */
#define XPMEM_TRIES	4

/* Not the kernel's: look again; wait first, for a change to end. */
#define XPMEM_AGAIN	((__force vm_fault_t)BIT(31))
#define XPMEM_CHANGING	((__force vm_fault_t)BIT(30))

/* What an owner's refusal is to the attacher. */
vm_fault_t xpmem_owner_error(vm_fault_t error)
{
	if (error & VM_FAULT_OOM)
		return VM_FAULT_OOM;
	if (error & (VM_FAULT_HWPOISON | VM_FAULT_HWPOISON_LARGE))
		return error & (VM_FAULT_HWPOISON | VM_FAULT_HWPOISON_LARGE |
				VM_FAULT_HINDEX_MASK);
	return VM_FAULT_SIGBUS;
}

/* Are the entries of the mapping what an ordinary mapping's would be? */
static bool xpmem_is_cached(const struct vm_area_struct *vma)
{
	unsigned long flags = vma->vm_flags;
	u64 prot = pgprot_val(vma->vm_page_prot);

	/* Write-protected for dirty tracking, it looks like a private one. */
	return prot == pgprot_val(vm_get_page_prot(flags)) ||
	       prot == pgprot_val(vm_get_page_prot(flags & ~VM_SHARED));
}

/*
 * May the memory be attached? Not what a driver maps without pages (VM_IO,
 * VM_PFNMAP: attachments are such), nor uncached or write-combining: the
 * attacher's entries would have other attributes for the same memory. Not DAX,
 * whose pages belong to a device that can go. Not shadow stacks, which would
 * become plain memory, and not what is hidden from the kernel itself.
 */
bool xpmem_owner_allows(const struct vm_area_struct *vma, bool write)
{
	unsigned long flags = vma->vm_flags;

	if (!(flags & VM_READ) || (write && !(flags & VM_WRITE)))
		return false;
	if (flags & (VM_IO | VM_PFNMAP | VM_SHADOW_STACK))
		return false;
	if (!vma->vm_file)
		return xpmem_is_cached(vma);
	return !vma_is_dax(vma) && xpmem_is_cached(vma) &&
	       !xpmem_sb_is_secret(file_inode(vma->vm_file)->i_sb);
}

/* The owner's mmap_lock is held. NULL: nothing there that may be attached. */
struct vm_area_struct *xpmem_owner_vma(struct mm_struct *owner,
				       unsigned long source, bool write)
{
	/* Below a stack there is nothing: it grows for its owner alone. */
	struct vm_area_struct *vma = vma_lookup(owner, source);

	return vma && xpmem_owner_allows(vma, write) ? vma : NULL;
}

/* Has w->source faulted in, if that takes no wait; VM_FAULT_RETRY if it would. */
vm_fault_t xpmem_fault_nowait(struct xpmem_window *w,
			      struct vm_area_struct *owner_vma)
{
	unsigned int flags = FAULT_FLAG_REMOTE | FAULT_FLAG_ALLOW_RETRY |
			     FAULT_FLAG_RETRY_NOWAIT;

	xpmem_event(XPMEM_EV_FAULT_OWNER);
	if (w->write)
		flags |= FAULT_FLAG_WRITE;
	return handle_mm_fault(owner_vma, w->source, flags, NULL);
}

/*
 * The touched page is not there, or not writable. The owner's mmap_lock is
 * held. Anonymous memory has its page in no time, and says so where it has not
 * (swap, userfaultfd); files do not always say. What a file's mapping has that
 * is no page (HMM_PFN_ERROR), no fault makes one.
 */
static vm_fault_t xpmem_fault_owner(struct xpmem_window *w,
				    struct vm_area_struct *owner_vma)
{
	vm_fault_t ret;

	if (!vma_is_anonymous(owner_vma) && !is_vm_hugetlb_page(owner_vma))
		return xpmem_window_error(w) ? VM_FAULT_SIGBUS : VM_FAULT_RETRY;
	ret = xpmem_fault_nowait(w, owner_vma);
	if (ret & VM_FAULT_ERROR)
		return xpmem_owner_error(ret);
	return ret & VM_FAULT_RETRY ? VM_FAULT_RETRY : XPMEM_AGAIN;
}

/*
 * The owner's mmap_lock is held, and w->look begun; the touched page is in
 * w->one. More of the window, where there is memory for the answer.
 */
static int xpmem_look_around(struct xpmem_window *w,
			     struct vm_area_struct *owner_vma)
{
	unsigned int order = READ_ONCE(w->att->window);

	xpmem_window_set(w, order);
	xpmem_window_clip(w, max(w->look.start, owner_vma->vm_start),
			  min(w->look.end, owner_vma->vm_end));
	if (w->pages == 1)
		return 0;
	w->pfns = kmalloc_array(w->pages, sizeof(*w->pfns),
				GFP_NOWAIT | __GFP_NOWARN);
	if (!w->pfns) {
		w->pfns = &w->one;
		xpmem_window_set(w, 0);
		return 0;
	}
	return xpmem_window_look_around(w, owner_vma);
}

/* With w->look begun and the owner's mmap_lock held, which is let go. */
static vm_fault_t xpmem_look_and_insert(struct xpmem_window *w, bool locked)
{
	struct mm_struct *owner = w->space->mm;
	struct vm_area_struct *owner_vma;
	pmd_t pmd = READ_ONCE(*w->vmf->pmd);
	vm_fault_t ret = 0;
	bool huge = false;
	int err = 0;

	xpmem_window_set(w, 0);
	w->pfns = &w->one;
	owner_vma = xpmem_owner_vma(owner, w->source, w->write);
	if (!owner_vma)
		ret = VM_FAULT_SIGBUS;
	else
		err = xpmem_window_look(w);
	if (!ret && !err && !xpmem_window_shows(w, w->one))
		ret = xpmem_fault_owner(w, owner_vma);
	if (!ret && !err) {
		huge = xpmem_window_huge(w) &&
		       (pmd_none(pmd) || pmd_leaf(pmd));
		if (!huge)
			err = xpmem_look_around(w, owner_vma);
	}
	if (locked)
		mmap_read_unlock(owner);
	if (ret)
		return ret;
	if (!err && !xpmem_window_shows(w, w->pfns[w->index]))
		err = -EBUSY;
	if (!err)
		err = xpmem_window_insert(w, huge);
	if (w->pfns != &w->one)
		kfree(w->pfns);
	switch (err) {
	case 0:
		return VM_FAULT_NOPAGE;
	case -EBUSY:
	case -EINTR:
		return XPMEM_AGAIN;
	case -ENOMEM:
		return VM_FAULT_OOM;
	default:
		return VM_FAULT_SIGBUS;
	}
}

/*
 * Looks at all of the source's PMD the first two times, since where it is
 * mapped by one entry that takes one here; later, and where something else in
 * it is being changed, at the page.
 */
static int xpmem_window_begin(struct xpmem_window *w, int try)
{
	unsigned long source = xpmem_source(w->vmf);
	unsigned long start = source & PMD_MASK;
	int err = -EAGAIN;

	if (try < 2)
		err = xpmem_look_begin(w->space, &w->look, start,
				       start + PMD_SIZE);
	if (err == -EAGAIN)
		err = xpmem_look_begin(w->space, &w->look, source,
				       source + PAGE_SIZE);
	return err;
}

static vm_fault_t xpmem_fault_once(struct xpmem_window *w, int try)
{
	struct mm_struct *owner = w->space->mm;
	bool locked = owner != w->vmf->vma->vm_mm ||
		      xpmem_fault_lock_is_vma(w->vmf);
	vm_fault_t ret;
	int err;

	if (!xpmem_access_valid(w->att->access))
		return VM_FAULT_SIGBUS;
	err = xpmem_window_begin(w, try);
	if (err == -EAGAIN)
		return XPMEM_CHANGING;
	if (err)
		return VM_FAULT_SIGBUS;
	if (locked && !mmap_read_trylock(owner)) {
		xpmem_look_end(w->space, &w->look);
		return xpmem_wait_owner(w);
	}
	ret = xpmem_look_and_insert(w, locked);
	xpmem_look_end(w->space, &w->look);
	/* A refusal, too, is what the look saw. */
	if (ret & VM_FAULT_SIGBUS && READ_ONCE(w->look.stale))
		ret = XPMEM_AGAIN;
	return ret == VM_FAULT_RETRY ? xpmem_fault_slowly(w) : ret;
}

/* What an entry has beside its page: worked out once, not for each page. */
static pgprot_t xpmem_entry_prot(unsigned long flags)
{
	pte_t pte = pfn_pte(0, vm_get_page_prot(flags));

	pte = pte_mkyoung(pte_mkspecial(pte));
	if (flags & VM_WRITE)
		pte = pte_mkdirty(pte);
	return pte_pgprot(pte);
}

static vm_fault_t xpmem_handle_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct xpmem_attachment *att = vma->vm_private_data;
	struct xpmem_window w = {
		.vmf = vmf,
		.att = att,
		.space = att->access->segment->space,
		.write = vmf->flags & FAULT_FLAG_WRITE,
		.prot = xpmem_entry_prot(vma->vm_flags & ~VM_WRITE),
		.prot_write = xpmem_entry_prot(vma->vm_flags),
	};
	struct mm_struct *owner = w.space->mm;
	vm_fault_t ret = VM_FAULT_SIGBUS;
	int try;

	if (vma->vm_mm == att->access->mm && mmget_not_zero(owner)) {
		for (try = 0; try < XPMEM_TRIES; try++) {
			ret = xpmem_fault_once(&w, try);
			if (ret != XPMEM_AGAIN)
				break;
			xpmem_event(XPMEM_EV_FAULT_AGAIN);
		}
		if (ret == XPMEM_AGAIN)
			ret = xpmem_window_error(&w) ? VM_FAULT_SIGBUS :
						       xpmem_back_off(&w);
		/* If we are its last user, its teardown is not for a fault. */
		mmput_async(owner);
		/* A hold may last: an owner that is killed ends meanwhile. */
		if (ret == XPMEM_CHANGING)
			ret = xpmem_wait_quiet(&w);
	}
	if (ret & VM_FAULT_ERROR)
		xpmem_event(XPMEM_EV_FAULT_REFUSED);
	return ret;
}

static vm_fault_t xpmem_count_and_handle(struct vm_fault *vmf)
{
	xpmem_event(vmf->flags & FAULT_FLAG_WRITE ? XPMEM_EV_FAULT_WRITE :
						    XPMEM_EV_FAULT_READ);
	return xpmem_handle_fault(vmf);
}

vm_fault_t xpmem_fault(struct vm_fault *vmf)
{
	return xpmem_count_and_handle(vmf);
}

/* A write to an entry that is read-only because the owner's was. */
vm_fault_t xpmem_pfn_mkwrite(struct vm_fault *vmf)
{
	vm_fault_t ret;

	xpmem_event(XPMEM_EV_FAULT_UPGRADE);
	ret = xpmem_handle_fault(vmf);
	/* Without NOPAGE the caller would go on to the page table. */
	return ret & VM_FAULT_RETRY ? ret | VM_FAULT_NOPAGE : ret;
}

/*
 * Called where there is no page table yet, or a huge entry is to become
 * writable. That small pages are mapped here, too, saves the kernel a table
 * that it would make for ->fault and free again.
 */
XPMEM_HUGE_FAULT(xpmem_huge_fault)
{
	if (!XPMEM_HUGE_FAULT_IS_PMD)
		return VM_FAULT_FALLBACK;
	return xpmem_count_and_handle(vmf);
}

#ifdef XPMEM_FAULT_LOCK
/*
 * Called under RCU, where nothing of ours can be done. That it is there says
 * that ->fault and ->pfn_mkwrite do with the VMA's lock.
 */
vm_fault_t xpmem_map_pages(struct vm_fault *vmf, pgoff_t start, pgoff_t end)
{
	return 0;
}
#endif
