/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one file that knows kernel versions. Everything else reads as if
 * written for today's kernel. Supported: Linux 6.1 and later.
 */
#ifndef _XPMEM_COMPAT_H
#define _XPMEM_COMPAT_H

#include <linux/version.h>
#include <linux/huge_mm.h>
#include <linux/mm.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "xpmem needs Linux 6.1 or later"
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 17, 0)
#include <linux/pfn_t.h>
#endif

/* 6.3 made vm_flags read-only to drivers. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/* 6.5 dropped the vmas argument. */
static inline long xpmem_gup_page(struct mm_struct *mm, unsigned long addr,
				  unsigned int flags, struct page **page,
				  int *locked)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
	return get_user_pages_remote(mm, addr, 1, flags, page, NULL, locked);
#else
	return get_user_pages_remote(mm, addr, 1, flags, page, locked);
#endif
}

/*
 * A PMD of ours must be one that get_user_pages_fast() leaves alone. Since
 * 6.12 that is a special PMD; before, only a devmap one was refused (it finds
 * no dev_pagemap for the page), so the older kernels get that. pfn_t went
 * away in 6.17.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#define XPMEM_HAVE_PMD	IS_ENABLED(CONFIG_ARCH_SUPPORTS_PMD_PFNMAP)
#else
#define XPMEM_HAVE_PMD	(IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) && \
			 IS_ENABLED(CONFIG_ARCH_HAS_PTE_DEVMAP))
#endif

static inline vm_fault_t xpmem_insert_pmd(struct vm_fault *vmf,
					  unsigned long pfn, bool write)
{
#ifndef CONFIG_TRANSPARENT_HUGEPAGE
	return VM_FAULT_FALLBACK;
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
	return vmf_insert_pfn_pmd(vmf, pfn, write);
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	return vmf_insert_pfn_pmd(vmf, __pfn_to_pfn_t(pfn, 0), write);
#else
	return vmf_insert_pfn_pmd(vmf, __pfn_to_pfn_t(pfn, PFN_DEV | PFN_MAP),
				  write);
#endif
}

/* 6.6 brought shadow stacks. */
#ifndef VM_SHADOW_STACK
#define VM_SHADOW_STACK	VM_NONE
#endif

#endif /* _XPMEM_COMPAT_H */
