/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one file that knows that kernels differ. Everything else reads as if
 * written for today's kernel. No version is compared: a distribution's kernel
 * has what it has. XPMEM_ names that are not defined here come from Kbuild,
 * which looks into the kernel's headers.
 */
#ifndef _XPMEM_COMPAT_H
#define _XPMEM_COMPAT_H

#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/page-flags.h>
#include <linux/uaccess.h>

#ifndef CONFIG_MMU_NOTIFIER
#error "xpmem: the kernel's configuration lacks CONFIG_MMU_NOTIFIER"
#endif
#ifndef CONFIG_HMM_MIRROR
#error "xpmem: the kernel's configuration lacks CONFIG_HMM_MIRROR"
#endif

/* pfn_t went away in 6.17. */
#ifdef XPMEM_PFN_T
#include <linux/pfn_t.h>
#endif

/* 5.17 brought page_table_check=on. */
#ifdef XPMEM_PAGE_TABLE_CHECK
#include <linux/page_table_check.h>
#endif

/* 6.3 made vm_flags read-only to drivers. */
#ifndef XPMEM_VM_FLAGS_SET
static inline void vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma,
				  unsigned long flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/* 5.14 looks for an address without looking for what comes after it. */
#ifndef XPMEM_VMA_LOOKUP
static inline struct vm_area_struct *vma_lookup(struct mm_struct *mm,
						unsigned long addr)
{
	struct vm_area_struct *vma = find_vma(mm, addr);

	return vma && vma->vm_start <= addr ? vma : NULL;
}
#endif

/* 5.11 renamed it. */
#ifndef XPMEM_MAY_SPLIT
#define may_split	split
#endif

/* 5.16 brought folios. */
#ifndef page_folio
#define folio			page
#define page_folio(p)		compound_head(p)
#define folio_test_anon(f)	PageAnon(f)
#define folio_test_swapbacked(f) PageSwapBacked(f)
#define folio_test_dirty(f)	PageDirty(f)
#define folio_set_dirty(f)	SetPageDirty(f)
#endif

/*
 * The lock that a fault is handled under: 6.6 may take the VMA's alone. It
 * does where the VMA has ->map_pages, whatever that does.
 */
static inline bool xpmem_fault_lock_is_vma(const struct vm_fault *vmf)
{
#ifdef XPMEM_FAULT_LOCK
	return vmf->flags & FAULT_FLAG_VMA_LOCK;
#else
	return false;
#endif
}

#ifndef XPMEM_FAULT_LOCK
static inline void release_fault_lock(struct vm_fault *vmf)
{
	mmap_read_unlock(vmf->vma->vm_mm);
}
#endif

/* 6.0 lets a fault be done with the lock let go. */
#ifndef XPMEM_FAULT_COMPLETED
#define VM_FAULT_COMPLETED	((__force vm_fault_t)0)
#endif

/* 6.6 gave ->huge_fault an order. */
#ifdef XPMEM_HUGE_FAULT_PE_SIZE
#define XPMEM_HUGE_FAULT(name)						\
	vm_fault_t name(struct vm_fault *vmf, enum page_entry_size size)
#define XPMEM_HUGE_FAULT_IS_PMD		(size == PE_SIZE_PMD)
#else
#define XPMEM_HUGE_FAULT(name)						\
	vm_fault_t name(struct vm_fault *vmf, unsigned int order)
#define XPMEM_HUGE_FAULT_IS_PMD		(order == PMD_SHIFT - PAGE_SHIFT)
#endif

/*
 * A PMD of ours must be one that get_user_pages_fast() leaves alone. Since
 * 6.12 that is a special PMD; before, only a devmap one was refused (it finds
 * no dev_pagemap for the page), so the older kernels get that.
 */
#if !defined(CONFIG_TRANSPARENT_HUGEPAGE)
#define XPMEM_HAVE_PMD	false
#elif defined(CONFIG_ARCH_SUPPORTS_PMD_PFNMAP)
#define XPMEM_HAVE_PMD	true
#define XPMEM_PFN_FLAGS	0
#elif defined(XPMEM_PFN_T) && defined(CONFIG_ARCH_HAS_PTE_DEVMAP)
#define XPMEM_HAVE_PMD	true
#define XPMEM_PFN_FLAGS	(PFN_DEV | PFN_MAP)
#else
#define XPMEM_HAVE_PMD	false
#define XPMEM_PFN_FLAGS	0
#endif

static inline vm_fault_t xpmem_insert_pmd(struct vm_fault *vmf,
					  unsigned long pfn, bool write)
{
#ifndef CONFIG_TRANSPARENT_HUGEPAGE
	return VM_FAULT_FALLBACK;
#elif defined(XPMEM_PFN_T)
	return vmf_insert_pfn_pmd(vmf, __pfn_to_pfn_t(pfn, XPMEM_PFN_FLAGS),
				  write);
#else
	return vmf_insert_pfn_pmd(vmf, pfn, write);
#endif
}

/* x86 has tags where the mm asked for them, arm64 where the thread did. */
static inline unsigned long xpmem_untagged(unsigned long addr)
{
#ifdef CONFIG_ARM64_TAGGED_ADDR_ABI
	if (!test_thread_flag(TIF_TAGGED_ADDR))
		return addr;
#endif
	return untagged_addr(addr);
}

/* 6.6 brought shadow stacks (x86), 6.13 those of arm64, by the same name. */
#ifndef VM_SHADOW_STACK
#define VM_SHADOW_STACK	VM_NONE
#endif

/*
 * Memory that the kernel itself cannot reach: secretmem (5.14), and since 6.18
 * what guests have. vma_is_secretmem() and its like are not exported.
 */
static inline bool xpmem_sb_is_secret(const struct super_block *sb)
{
#ifdef SECRETMEM_MAGIC
	if (sb->s_magic == SECRETMEM_MAGIC)
		return true;
#endif
#ifdef GUEST_MEMFD_MAGIC
	if (sb->s_magic == GUEST_MEMFD_MAGIC)
		return true;
#endif
	return false;
}

#endif /* _XPMEM_COMPAT_H */
