// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a fault waits for: the owner's mmap_lock, a change of the owner's memory,
 * whatever the owner's page needs. It holds no lock meanwhile, and can be killed.
 */
#include <linux/sched/signal.h>

#include "xpmem.h"

static bool xpmem_may_unlock(const struct vm_fault *vmf)
{
	return vmf->flags & FAULT_FLAG_ALLOW_RETRY &&
	       !(vmf->flags & FAULT_FLAG_RETRY_NOWAIT);
}

/*
 * Lets go what the fault holds; the VMA may go with it, so the file is kept,
 * and with it the space. NULL: it must stay held. Let it fault again, then.
 */
static struct file *xpmem_unlock(struct vm_fault *vmf)
{
	struct file *file;

	if (!xpmem_may_unlock(vmf)) {
		cond_resched();
		return NULL;
	}
	file = get_file(vmf->vma->vm_file);
	release_fault_lock(vmf);
	return file;
}

/* How long those wait whom no signal reaches: their end waits with them. */
#define XPMEM_WAIT_UNKILLABLE	(5 * HZ)

/*
 * Ending, or a thread of the kernel's: SIGKILL was, or is nothing to it. An
 * ending task reads its list of robust mutexes, for one.
 */
static bool xpmem_unkillable(void)
{
	return current->flags & (PF_EXITING | PF_KTHREAD);
}

/*
 * What cannot let go of its lock faults again, in a loop of the kernel's that
 * looks at no signal (fixup_user_fault(), for a futex).
 */
static vm_fault_t xpmem_come_again(const struct xpmem_window *w)
{
	if (fatal_signal_pending(current))
		return VM_FAULT_SIGBUS;
	if (xpmem_unkillable() &&
	    xpmem_space_held_for(w->space) > XPMEM_WAIT_UNKILLABLE)
		return VM_FAULT_SIGBUS;
	return VM_FAULT_NOPAGE;
}

/*
 * Delivers a refusal: the attacher's lock is taken again. The kernel does not
 * look at the VMA any more then (see handle_mm_fault()).
 */
static vm_fault_t xpmem_refuse(struct mm_struct *attacher, vm_fault_t ret)
{
	return mmap_read_lock_killable(attacher) ? VM_FAULT_RETRY : ret;
}

/* Let the owner's writer finish. */
vm_fault_t xpmem_wait_owner(struct xpmem_window *w)
{
	struct mm_struct *owner = w->space->mm;
	struct file *file = xpmem_unlock(w->vmf);

	xpmem_event(XPMEM_EV_FAULT_WAIT);
	if (!file)
		return xpmem_come_again(w);
	if (!mmap_read_lock_killable(owner))
		mmap_read_unlock(owner);
	fput(file);
	return VM_FAULT_RETRY;
}

/*
 * Is nothing at the touched page being changed? Nor is there anything to wait
 * for when it has been withdrawn, or the owner is gone: a hold ends with its
 * descriptor, which somebody else may have.
 */
static bool xpmem_is_quiet(struct xpmem_access *access, unsigned long source)
{
	struct xpmem_space *space = access->segment->space;

	return !xpmem_access_valid(access) || !xpmem_space_alive(space) ||
	       !xpmem_space_changes(space, source, source + PAGE_SIZE);
}

/*
 * Let the change of the touched page finish. The file that is kept has the
 * permit and the space; nobody keeps the owner's memory, which an owner that is
 * killed gives back.
 */
vm_fault_t xpmem_wait_quiet(struct xpmem_window *w)
{
	struct mm_struct *attacher = w->vmf->vma->vm_mm;
	struct xpmem_access *access = w->att->access;
	struct xpmem_space *space = w->space;
	unsigned long source = xpmem_source(w->vmf);
	bool user = w->vmf->flags & FAULT_FLAG_USER;
	vm_fault_t ret = VM_FAULT_RETRY;
	struct file *file;

	/* To be refused it must come back under the mmap_lock. */
	if (xpmem_unkillable() && xpmem_fault_lock_is_vma(w->vmf)) {
		release_fault_lock(w->vmf);
		return VM_FAULT_RETRY;
	}
	file = xpmem_unlock(w->vmf);
	xpmem_event(XPMEM_EV_FAULT_WAIT);
	if (!file)
		return xpmem_come_again(w);
	/* In user mode a signal is answered first, and a tracer. */
	if (user)
		wait_event_interruptible(space->quiet,
					 xpmem_is_quiet(access, source));
	else if (!xpmem_unkillable())
		wait_event_killable(space->quiet,
				    xpmem_is_quiet(access, source));
	else if (!wait_event_timeout(space->quiet,
				     xpmem_is_quiet(access, source),
				     XPMEM_WAIT_UNKILLABLE))
		ret = xpmem_refuse(attacher, VM_FAULT_SIGBUS);
	fput(file);
	return ret;
}

/* Looked often enough: let those in who want the attacher's mmap_lock. */
vm_fault_t xpmem_back_off(struct xpmem_window *w)
{
	struct file *file = xpmem_unlock(w->vmf);

	if (!file)
		return xpmem_come_again(w);
	cond_resched();
	fput(file);
	return VM_FAULT_RETRY;
}

/* 0, an error of the owner's, or VM_FAULT_RETRY: a signal came first. */
static vm_fault_t xpmem_fault_in(struct mm_struct *owner, unsigned long source,
				 unsigned int flags)
{
	struct vm_area_struct *vma;
	vm_fault_t ret;

	do {
		if (mmap_read_lock_killable(owner))
			return VM_FAULT_RETRY;
		vma = xpmem_owner_vma(owner, source, flags & FAULT_FLAG_WRITE);
		ret = vma ? handle_mm_fault(vma, source, flags, NULL) :
			    VM_FAULT_SIGBUS;
		/* It has let go of the lock. */
		if (ret & VM_FAULT_COMPLETED)
			return 0;
		if (!(ret & VM_FAULT_RETRY)) {
			mmap_read_unlock(owner);
			return ret & VM_FAULT_ERROR;
		}
		flags |= FAULT_FLAG_TRIED;
	} while (!fatal_signal_pending(current) &&
		 !(flags & FAULT_FLAG_INTERRUPTIBLE &&
		   signal_pending(current)));
	return VM_FAULT_RETRY;
}

/*
 * The owner's page needs a fault that may wait: for a disk, a server, another
 * process (userfaultfd), perhaps one that waits for us. No lock of ours is
 * held meanwhile.
 */
vm_fault_t xpmem_fault_slowly(struct xpmem_window *w)
{
	struct mm_struct *attacher = w->vmf->vma->vm_mm;
	struct mm_struct *owner = w->space->mm;
	unsigned long source = xpmem_source(w->vmf);
	unsigned int flags = FAULT_FLAG_REMOTE | FAULT_FLAG_ALLOW_RETRY |
			     FAULT_FLAG_KILLABLE;
	unsigned int held = xpmem_space_held(w->space);
	struct file *file;
	vm_fault_t ret;

	if (!xpmem_may_unlock(w->vmf))
		return VM_FAULT_SIGBUS;
	/* A VMA cannot be locked again: come back under the mmap_lock. */
	if (xpmem_fault_lock_is_vma(w->vmf)) {
		release_fault_lock(w->vmf);
		return VM_FAULT_RETRY;
	}
	xpmem_event(XPMEM_EV_FAULT_SLOW);
	if (w->write)
		flags |= FAULT_FLAG_WRITE;
	/* In user mode a signal is answered first, as in the owner's wait. */
	if (w->vmf->flags & FAULT_FLAG_USER)
		flags |= FAULT_FLAG_INTERRUPTIBLE;
	file = xpmem_unlock(w->vmf);
	ret = xpmem_fault_in(owner, source, flags);
	/* While it is held, what is not there is not gone. */
	if (ret & VM_FAULT_ERROR &&
	    (held & 1 || held != xpmem_space_held(w->space)))
		ret = VM_FAULT_RETRY;
	if (ret & VM_FAULT_ERROR)
		ret = xpmem_refuse(attacher, xpmem_owner_error(ret));
	else
		ret = VM_FAULT_RETRY;
	fput(file);
	return ret;
}
