// SPDX-License-Identifier: GPL-2.0-only
/*
 * From the owner's page tables to the attacher's: what is there comes as it
 * is, and nothing is asked for. No page is referenced; the notifier takes the
 * entries away again.
 */
#include <linux/highmem.h>
#include <linux/hmm.h>
#include <linux/hugetlb.h>
#include <linux/pgtable.h>
#include <linux/rcupdate.h>

#include "xpmem.h"

/* A window never shrinks below this: neighbours are nearly free to look at. */
#define XPMEM_WINDOW_MIN	4

/* The window: aligned in the source, clipped to the attacher's VMA. */
void xpmem_window_set(struct xpmem_window *w, unsigned int order)
{
	struct vm_area_struct *vma = w->vmf->vma;
	unsigned long span = PAGE_SIZE << order;
	unsigned long source = xpmem_source(w->vmf);
	unsigned long back = source & (span - 1);
	unsigned long addr = w->vmf->address & PAGE_MASK;
	unsigned long end = min(vma->vm_end - addr, span - back);

	back = min(back, addr - vma->vm_start);
	w->addr = addr - back;
	w->source = source - back;
	w->index = back >> PAGE_SHIFT;
	w->pages = (back + end) >> PAGE_SHIFT;
}

/* To [start, end) of the owner's addresses, which has the touched page. */
void xpmem_window_clip(struct xpmem_window *w, unsigned long start,
		       unsigned long end)
{
	unsigned long cut = 0;

	if (start > w->source)
		cut = (start - w->source) >> PAGE_SHIFT;
	w->addr += cut << PAGE_SHIFT;
	w->source += cut << PAGE_SHIFT;
	w->index -= cut;
	w->pages -= cut;
	w->pages = min(w->pages, (end - w->source) >> PAGE_SHIFT);
}

/*
 * Fills w->pfns. The owner's mmap_lock is held, and xpmem_look_begin() was
 * called for at least the window. hmm_range_fault() faults nothing in unless
 * asked to, and what it is asked for one page goes to the window's end. Of the
 * notifier it reads the mm, and the sequence, which is nobody's (revoke.c).
 */
int xpmem_window_look(struct xpmem_window *w)
{
	struct mmu_interval_notifier *notifier = &w->space->veto;
	struct hmm_range range = {
		.notifier = notifier,
		.notifier_seq = READ_ONCE(notifier->invalidate_seq),
		.start = w->source,
		.end = w->source + (w->pages << PAGE_SHIFT),
		.hmm_pfns = w->pfns,
	};

	return hmm_range_fault(&range);
}

/* An owner's entry, as hmm_range_fault() tells of it. */
static __always_inline unsigned long xpmem_hmm_pfn(pte_t pte)
{
	unsigned long pfn;

	if (!pte_present(pte) || pte_protnone(pte))
		return 0;
	pfn = pte_pfn(pte);
	/* Of ordinary memory that is the page of zeros. */
	if (unlikely(pte_special(pte)) && !is_zero_pfn(pfn))
		return 0;
	return pfn | HMM_PFN_VALID | (pte_write(pte) ? HMM_PFN_WRITE : 0);
}

/* The owner's page table that has the window; NULL: there is no table there. */
static pte_t *xpmem_owner_table(struct xpmem_window *w)
{
	struct mm_struct *owner = w->space->mm;
	unsigned long source = w->source;
	pgd_t *pgd = pgd_offset(owner, source);
	p4d_t *p4d;
	pud_t *pud;
	pmd_t pmd;

	if (pgd_none(*pgd) || pgd_bad(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, source);
	if (p4d_none(*p4d) || p4d_bad(*p4d))
		return NULL;
	pud = pud_offset(p4d, source);
	if (pud_none(*pud) || pud_bad(*pud))
		return NULL;
	pmd = READ_ONCE(*pmd_offset(pud, source));
	if (pmd_none(pmd) || pmd_bad(pmd))
		return NULL;
	return pte_offset_kernel(&pmd, source);
}

/*
 * As xpmem_window_look() does, by the same rules (the owner's mmap_lock keeps
 * the upper tables, RCU the last one, and whoever changes an entry has made the
 * look stale before), in a sixth of the instructions: hmm_range_fault() calls
 * two functions for each page, and asks each what it asks once for the window.
 * What is not made of ordinary pages is left to it. The window never reaches
 * beyond one table.
 */
int xpmem_window_look_around(struct xpmem_window *w,
			     struct vm_area_struct *owner_vma)
{
	unsigned long i;
	pte_t *pte;

	if (owner_vma->vm_flags & VM_MIXEDMAP || is_vm_hugetlb_page(owner_vma))
		return xpmem_window_look(w);
	rcu_read_lock();
	pte = xpmem_owner_table(w);
	if (!pte) {
		rcu_read_unlock();
		return xpmem_window_look(w);
	}
	for (i = 0; i < w->pages; i++, pte++)
		w->pfns[i] = xpmem_hmm_pfn(ptep_get(pte));
	rcu_read_unlock();
	return 0;
}

/* Does the look show a page that may be used as the fault wants? */
bool xpmem_window_shows(const struct xpmem_window *w, unsigned long hmm)
{
	unsigned long want = HMM_PFN_VALID | (w->write ? HMM_PFN_WRITE : 0);

	return (hmm & (want | HMM_PFN_ERROR)) == want;
}

/* Has the owner there what is no page that could be shared? */
bool xpmem_window_error(const struct xpmem_window *w)
{
	return w->one & HMM_PFN_ERROR;
}

/* Under space->inval: still what the look saw? */
static bool xpmem_window_stale(const struct xpmem_window *w)
{
	return READ_ONCE(w->look.stale) || !xpmem_access_valid(w->att->access);
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

/*
 * Reads or writes what the look shows, for who has no mapping of it. Below
 * space->inval the page is the owner's as long as the look is fresh. LP64 has
 * no high memory.
 */
int xpmem_window_copy(struct xpmem_window *w, void *buf, int offset, int len)
{
	struct page *page = pfn_to_page(xpmem_pfn(w->one));
	void *there = page_address(page) + offset;
	int err = 0;

	down_read(&w->space->inval);
	if (xpmem_window_stale(w)) {
		err = -EBUSY;
	} else if (w->write) {
		xpmem_mark_dirty(xpmem_pfn(w->one));
		memcpy(there, buf, len);
		flush_dcache_page(page);
	} else {
		memcpy(buf, there, len);
	}
	up_read(&w->space->inval);
	return err;
}

/* May the entry stay? Made by another thread from the same look, if any. */
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
 * May the whole PMD around the touched address be one entry? While the look
 * is fresh, the answer depends only on the owner's page tables and on the VMA,
 * so that all threads that insert from it agree.
 */
bool xpmem_window_huge(const struct xpmem_window *w)
{
	struct vm_area_struct *vma = w->vmf->vma;
	unsigned long addr = w->vmf->address & PMD_MASK;
	unsigned long source = xpmem_source(w->vmf);

	if (!XPMEM_HAVE_PMD)
		return false;
	if (hmm_pfn_to_map_order(w->one) < PMD_SHIFT - PAGE_SHIFT)
		return false;
	if (w->look.end - w->look.start < PMD_SIZE)
		return false;
	/*
	 * Not the huge zero page, which alone belongs to nothing: zapping it
	 * takes back a page table that only its usual mapping deposits (7.2).
	 */
	if (!READ_ONCE(page_folio(pfn_to_page(xpmem_pfn(w->one)))->mapping))
		return false;
	if ((w->vmf->address ^ source) & ~PMD_MASK & PAGE_MASK)
		return false;
	return addr >= vma->vm_start && addr + PMD_SIZE <= vma->vm_end;
}

static int xpmem_insert_huge(struct xpmem_window *w)
{
	unsigned long pfn = xpmem_pfn(w->one) & ~((PMD_SIZE >> PAGE_SHIFT) - 1);
	bool write = w->vmf->vma->vm_flags & VM_WRITE && w->one & HMM_PFN_WRITE;
	vm_fault_t ret;

	down_read(&w->space->inval);
	if (xpmem_window_stale(w)) {
		up_read(&w->space->inval);
		return -EBUSY;
	}
	if (write)
		xpmem_mark_dirty(pfn);
	ret = xpmem_insert_pmd(w->vmf, pfn, write);
	up_read(&w->space->inval);
	if (ret & VM_FAULT_OOM)
		return -ENOMEM;
	if (ret & VM_FAULT_ERROR)
		return -EFAULT;
	w->mapped = PMD_SIZE >> PAGE_SHIFT;
	xpmem_event(XPMEM_EV_MAPPED_HUGE);
	return 0;
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

/*
 * att->tables decides between a huge entry and a page table: a table once
 * there stays until the VMA goes, which the fault's lock forbids, so whoever
 * finds one fills it. -EBUSY: the look is stale, or a huge entry is in the way.
 */
int xpmem_window_insert(struct xpmem_window *w, bool huge)
{
	int err = 0;
	pmd_t pmd;

	mutex_lock(&w->att->tables);
	pmd = READ_ONCE(*w->vmf->pmd);
	if (huge && (pmd_none(pmd) || pmd_leaf(pmd))) {
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
	down_read(&w->space->inval);
	if (xpmem_window_stale(w))
		err = -EBUSY;
	else
		err = xpmem_walk_tables(w, xpmem_fill_table);
	up_read(&w->space->inval);
	xpmem_event_add(XPMEM_EV_MAPPED_SMALL, w->mapped);
	if (!err && w->pages > 1)
		xpmem_window_adapt(w);
	return err;
}
