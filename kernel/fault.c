// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults on attachments: look at the owner's page tables, make ours the same,
 * and let the notifier take them away again. No page is referenced.
 */
#include <linux/hmm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/userfaultfd_k.h>

#include "xpmem.h"

/* A window never shrinks below this: neighbours are nearly free to look at. */
#define XPMEM_WINDOW_MIN	4

/* One fault: a run of pages of the owner's, and where they go. */
struct xpmem_window {
	struct vm_fault *vmf;
	struct xpmem_attachment *att;
	unsigned long addr;		/* of the first page, attacher's */
	unsigned long source;		/* of the first page, owner's */
	unsigned long pages;
	unsigned long index;		/* of the page that was touched */
	unsigned long *pfns;		/* as hmm_range_fault() fills them */
	unsigned long one;		/* instead of an array, for one page */
	unsigned long seq;
	bool write;
	pgprot_t prot, prot_write;	/* of whole entries, ready to use */
	unsigned long mapped;
};

static struct xpmem_space *xpmem_window_space(const struct xpmem_window *w)
{
	return w->att->access->segment->space;
}

/* The window: aligned in the source, clipped to the VMA. */
static void xpmem_window_set(struct xpmem_window *w, unsigned int order)
{
	struct vm_area_struct *vma = w->vmf->vma;
	unsigned long span = PAGE_SIZE << order;
	unsigned long source = w->vmf->pgoff << PAGE_SHIFT;
	unsigned long back = source & (span - 1);
	unsigned long addr = w->vmf->address & PAGE_MASK;
	unsigned long end = min(vma->vm_end - addr, span - back);

	back = min(back, addr - vma->vm_start);
	w->addr = addr - back;
	w->source = source - back;
	w->index = back >> PAGE_SHIFT;
	w->pages = (back + end) >> PAGE_SHIFT;
}

/*
 * Fills w->pfns, which is all zeroes. -EBUSY: the owner's memory changed
 * meanwhile. -EAGAIN: its mmap_lock was not to be had without waiting.
 * -EFAULT, -EPERM: no.
 */
static int xpmem_window_walk(struct xpmem_window *w)
{
	struct xpmem_space *space = xpmem_window_space(w);
	struct hmm_range range = {
		.notifier = &space->notifier,
		.start = w->source,
		.end = w->source + (w->pages << PAGE_SHIFT),
		.hmm_pfns = w->pfns,
		.pfn_flags_mask = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
	};
	unsigned long want = HMM_PFN_VALID | (w->write ? HMM_PFN_WRITE : 0);
	unsigned long source = w->vmf->pgoff << PAGE_SHIFT;
	bool own = space->mm == w->vmf->vma->vm_mm;
	struct vm_area_struct *vma;
	int err;

	w->seq = mmu_interval_read_begin(&space->notifier);
	range.notifier_seq = w->seq;
	if (!own && !mmap_read_trylock(space->mm))
		return -EAGAIN;
	/*
	 * Neighbours come as they are; only the touched page is faulted in. Nor
	 * that one where a userfaultfd would have to be waited for, which
	 * hmm_range_fault() cannot do (and a debug kernel says so).
	 */
	vma = vma_lookup(space->mm, source);
	if (!vma || !userfaultfd_armed(vma))
		w->pfns[w->index] = HMM_PFN_REQ_FAULT |
				    (w->write ? HMM_PFN_REQ_WRITE : 0);
	err = hmm_range_fault(&range);
	if (!own)
		mmap_read_unlock(space->mm);
	if (!err && (w->pfns[w->index] & want) != want)
		err = -EFAULT;
	return err;
}

/* Under space->inval: still what the walk saw? */
static bool xpmem_window_stale(const struct xpmem_window *w)
{
	return mmu_interval_read_retry(&xpmem_window_space(w)->notifier, w->seq) ||
	       !xpmem_access_valid(w->att->access);
}

/*
 * Stores through our entries leave no dirty bit where the kernel looks, and
 * the owner's own entry may be writable yet clean (swapped in, MADV_FREE,
 * read-faulted shmem): reclaim would drop the page with our data. So the page
 * is dirty from the moment it can be written. File systems that write back
 * make a page writable only as they dirty it: they need no help.
 */
static noinline void xpmem_set_dirty(struct folio *folio)
{
	if (folio_test_anon(folio) || folio_test_swapbacked(folio))
		folio_set_dirty(folio);
}

static __always_inline void xpmem_mark_dirty(unsigned long pfn)
{
	struct folio *folio = page_folio(pfn_to_page(pfn));

	if (unlikely(!folio_test_dirty(folio)))
		xpmem_set_dirty(folio);
}

static unsigned long xpmem_pfn(unsigned long hmm)
{
	return hmm & ~HMM_PFN_FLAGS;
}

/* May the entry stay? Made by another thread from the same sequence, if any. */
static noinline bool xpmem_entry_stays(pte_t old, unsigned long pfn, bool write)
{
	if (!write || !pte_present(old) || pte_write(old))
		return true;
	return WARN_ON_ONCE(pte_pfn(old) != pfn);
}

/*
 * Called for the first page of each page table; fills the rest of the table
 * itself, its lock being held. What the loop uses it has in locals: half of a
 * fault is spent here.
 */
static int xpmem_fill_table(pte_t *pte, unsigned long addr, void *data)
{
	struct xpmem_window *w = data;
	struct vm_area_struct *vma = w->vmf->vma;
	struct mm_struct *mm = vma->vm_mm;
	unsigned long end = w->addr + (w->pages << PAGE_SHIFT);
	unsigned long *hmm = w->pfns + ((addr - w->addr) >> PAGE_SHIFT);
	unsigned long may_write = vma->vm_flags & VM_WRITE ? HMM_PFN_WRITE : 0;
	pgprot_t prot_write = w->prot_write;
	pgprot_t prot = w->prot;
	unsigned long mapped = 0;

	end = pmd_addr_end(addr, end);
	for (; addr < end; addr += PAGE_SIZE, pte++, hmm++) {
		unsigned long pfn = xpmem_pfn(*hmm);
		unsigned long write = *hmm & may_write;
		pte_t old;

		if ((*hmm & (HMM_PFN_VALID | HMM_PFN_ERROR)) != HMM_PFN_VALID)
			continue;
		old = ptep_get(pte);
		if (unlikely(!pte_none(old)) &&
		    xpmem_entry_stays(old, pfn, write))
			continue;
		if (write)
			xpmem_mark_dirty(pfn);
		/* Special for the compiler to see: arm64's tags need no care. */
		set_pte_at(mm, addr, pte,
			   pte_mkspecial(pfn_pte(pfn, write ? prot_write :
							      prot)));
		mapped++;
	}
	w->mapped += mapped;
	return 0;
}

static int xpmem_no_fill(pte_t *pte, unsigned long addr, void *data)
{
	return 0;
}

/* Calls @fn once for each page table of the window. */
static int xpmem_walk_tables(struct xpmem_window *w, pte_fn_t fn)
{
	unsigned long end = w->addr + (w->pages << PAGE_SHIFT);
	unsigned long addr = w->addr;
	int err;

	do {
		err = apply_to_page_range(w->vmf->vma->vm_mm, addr, PAGE_SIZE,
					  fn, w);
		addr = pmd_addr_end(addr, end);
	} while (!err && addr < end);
	return err;
}

/*
 * May the whole PMD around the touched address be one entry? While the
 * sequence stands, the answer depends only on the owner's page tables and on
 * the VMA, so that all threads that insert from it agree.
 */
static bool xpmem_window_huge(const struct xpmem_window *w)
{
	struct vm_area_struct *vma = w->vmf->vma;
	unsigned long addr = w->vmf->address & PMD_MASK;
	unsigned long source = w->vmf->pgoff << PAGE_SHIFT;

	if (!XPMEM_HAVE_PMD)
		return false;
	if (hmm_pfn_to_map_order(w->pfns[w->index]) < PMD_SHIFT - PAGE_SHIFT)
		return false;
	/*
	 * Not the huge zero page, which alone belongs to nothing: zapping it
	 * takes back a page table that only its usual mapping deposits (7.2).
	 */
	if (!READ_ONCE(page_folio(pfn_to_page(xpmem_pfn(w->pfns[w->index])))->mapping))
		return false;
	if ((w->vmf->address ^ source) & ~PMD_MASK & PAGE_MASK)
		return false;
	return addr >= vma->vm_start && addr + PMD_SIZE <= vma->vm_end;
}

static int xpmem_insert_huge(struct xpmem_window *w)
{
	struct xpmem_space *space = xpmem_window_space(w);
	unsigned long hmm = w->pfns[w->index];
	unsigned long pfn = xpmem_pfn(hmm) & ~((PMD_SIZE >> PAGE_SHIFT) - 1);
	bool write = w->vmf->vma->vm_flags & VM_WRITE && hmm & HMM_PFN_WRITE;
	vm_fault_t ret;

	down_read(&space->inval);
	if (xpmem_window_stale(w)) {
		up_read(&space->inval);
		return -EBUSY;
	}
	if (write)
		xpmem_mark_dirty(pfn);
	ret = xpmem_insert_pmd(w->vmf, pfn, write);
	up_read(&space->inval);
	if (ret & VM_FAULT_OOM)
		return -ENOMEM;
	w->mapped = PMD_SIZE >> PAGE_SHIFT;
	xpmem_event(XPMEM_EV_MAPPED_HUGE);
	return 0;
}

/*
 * att->tables decides between a huge entry and a page table: a table once
 * there stays until the VMA goes (the mmap_lock is held), so whoever finds one
 * fills it.
 */
static int xpmem_window_insert(struct xpmem_window *w)
{
	struct xpmem_space *space = xpmem_window_space(w);
	int err = 0;
	pmd_t pmd;

	mutex_lock(&w->att->tables);
	pmd = READ_ONCE(*w->vmf->pmd);
	if (xpmem_window_huge(w) && (pmd_none(pmd) || pmd_leaf(pmd))) {
		err = xpmem_insert_huge(w);
		mutex_unlock(&w->att->tables);
		return err;
	}
	if (pmd_leaf(pmd))
		err = -EBUSY;
	else
		err = xpmem_walk_tables(w, xpmem_no_fill);
	mutex_unlock(&w->att->tables);
	if (err)
		return err;

	/* The tables are there: nothing allocates from here. */
	down_read(&space->inval);
	if (xpmem_window_stale(w))
		err = -EBUSY;
	else
		err = xpmem_walk_tables(w, xpmem_fill_table);
	up_read(&space->inval);
	xpmem_event_add(XPMEM_EV_MAPPED_SMALL, w->mapped);
	return err;
}

/* Few new pages found: look at fewer next time, and the other way round. */
static void xpmem_window_adapt(struct xpmem_window *w)
{
	u8 order = READ_ONCE(w->att->window);

	if (w->mapped < w->pages / 8 && order > XPMEM_WINDOW_MIN)
		WRITE_ONCE(w->att->window, order - 1);
	else if (w->mapped >= w->pages / 4 * 3 && order < XPMEM_WINDOW_MAX)
		WRITE_ONCE(w->att->window, order + 1);
}

static bool xpmem_may_unlock(const struct vm_fault *vmf)
{
	return vmf->flags & FAULT_FLAG_ALLOW_RETRY &&
	       !(vmf->flags & FAULT_FLAG_RETRY_NOWAIT);
}

/* Let the owner's writer finish, with the attacher's mmap_lock dropped. */
static vm_fault_t xpmem_wait_owner(struct xpmem_window *w)
{
	struct vm_area_struct *vma = w->vmf->vma;
	struct mm_struct *owner = xpmem_window_space(w)->mm;
	struct file *file;

	xpmem_event(XPMEM_EV_FAULT_WAIT);
	/* Not allowed to wait: let it fault again. */
	if (!xpmem_may_unlock(w->vmf)) {
		cond_resched();
		return VM_FAULT_NOPAGE;
	}
	/* The VMA may go once the lock is dropped; its file pins the rest. */
	file = get_file(vma->vm_file);
	mmap_read_unlock(vma->vm_mm);
	if (!mmap_read_lock_killable(owner))
		mmap_read_unlock(owner);
	fput(file);
	return VM_FAULT_RETRY;
}

/*
 * hmm_range_fault() said no. It says so as well where it would have to wait
 * (userfaultfd) or has run out of memory; an ordinary page fault in the owner
 * can tell. It may wait for a process that waits for us, so no lock of ours is
 * held. Its refusal is remembered for the retry, which has to deliver it.
 */
static vm_fault_t xpmem_fault_owner(struct xpmem_window *w)
{
	struct vm_area_struct *vma = w->vmf->vma;
	struct mm_struct *attacher = vma->vm_mm;
	struct xpmem_attachment *att = w->att;
	struct mm_struct *owner = xpmem_window_space(w)->mm;
	unsigned long source = w->vmf->pgoff << PAGE_SHIFT;
	unsigned int flags = w->write ? FOLL_WRITE : 0;
	struct page *page;
	struct file *file;
	int locked = 1;
	long got;

	if (att->refused_task == current && att->refused_addr == source) {
		att->refused_task = NULL;
		return VM_FAULT_SIGBUS;
	}
	if (!xpmem_may_unlock(w->vmf))
		return VM_FAULT_SIGBUS;

	xpmem_event(XPMEM_EV_FAULT_SLOW);
	file = get_file(vma->vm_file);
	refcount_inc(&att->ref);
	mmap_read_unlock(attacher);
	if (!mmap_read_lock_killable(owner)) {
		got = xpmem_gup_page(owner, source, flags, &page, &locked);
		if (locked)
			mmap_read_unlock(owner);
		if (got == 1) {
			put_page(page);
		} else if (!fatal_signal_pending(current)) {
			att->refused_addr = source;
			att->refused_task = current;
		}
	}
	xpmem_attachment_put(att);
	fput(file);
	return VM_FAULT_RETRY;
}

static vm_fault_t xpmem_window_fault(struct xpmem_window *w)
{
	int err;

	do {
		if (!xpmem_access_valid(w->att->access))
			return VM_FAULT_SIGBUS;
		err = xpmem_window_walk(w);
		if (!err)
			err = xpmem_window_insert(w);
		if (err == -EBUSY) {
			xpmem_event(XPMEM_EV_FAULT_AGAIN);
			memset(w->pfns, 0, w->pages * sizeof(*w->pfns));
			cond_resched();
			if (fatal_signal_pending(current))
				return VM_FAULT_NOPAGE;
		}
	} while (err == -EBUSY);

	switch (err) {
	case 0:
		xpmem_window_adapt(w);
		return VM_FAULT_NOPAGE;
	case -EAGAIN:
		return xpmem_wait_owner(w);
	case -EFAULT:
		return xpmem_fault_owner(w);
	case -ENOMEM:
		return VM_FAULT_OOM;
	default:
		return VM_FAULT_SIGBUS;
	}
}

/* What an entry has beside its page: worked out once, not for each page. */
static pgprot_t xpmem_entry_prot(vm_flags_t flags)
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
	struct xpmem_window w = {
		.vmf = vmf,
		.att = vma->vm_private_data,
		.write = vmf->flags & FAULT_FLAG_WRITE,
		.prot = xpmem_entry_prot(vma->vm_flags & ~VM_WRITE),
		.prot_write = xpmem_entry_prot(vma->vm_flags),
	};
	struct mm_struct *owner = xpmem_window_space(&w)->mm;
	vm_fault_t ret;

	if (vma->vm_mm != w.att->access->mm || !mmget_not_zero(owner)) {
		xpmem_event(XPMEM_EV_FAULT_REFUSED);
		return VM_FAULT_SIGBUS;
	}
	xpmem_window_set(&w, READ_ONCE(w.att->window));
	w.pfns = kcalloc(w.pages, sizeof(*w.pfns),
			 GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY);
	if (!w.pfns) {
		xpmem_window_set(&w, 0);
		w.pfns = &w.one;
	}
	ret = xpmem_window_fault(&w);
	if (w.pfns != &w.one)
		kfree(w.pfns);
	/* If we are its last user, its teardown is not for a page fault. */
	mmput_async(owner);
	if (ret & VM_FAULT_SIGBUS)
		xpmem_event(XPMEM_EV_FAULT_REFUSED);
	return ret;
}

vm_fault_t xpmem_fault(struct vm_fault *vmf)
{
	xpmem_event(vmf->flags & FAULT_FLAG_WRITE ? XPMEM_EV_FAULT_WRITE :
						    XPMEM_EV_FAULT_READ);
	return xpmem_handle_fault(vmf);
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
