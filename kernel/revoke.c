// SPDX-License-Identifier: GPL-2.0-only
/*
 * Changes of the owner's memory. The kernel announces each before it begins
 * and says when it is over; what attachers have of it is taken away in
 * between. Whoever looks at the owner's page tables says where: a change there
 * makes the look stale. So a fault waits for a change, or looks again, only
 * where the change is.
 *
 * Not by mmu_interval_read_begin(): that waits for any change of the address
 * space, and cannot be killed.
 */
#include <linux/hashtable.h>
#include <linux/jiffies.h>
#include <linux/lockdep.h>

#include "xpmem.h"

/*
 * Notifications that are none of ours, though they come to our callback. Each
 * is about a part of an attachment, and an attachment is never a source
 * (VM_PFNMAP is refused), so there is nothing to revoke; but acting on them
 * would not end well:
 *
 * - Zapping an attacher's page tables starts that process's own notifiers, and
 *   so ours again when it exports memory too. Where two processes attach each
 *   other's attachments that has no end.
 * - Splitting an attachment's VMA starts them (__split_huge_pmd()) with the
 *   i_mmap_rwsem of the space it maps held for writing. Where a process
 *   attaches itself that is the very lock we would take; where two processes
 *   attach each other, each would hold the lock that the other one waits for.
 *
 * A notification says which mm and which range, but neither the VMA nor why.
 * So the task that causes it is what tells: a chain for each hash of tasks.
 * Only a task itself adds what exempts it, so an empty chain needs no lock.
 */
#define XPMEM_EXEMPT_BITS	8

static struct xpmem_exempt_chain {
	spinlock_t lock;	/* guards the chain */
	struct hlist_head head;
} xpmem_exempt[1 << XPMEM_EXEMPT_BITS];

void xpmem_exempt_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(xpmem_exempt); i++)
		spin_lock_init(&xpmem_exempt[i].lock);
}

static struct xpmem_exempt_chain *xpmem_exempt_of(struct task_struct *task)
{
	return &xpmem_exempt[hash_ptr(task, XPMEM_EXEMPT_BITS)];
}

void xpmem_exempt_add(struct xpmem_exemption *e)
{
	struct xpmem_exempt_chain *chain = xpmem_exempt_of(current);

	e->task = current;
	spin_lock(&chain->lock);
	hlist_add_head(&e->node, &chain->head);
	spin_unlock(&chain->lock);
}

void xpmem_exempt_forget(struct xpmem_exemption *e)
{
	struct xpmem_exempt_chain *chain = xpmem_exempt_of(e->task);

	spin_lock(&chain->lock);
	hlist_del_init(&e->node);
	spin_unlock(&chain->lock);
}

static bool xpmem_is_exempt(const struct mmu_notifier_range *range)
{
	struct xpmem_exempt_chain *chain = xpmem_exempt_of(current);
	struct xpmem_exemption *e;
	bool found = false;

	if (hlist_empty(&chain->head))
		return false;
	spin_lock(&chain->lock);
	hlist_for_each_entry(e, &chain->head, node)
		if (e->task == current &&
		    (!e->mm || (e->mm == range->mm && e->start == range->start &&
				e->start + PMD_SIZE == range->end)))
			found = true;
	spin_unlock(&chain->lock);
	return found;
}

/* Takes [start, start + size) from every attacher; size 0: all from start. */
static void xpmem_space_unmap(struct xpmem_space *space, unsigned long start,
			      unsigned long size)
{
	struct address_space *mapping = space->inode->i_mapping;
	struct xpmem_exemption self = {};

	/* Whoever maps the file from here on finds his look stale. */
	if (!mapping_mapped(mapping))
		return;
	xpmem_event(XPMEM_EV_INVALIDATE_MAPPED);

	xpmem_exempt_add(&self);
	/*
	 * lockdep has one map for all processes' notifiers, and one class for
	 * all spaces' i_mmap_rwsem. It takes the notifications of the zapping,
	 * which go no deeper, for a recursion ("possible recursive locking" on
	 * mmu_notifier_invalidate_range_start), and the split of an attachment,
	 * which is exempt, for an inversion. The kernel's map is not exported,
	 * so it cannot be let go for the call; a class for each space would
	 * need a key for each, and would not help with the first. So lockdep
	 * does not see this one call. It sees the order of the locks all the
	 * same: the kernel zaps other mappings of files inside notifications.
	 */
	lockdep_off();
	unmap_mapping_range(mapping, start, size, 1);
	lockdep_on();
	xpmem_exempt_del(&self);
}

static bool xpmem_overlap(unsigned long start, unsigned long end,
			  unsigned long other_start, unsigned long other_end)
{
	return start < other_end && other_start < end;
}

/* Under space->lock. */
static void xpmem_change_add(struct xpmem_space *space,
			     const struct mmu_notifier_range *range)
{
	struct xpmem_change *change;

	if (space->nr_changes < XPMEM_CHANGES) {
		change = &space->changes[space->nr_changes++];
		change->key = range;
		change->start = range->start;
		change->end = range->end;
		return;
	}
	if (!space->nr_others++) {
		space->others_start = range->start;
		space->others_end = range->end;
	}
	space->others_start = min(space->others_start, range->start);
	space->others_end = max(space->others_end, range->end);
}

/*
 * Under space->lock. Each change has its start before its end: a notifier is
 * registered with every lock held under which anybody could be between them.
 */
static void xpmem_change_del(struct xpmem_space *space,
			     const struct mmu_notifier_range *range)
{
	unsigned int i;

	for (i = 0; i < space->nr_changes; i++) {
		if (space->changes[i].key != range)
			continue;
		space->changes[i] = space->changes[--space->nr_changes];
		return;
	}
	if (!WARN_ON_ONCE(!space->nr_others))
		space->nr_others--;
}

/* Under space->lock: is anything in [start, end) being changed? */
static bool xpmem_changes(const struct xpmem_space *space, unsigned long start,
			  unsigned long end)
{
	unsigned int i;

	if (unlikely(space->nr_holds))
		return true;
	for (i = 0; i < space->nr_changes; i++)
		if (xpmem_overlap(start, end, space->changes[i].start,
				  space->changes[i].end))
			return true;
	return space->nr_others && xpmem_overlap(start, end,
						 space->others_start,
						 space->others_end);
}

bool xpmem_space_changes(struct xpmem_space *space, unsigned long start,
			 unsigned long end)
{
	bool found;

	spin_lock(&space->lock);
	found = xpmem_changes(space, start, end);
	spin_unlock(&space->lock);
	return found;
}

/*
 * What the owner takes away from here on comes back: whoever has looked, has
 * not seen what counts.
 */
void xpmem_space_hold(struct xpmem_space *space, bool hold)
{
	struct xpmem_look *look;

	spin_lock(&space->lock);
	if (hold && !space->nr_holds)
		space->held_since = jiffies;
	space->nr_holds += hold ? 1 : -1;
	space->held++;
	if (hold)
		list_for_each_entry(look, &space->looks, node)
			WRITE_ONCE(look->stale, true);
	spin_unlock(&space->lock);
	if (!hold && wq_has_sleeper(&space->quiet))
		wake_up_all(&space->quiet);
}

/* Another number when a hold has begun or ended since; odd while there is one. */
unsigned int xpmem_space_held(struct xpmem_space *space)
{
	unsigned int held;

	spin_lock(&space->lock);
	held = (space->held << 1) + (space->nr_holds ? 1 : 0);
	spin_unlock(&space->lock);
	return held;
}

/* For how long it has been held, in jiffies. */
unsigned long xpmem_space_held_for(struct xpmem_space *space)
{
	unsigned long time;

	spin_lock(&space->lock);
	time = space->nr_holds ? jiffies - space->held_since : 0;
	spin_unlock(&space->lock);
	return time;
}

int xpmem_change_start(struct mmu_notifier *notifier,
		       const struct mmu_notifier_range *range)
{
	struct xpmem_space *space =
		container_of(notifier, struct xpmem_space, notifier);
	struct xpmem_look *look;
	bool stale = false;

	spin_lock(&space->lock);
	xpmem_change_add(space, range);
	list_for_each_entry(look, &space->looks, node) {
		if (xpmem_overlap(range->start, range->end, look->start,
				  look->end)) {
			WRITE_ONCE(look->stale, true);
			stale = true;
		}
	}
	spin_unlock(&space->lock);

	/* Where sleeping is forbidden, the veto saw to it that nothing is there. */
	if (xpmem_is_exempt(range) || !mmu_notifier_range_blockable(range))
		return 0;
	xpmem_event(XPMEM_EV_INVALIDATE);
	/* Let those finish that found their look fresh. */
	if (stale) {
		down_write(&space->inval);
		up_write(&space->inval);
	}
	/* Everything is told as up to ULONG_MAX. */
	xpmem_space_unmap(space, range->start,
			  range->end == ULONG_MAX ? 0 :
						    range->end - range->start);
	return 0;
}

void xpmem_change_end(struct mmu_notifier *notifier,
		      const struct mmu_notifier_range *range)
{
	struct xpmem_space *space =
		container_of(notifier, struct xpmem_space, notifier);

	spin_lock(&space->lock);
	xpmem_change_del(space, range);
	spin_unlock(&space->lock);
	if (wq_has_sleeper(&space->quiet))
		wake_up_all(&space->quiet);
}

/* The last user of the owner's memory is gone: no fault gets here any more. */
void xpmem_owner_exits(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	struct xpmem_space *space =
		container_of(notifier, struct xpmem_space, notifier);

	xpmem_event(XPMEM_EV_INVALIDATE);
	xpmem_space_withdraw(space, 0, 0);
}

/*
 * The OOM reaper may not sleep, and zapping does. A notifier that hears of ends
 * must not refuse a start, but one of an interval may, and it is asked first.
 * The reaper comes back a few times, and then leaves the memory to the owner's
 * exit. The owner is being killed: from here on its memory is nobody's source.
 */
static bool xpmem_veto(struct mmu_interval_notifier *interval,
		       const struct mmu_notifier_range *range,
		       unsigned long seq)
{
	struct xpmem_space *space =
		container_of(interval, struct xpmem_space, veto);
	bool quiet;

	/* The sequence is not moved: nobody reads it. */
	if (mmu_notifier_range_blockable(range))
		return true;
	spin_lock(&space->lock);
	space->dying = true;
	quiet = list_empty(&space->looks);
	spin_unlock(&space->lock);
	return quiet && !mapping_mapped(space->inode->i_mapping);
}

const struct mmu_interval_notifier_ops xpmem_veto_ops = {
	.invalidate = xpmem_veto,
};

/*
 * The caller is about to look at [start, end) of the owner's page tables.
 * -EAGAIN: it is being changed. -ESRCH: the owner is dying.
 */
int xpmem_look_begin(struct xpmem_space *space, struct xpmem_look *look,
		     unsigned long start, unsigned long end)
{
	int err = 0;

	look->start = start;
	look->end = end;
	look->stale = false;
	spin_lock(&space->lock);
	if (unlikely(space->dying))
		err = -ESRCH;
	else if (unlikely(xpmem_changes(space, start, end)))
		err = -EAGAIN;
	else
		list_add(&look->node, &space->looks);
	spin_unlock(&space->lock);
	return err;
}

void xpmem_look_end(struct xpmem_space *space, struct xpmem_look *look)
{
	spin_lock(&space->lock);
	list_del(&look->node);
	spin_unlock(&space->lock);
}

/*
 * After the caller set a flag that faults read under space->inval: what was
 * inserted before is taken away, and nothing is inserted after.
 */
void xpmem_space_withdraw(struct xpmem_space *space, unsigned long start,
			  unsigned long size)
{
	down_write(&space->inval);
	up_write(&space->inval);
	/* Nor does anybody wait for it. */
	if (wq_has_sleeper(&space->quiet))
		wake_up_all(&space->quiet);
	xpmem_space_unmap(space, start, size);
}
